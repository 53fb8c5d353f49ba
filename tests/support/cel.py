"""CEL rules of a CRD's schema, evaluated as a kube-apiserver does, by Google's CEL for C++.

The functions that Kubernetes adds (``find``, ``findAll``, ``sum``) are made here; the estimate of costs is the real
server's alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that does not hold."""

    path: str
    """Of the field at fault, such as ``spec.variants[1].model.uri``."""
    message: str
    reason: str


def violations(value: Any, schema: Schema, old: Any = None, path: str = "") -> Iterator[Violation]:
    """Yield what the rules of ``schema`` have against ``value``, or against the change from ``old`` to it."""
    for rule in schema.get("x-kubernetes-validations", ()):
        found = _violation(rule, _typed(value, schema), None if old is None else _typed(old, schema), path)
        if found:
            yield found
    if isinstance(value, dict):
        for name, inner in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            before = old.get(name) if isinstance(old, dict) else None
            if below:
                yield from violations(inner, below, before, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from violations(inner, schema["items"], _before(inner, old, schema), f"{path}[{index}]")


def _before(item: Any, old: Any, schema: Schema) -> Any:
    """Return the item of ``old`` that ``item`` was, in a list that is a map; else nothing is known of it."""
    keys = schema.get("x-kubernetes-list-map-keys", ())
    same = (was for was in old or () if keys and all(was.get(key) == item.get(key) for key in keys))
    return next(same, None)


def _violation(rule: Schema, value: Any, old: Any, path: str) -> Violation | None:
    expression, bound = rule["rule"], {"self": value, "oldSelf": old}
    if rule.get("optionalOldSelf"):
        expression = expression.replace("oldSelf", "(oldSelf == null ? optional.none() : optional.of(oldSelf))")
    elif "oldSelf" in expression and old is None:
        return None
    if _compiled(expression).eval(data=bound).value() is True:
        return None
    message = rule["message"]
    if "messageExpression" in rule:
        message = _compiled(rule["messageExpression"]).eval(data=bound).value()
    return Violation((path + rule.get("fieldPath", "")).removeprefix("."), message, rule["reason"])


def _typed(value: Any, schema: Schema) -> Any:
    """Return ``value`` with every number a double where the schema says number."""
    if isinstance(value, dict):
        given = schema.get("properties", {})
        return {
            name: _typed(v, given.get(name) or schema.get("additionalProperties") or {}) for name, v in value.items()
        }
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {})) for item in value]
    return float(value) if schema.get("type") == "number" else value


@functools.cache
def _compiled(expression: str) -> cel.Expression:
    return _environment().compile(expression)


@functools.cache
def _environment() -> cel.Env:
    text, number = cel.Type.STRING, cel.Type.DOUBLE
    functions = [
        cel.FunctionDecl("find", [cel.Overload("find_text", text, [text, text], is_member=True, impl=_first)]),
        cel.FunctionDecl(
            "findAll", [cel.Overload("find_all", cel.Type.List(text), [text, text], is_member=True, impl=_all)]
        ),
        cel.FunctionDecl(
            "sum", [cel.Overload("sum_doubles", number, [cel.Type.List(number)], is_member=True, impl=sum)]
        ),
    ]
    return cel.NewEnv(
        variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN},
        extensions=[ext_optional.ExtOptional(), cel.CelExtension("kubernetes", functions)],
    )


def _first(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


def _all(text: str, pattern: str) -> list[str]:
    return [found[0] for found in re.finditer(pattern, text)]
