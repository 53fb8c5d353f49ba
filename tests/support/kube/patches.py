"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from support.kube.errors import ApiError, bad_request


def merge_patch(value: Any, patch: Any) -> Any:
    """Return ``value`` with ``patch`` merged in; null takes a field out."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), part)
    return merged


def json_patch(value: Any, operations: Iterable[dict[str, Any]]) -> Any:
    """Return ``value`` after ``operations``.

    Raises:
        ApiError: 400, the operations are none; 422, one of them does not fit the object (a failed ``test`` too).
    """
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document = copy.deepcopy(value)
    for operation in operations:
        try:
            document = _step(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise _unfit() from error
    return document


def _step(document: Any, operation: dict[str, Any]) -> Any:
    sort, path = operation["op"], _words(operation["path"])
    if sort == "test":
        if _found(document, path) != operation.get("value"):
            raise ValueError("test failed")
    elif sort == "add":
        return _added(document, path, operation["value"])
    elif sort == "remove":
        _taken(document, path)
    elif sort == "replace":
        _found(document, path)
        if not path:
            return operation["value"]
        _taken(document, path)
        return _added(document, path, operation["value"])
    elif sort == "move":
        return _added(document, path, _taken(document, _words(operation["from"])))
    elif sort == "copy":
        return _added(document, path, copy.deepcopy(_found(document, _words(operation["from"]))))
    else:
        raise ValueError(sort)
    return document


def _words(pointer: str) -> list[str]:
    return [word.replace("~1", "/").replace("~0", "~") for word in pointer.split("/")[1:]]


def _found(document: Any, path: list[str]) -> Any:
    for word in path:
        document = document[int(word)] if isinstance(document, list) else document[word]
    return document


def _added(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _found(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last)
        if not 0 <= index <= len(parent):
            raise IndexError(last)
        parent.insert(index, value)
    else:
        parent[last] = value
    return document


def _taken(document: Any, path: list[str]) -> Any:
    parent, last = _found(document, path[:-1]), path[-1]
    return parent.pop(int(last)) if isinstance(parent, list) else parent.pop(last)


def _unfit() -> ApiError:
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})
