"""From pydantic models to a structural schema, as Kubernetes asks for it.

Kept: type, description, bounds, pattern, enum, required. Left out: titles, ``$ref`` (put in place), null (an absent
field says the same), ``additionalProperties: false`` (the API server prunes, or refuses under strict validation) and
**defaults**: a default in the schema is written into users' objects and into every field manager's differences, and
could never be changed without changing objects that exist. The operator knows the defaults; descriptions tell them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fairlead_operator.api.v1alpha1.fields import DECIMALS_KEY, LIMIT_KEY

Schema = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)
_INT32_MAX = 2**31 - 1

DURATION_S = (
    r"self.findAll('[0-9]+([.][0-9]+)?(ms|s|m|h|d)').map(part, double(part.find('[0-9]+([.][0-9]+)?')) * "
    r"(part.endsWith('ms') ? 0.001 : part.endsWith('s') ? 1.0 : part.endsWith('m') ? 60.0 : "
    r"part.endsWith('h') ? 3600.0 : 86400.0)).sum()"
)
"""CEL: a duration in seconds."""


def structural(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """Return the structural schema of ``model``; descriptions tell ``defaults`` unless they are nobody's business."""
    schema = model.model_json_schema(by_alias=True)
    return _Conversion(schema.pop("$defs", {}), defaults=defaults).converted(schema)


class _Conversion:
    """One conversion; knows the definitions that references name."""

    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def converted(self, source: Schema) -> Schema:
        """Return ``source`` as a structural schema."""
        whole = self._in_place(source)
        kept = {key: whole[key] for key in _KEPT if key in whole}
        if "const" in whole:
            kept["enum"] = [whole["const"]]
        if kept["type"] == "integer":
            kept["format"] = "int32" if whole.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
        return {
            "description": _described(whole) if self._defaults else whole.get("description", ""),
            **kept,
            **self._contents(whole),
            **_marks(whole),
        }

    def _in_place(self, source: Schema) -> Schema:
        """Return ``source`` with its reference, or its one alternative that is not null, put in place."""
        options = [option for option in source.get("anyOf", ()) if option != {"type": "null"}]
        (inner,) = options or ([{"$ref": source["$ref"]}] if "$ref" in source else [{}])
        outer = {key: value for key, value in source.items() if key not in {"anyOf", "$ref"}}
        if "$ref" in inner:
            inner = self._in_place(self._definitions[inner["$ref"].rpartition("/")[2]])
        return {**inner, **outer}

    def _contents(self, whole: Schema) -> Schema:
        match whole["type"]:
            case "array":
                return {"items": self._nameless(whole["items"])}
            case "object" if "properties" in whole:
                properties = {name: self.converted(inner) for name, inner in whole["properties"].items()}
                return {"properties": properties, **({"required": [*whole["required"]]} if "required" in whole else {})}
            case "object":
                return self._map(whole)
            case _:
                return {}

    def _map(self, whole: Schema) -> Schema:
        patterned = tuple(whole.get("patternProperties", {}).values())
        values = self._nameless(patterned[0] if patterned else whole["additionalProperties"])
        names = whole.get("propertyNames", {}).get("enum")
        if names is None:
            return {"additionalProperties": values}
        return {"properties": {name: {"description": f"Amount of {name}.", **values} for name in names}}

    def _nameless(self, source: Schema) -> Schema:
        """Return what has no name of its own, an item or a map's value; scalars there need no description."""
        converted = self.converted(source)
        if not converted["description"]:
            del converted["description"]
        return converted


def _described(whole: Schema) -> str:
    description: str = whole.get("description", "")
    default = whole.get("default")
    if default in (None, "", [], {}) or "properties" in whole:
        return description
    shown = default if isinstance(default, str) else json.dumps(default)
    return f"{description} Default: {shown}.".lstrip()


def _marks(whole: Schema) -> Schema:
    """Return the validations that a field's own marks ask for."""
    if LIMIT_KEY in whole:
        limit_s = float(whole[LIMIT_KEY])
        rule = f"[{DURATION_S}].all(seconds, seconds > 0.0 && seconds <= {limit_s})"
        return _rule(rule, f"must be a duration such as 20ms, 1s or 24h, over 0 and at most {spelled(limit_s)}")
    if DECIMALS_KEY in whole:
        shifted = f"self * {10.0 ** whole[DECIMALS_KEY]}"
        rest = f"[{shifted} - double(int({shifted} + 0.5))].all(rest, rest < 0.000001 && rest > -0.000001)"
        return _rule(f"self < 0.0 || {rest}", "has more than two decimals; the finest step is 0.01 per cent")
    return {}


def _rule(cel: str, message: str) -> Schema:
    return {"x-kubernetes-validations": [{"rule": cel, "message": message, "reason": "FieldValueInvalid"}]}


def spelled(limit_s: float) -> str:
    """Return seconds as users write durations: in the largest unit that leaves no rest."""
    for unit, size_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if limit_s % size_s == 0:
            return f"{limit_s / size_s:g}{unit}"
    return f"{limit_s:g}s"
