"""JSON bodies, read strictly.

orjson refuses trailing text, NaN literals, wrong encodings and deep nesting, but lets a repeated name overwrite the
first one. Counting finds that at no cost: outside strings every name has one colon, so a body with as many colons
as the parsed document has names repeats none. Only a body with more colons (inside its text) is read a second time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from fairlead_server.errors import InvalidRequest


def parse(body: bytes) -> dict[str, Any]:
    """Read ``body`` as one JSON object.

    Raises:
        InvalidRequest: It is empty, not JSON, or not an object.
    """
    if not body:
        raise InvalidRequest("the body is empty; send a JSON object")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if type(document) is not dict:
        raise InvalidRequest("the body must be a JSON object")
    return document


def refuse_repeated_names(body: bytes, names: int) -> None:
    """Refuse a body in which an object has a name twice.

    Args:
        body: What was parsed.
        names: How many names the parsed document has, in all its objects.

    Raises:
        InvalidRequest: A name is repeated; the message says which.
    """
    if body.count(b":") == names:
        return
    try:
        json.loads(body, object_pairs_hook=_unique)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def names_in(value: Any) -> int:
    """Return how many names ``value`` has, in all its objects."""
    if type(value) is dict:
        return len(value) + sum(map(names_in, value.values()))
    if type(value) is list:
        return sum(map(names_in, value))
    return 0


def parameters(document: Mapping[str, Any], where: str = "parameters") -> dict[str, Any]:
    """Return the object ``parameters`` of ``document``; empty if there is none.

    Raises:
        InvalidRequest: It is not an object.
    """
    found = document.get("parameters")
    if found is None:
        return {}
    if type(found) is not dict:
        raise InvalidRequest(f"{where} must be an object", field=where)
    return found


def flag(values: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """Return the boolean parameter ``name``.

    Raises:
        InvalidRequest: It is neither true nor false.
    """
    found = values.get(name, default)
    if type(found) is not bool:
        raise InvalidRequest(f"parameter {name} must be true or false", field=name)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"the name {name!r} is there twice in one object", field=name)
        found[name] = value
    return found
