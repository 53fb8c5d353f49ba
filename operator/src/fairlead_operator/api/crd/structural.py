"""A linter for CustomResourceDefinitions: what the API server would refuse, and what a good API does not do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Schema = dict[str, Any]

_FORBIDDEN = frozenset(
    {
        *("$ref", "$defs", "definitions", "anyOf", "oneOf", "allOf", "not", "const", "title", "default", "nullable"),
        *("uniqueItems", "patternProperties", "propertyNames"),
        *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"),
    }
)
"""Not structural, or not ours: defaults stand in descriptions (see ``schema``)."""

_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean"})
_BOUNDS = {
    "array": ("items", "maxItems", "x-kubernetes-list-type"),
    "integer": ("minimum", "maximum", "format"),
    "number": ("minimum", "maximum"),
}
_LIST_TYPES = frozenset({"atomic", "set", "map"})
_LONGEST_RULE = 1600


def findings(definition: dict[str, Any]) -> list[str]:
    """Return what is wrong with the schemas of a CustomResourceDefinition, one line each."""
    return [
        f"{path or 'root'}: {what}"
        for version in definition["spec"]["versions"]
        for path, schema in _schemas("", version["schema"]["openAPIV3Schema"])
        for what in _wrong(path, schema)
    ]


def _schemas(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield ``schema`` and all below it, each with its path: ``[]`` stands for items, ``{}`` for a map's values."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _schemas(f"{path}.{name}" if path else name, inner)
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from _schemas(path + mark, schema[key])


def _wrong(path: str, schema: Schema) -> Iterator[str]:
    kind = schema.get("type")
    if kind not in _TYPES:
        yield f"has type {kind}; give one"
    yield from (f"has {key}, which is not allowed here" for key in sorted(_FORBIDDEN & set(schema)))
    if not schema.get("description") and not path.endswith(("[]", "{}")) and path != "metadata":
        yield "has no description"
    yield from (f"has no {bound}" for bound in _BOUNDS.get(str(kind), ()) if bound not in schema)
    if kind == "string":
        yield from _wrong_string(path, schema)
    if kind == "object":
        yield from _wrong_object(path, schema)
    if kind == "array" and schema.get("x-kubernetes-list-type") in _LIST_TYPES:
        yield from _wrong_list(schema)
    yield from _wrong_rules(schema.get("x-kubernetes-validations", ()))


def _wrong_string(path: str, schema: Schema) -> Iterator[str]:
    if path not in {"apiVersion", "kind"} and not {"maxLength", "enum"} & set(schema):
        yield "has neither maxLength nor enum"
    pattern = schema.get("pattern", "^$")
    if not (pattern.startswith("^") and pattern.endswith("$")):
        yield "has a pattern that is not anchored"
    if any(form in pattern for form in ("(?", "\\d", "\\s", "\\w", "\\b")):
        yield "has a pattern that RE2 and Python read differently"


def _wrong_object(path: str, schema: Schema) -> Iterator[str]:
    values = schema.get("additionalProperties")
    if isinstance(values, bool):
        yield "has additionalProperties true or false"
    if ("properties" in schema) == isinstance(values, dict):
        yield "has not exactly one of properties and additionalProperties"
    if isinstance(values, dict) and "maxProperties" not in schema:
        yield "has no maxProperties"
    unknown = set(schema.get("required", ())) - set(schema.get("properties", {}))
    yield from (f"requires {name}, which it does not have" for name in sorted(unknown))
    if path == "metadata" and set(schema.get("properties", {})) - {"name", "generateName"}:
        yield "restricts more of metadata than name and generateName"


def _wrong_list(schema: Schema) -> Iterator[str]:
    items = schema.get("items", {})
    match schema["x-kubernetes-list-type"]:
        case "map":
            keys = schema.get("x-kubernetes-list-map-keys", [])
            if not keys:
                yield "is a map without keys"
            yield from (
                f"has key {key}, which its items do not require" for key in keys if key not in items["required"]
            )
        case "set" if items.get("type") in {"object", "array"}:
            yield "is a set of objects"


def _wrong_rules(rules: Iterable[Schema]) -> Iterator[str]:
    for rule in rules:
        if not rule.get("message"):
            yield f"has a rule without a message: {rule['rule']}"
        if "\n" in rule.get("message", "") or len(rule["rule"]) > _LONGEST_RULE:
            yield f"has a rule or a message that is too long: {rule['rule'][:60]}"
