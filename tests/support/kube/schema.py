"""Structural schemas at work: prune what is unknown, fill in defaults, find what is wrong.

Rules in CEL are the business of ``support.cel``; ``broken_rules`` asks it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from support.cel import violations
from support.kube.errors import Cause
from support.kube.fields import child
from support.kube.kinds import Schema

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_RULE_WORDS = {"FieldValueForbidden": "Forbidden", "FieldValueRequired": "Required value"}
_FORMATS = {
    "date-time": re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$"),
    "date": re.compile(r"^\d{4}-\d\d-\d\d$"),
    "duration": re.compile(r"^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$|^\d+ ?(days?|weeks?|hours?|minutes?|seconds?)$"),
    "uuid": re.compile(r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"),
}


def prune(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Take out, in place, what the schema does not know; yield the paths of what was taken."""
    if not schema:
        return
    if isinstance(value, dict):
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            for name in [name for name in value if name not in schema.get("properties", {})]:
                del value[name]
                yield f"{path}.{name}" if path else name
        for name, part in value.items():
            yield from prune(part, child(schema, name), f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from prune(item, schema.get("items", {}), f"{path}[{index}]")


def fill_in(value: Any, schema: Schema, *, keeps_null: bool = False) -> None:
    """Set the schema's defaults, in place, where a field is absent; null counts as absent unless it is nullable.

    Args:
        value: An object, or a part of one.
        schema: What it is to be like.
        keeps_null: Leave a null that has no default, as the real server does with what server-side apply leaves.
    """
    if not schema:
        return
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            is_null = name in value and value[name] is None and not below.get("nullable")
            if is_null and not (keeps_null and "default" not in below):
                del value[name]
            if "default" in below and name not in value:
                value[name] = copy.deepcopy(below["default"])
        for name, part in value.items():
            fill_in(part, child(schema, name), keeps_null=keeps_null)
    elif isinstance(value, list):
        for item in value:
            fill_in(item, schema.get("items", {}), keeps_null=keeps_null)


def faults(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Yield what the schema has against ``value``."""
    if not schema or (value is None and schema.get("nullable")):
        return
    wrong = _wrong_type(value, schema, path)
    if wrong:
        yield wrong
        return
    yield from _enum_faults(value, schema, path)
    if isinstance(value, str):
        yield from _string_faults(value, schema, path)
    elif isinstance(value, dict):
        yield from _object_faults(value, schema, path)
    elif isinstance(value, list):
        yield from _array_faults(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number_faults(value, schema, path)
    yield from _combined_faults(value, schema, path)


def broken_rules(value: dict[str, Any], schema: Schema, old: dict[str, Any] | None = None) -> Iterator[Cause]:
    """Yield the rules in CEL that an object, or its change from ``old``, breaks (those on metadata left out)."""
    own = {name: part for name, part in schema.get("properties", {}).items() if name != "metadata"}
    for found in violations(value, {**schema, "properties": own}, old):
        words = _RULE_WORDS.get(found.reason) or f"Invalid value: {_shown(_at(value, found.path))}"
        yield Cause(found.reason, found.path, f"{words}: {found.message}")


def unchecked_rules() -> Cause:
    """Return what is said where other faults kept the rules in CEL from being looked at."""
    why = "some validation rules were not checked because the object was invalid; correct the existing errors to"
    return Cause("FieldValueInvalid", "<nil>", f"Invalid value: null: {why} complete validation")


def has_rules(schema: Any) -> bool:
    """Return whether there is a rule in CEL anywhere in ``schema``."""
    if isinstance(schema, dict):
        return "x-kubernetes-validations" in schema or any(has_rules(part) for part in schema.values())
    return isinstance(schema, list) and any(has_rules(part) for part in schema)


def typing_faults(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Yield why server-side apply cannot even read ``value``: unknown fields, other types, keys missing or twice."""
    sort = schema.get("type")
    if value is None or not schema:
        return
    if sort == "object" and not isinstance(value, dict):
        yield f"{path}: expected map, got &{{{value}}}"
    elif sort == "array" and not isinstance(value, list):
        yield f"{path}: expected list, got &{{{value}}}"
    elif sort in {"integer", "number", "boolean", "string"} and not _TYPES[sort](value):
        words = {"integer": "numeric (int or float)", "number": "numeric (int or float)"}
        found = {str: "string", bool: "bool", int: "int", float: "float"}.get(type(value), "map")
        yield f"{path}: expected {words.get(sort, sort)}, got {found}"
    elif isinstance(value, dict):
        is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
        for name, part in value.items():
            if not is_open and name not in schema.get("properties", {}):
                yield f"{path}.{name}: field not declared in schema"
            yield from typing_faults(part, child(schema, name), f"{path}.{name}")
    elif isinstance(value, list):
        yield from _key_faults(value, schema, path)
        for index, item in enumerate(value):
            yield from typing_faults(item, schema.get("items", {}), f"{path}[{index}]")


def _key_faults(items: list[Any], schema: Schema, path: str) -> Iterator[str]:
    keys = schema.get("x-kubernetes-list-map-keys", ())
    seen: list[Any] = []
    for index, item in enumerate(items if keys else ()):
        own = {key: item.get(key, child(schema["items"], key).get("default")) for key in keys}
        if all(part is None for part in own.values()):
            words = "associative list with keys has an element that omits all key fields"
            listed = "[" + " ".join(_quoted(key) for key in keys) + "]"
            yield f"{path}: element {index}: {words} {listed} (and doesn't have default values for any key fields)"
        elif own in seen:
            shown = ",".join(f"{key}={_quoted(part)}" for key, part in own.items())
            yield f"{path}: duplicate entries for key [{shown}]"
        seen.append(own)


def _wrong_type(value: Any, schema: Schema, path: str) -> Cause | None:
    if schema.get("x-kubernetes-int-or-string"):
        wanted = "integer,string"
        fits = _TYPES["integer"](value) or _TYPES["string"](value)
    else:
        wanted = schema.get("type", "")
        fits = not wanted or _TYPES[wanted](value)
    if fits:
        return None
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    found = names.get(type(value), "null")
    return Cause(
        "FieldValueTypeInvalid", path, f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    )


def _enum_faults(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(_quoted(one) for one in schema["enum"])
        yield Cause(
            "FieldValueNotSupported", path, f"Unsupported value: {_quoted(value)}: supported values: {supported}"
        )


def _string_faults(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    yield from islice(_text_faults(value, schema, path), 1)
    form = _FORMATS.get(schema.get("format", ""))
    if form and not form.match(value):
        yield Cause(
            "FieldValueTypeInvalid",
            path,
            f"Invalid value: {_quoted(value)}: {path} in body must be of type {schema['format']}: {_quoted(value)}",
        )


def _text_faults(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    longest, shortest = schema.get("maxLength"), schema.get("minLength")
    if longest is not None and len(value) > longest:
        yield Cause("FieldValueTooLong", path, f"Too long: may not be more than {longest} bytes")
    if shortest is not None and len(value) < shortest:
        yield _out_of_bounds(value, path, f"should be at least {shortest} chars long")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield _out_of_bounds(value, path, f"should match '{schema['pattern']}'")


def _object_faults(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Cause]:
    for name in schema.get("required", ()):
        if name not in value:
            yield Cause("FieldValueRequired", _join(path, name), "Required value")
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        yield Cause("FieldValueTooMany", path, f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield _out_of_bounds(len(value), path, f"should have at least {least} properties")
    for name, part in value.items():
        yield from faults(part, child(schema, name), _join(path, name))


def _array_faults(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        yield Cause("FieldValueTooMany", path, f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield _out_of_bounds(len(value), path, f"should have at least {least} items")
    yield from _repeated_items(value, schema, path)
    for index, item in enumerate(value):
        yield from faults(item, schema.get("items", {}), f"{path}[{index}]")


def _repeated_items(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    keys = schema.get("x-kubernetes-list-map-keys", ()) if schema.get("x-kubernetes-list-type") == "map" else None
    if keys is None and schema.get("x-kubernetes-list-type") != "set":
        return
    seen: list[Any] = []
    for index, item in enumerate(value):
        own = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
        if own in seen:
            shown = _quoted(own)
            if keys:
                shown = "{" + ",".join(f"{_quoted(key)}:{_quoted(part)}" for key, part in own.items()) + "}"
            yield Cause("FieldValueDuplicate", f"{path}[{index}]", f"Duplicate value: {shown}")
        seen.append(own)


def _number_faults(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum", False), schema.get("exclusiveMaximum", False)
    if low is not None and (value < low or (above and value == low)):
        yield _out_of_bounds(value, path, f"should be greater than {'' if above else 'or equal to '}{low}")
    if high is not None and (value > high or (below and value == high)):
        yield _out_of_bounds(value, path, f"should be less than {'' if below else 'or equal to '}{high}")


def _combined_faults(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    for part in schema.get("allOf", ()):
        yield from faults(value, part, path)
    if "anyOf" in schema and not any(_fits(value, part) for part in schema["anyOf"]):
        yield _out_of_bounds(value, path, "must validate at least one schema (anyOf)")
    if "oneOf" in schema and sum(_fits(value, part) for part in schema["oneOf"]) != 1:
        yield _out_of_bounds(value, path, "must validate one and only one schema (oneOf)")
    if "not" in schema and _fits(value, schema["not"]):
        yield _out_of_bounds(value, path, "must not validate the schema (not)")


def _fits(value: Any, schema: Schema) -> bool:
    return next(faults(value, schema), None) is None


def _out_of_bounds(value: Any, path: str, why: str) -> Cause:
    shown = '""' if isinstance(value, dict | list) else _quoted(value)
    return Cause("FieldValueInvalid", path, f"Invalid value: {shown}: {path} in body {why}")


def _at(value: Any, path: str) -> Any:
    for word in re.findall(r"[^.\[\]]+", path):
        value = value[int(word)] if isinstance(value, list) else value.get(word) if isinstance(value, dict) else None
    return value


def _shown(value: Any) -> str:
    names: dict[type, str] = {dict: '"object"', list: '"array"'}
    return names.get(type(value)) or _quoted(value)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
