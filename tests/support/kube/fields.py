"""Fields of an object as server-side apply sees them: sets of paths, and what merging by paths does.

A path is a tuple of the words of ``FieldsV1``: ``f:spec``, ``k:{"name":"http"}`` for an item of a keyed list, ``v:"x"``
for a member of a set. Lists are whole values unless the schema says ``x-kubernetes-list-type: map`` or ``set``; maps
are taken apart unless it says ``x-kubernetes-map-type: atomic``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from support.kube.kinds import Schema

Path = tuple[str, ...]
FieldSet = frozenset[Path]

_WHOLE = "the thing itself"
"""What stands for the value of a keyed list's item, or of any map or list, as a field besides those in it."""


def leaves(value: Any, schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the fields of ``value`` that can be owned, with what they hold."""
    if isinstance(value, dict) and value and not _is_atomic_map(schema):
        for name, part in value.items():
            below, place = child(schema, name), (*path, f"f:{name}")
            if name not in schema.get("properties", {}) and _is_taken_apart(part, below):
                yield place, _WHOLE
            yield from leaves(part, below, place)
    elif isinstance(value, list) and value and _is_keyed(schema):
        for item in value:
            below, place = schema.get("items", {}), (*path, _item_word(item, schema))
            if _is_taken_apart(item, below):
                yield place, _WHOLE
            yield from leaves(item, below, place)
    elif isinstance(value, list) and value and _is_set(schema):
        for member in value:
            yield (*path, _member_word(member)), member
    else:
        yield path, value


def parts(value: Any, schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the fields as ``leaves`` does, and each map and list that holds some: who brings one first owns it too."""
    seen: set[Path] = set()
    for place, part in leaves(value, schema, path):
        for length in range(len(path) + 1, len(place)):
            if place[:length] not in seen:
                seen.add(place[:length])
                yield place[:length], _WHOLE
        if place not in seen:
            seen.add(place)
            yield place, _WHOLE if part in ({}, []) else part


def merge(live: Any, applied: Any, schema: Schema) -> Any:
    """Return ``live`` with what is ``applied`` laid over it."""
    if isinstance(live, dict) and isinstance(applied, dict) and not _is_atomic_map(schema):
        merged = {name: merge(live.get(name), part, child(schema, name)) for name, part in applied.items()}
        return {name: merged.get(name, part) for name, part in live.items()} | merged
    if isinstance(live, list) and isinstance(applied, list) and _is_keyed(schema):
        return _merge_items(live, applied, schema)
    if isinstance(live, list) and isinstance(applied, list) and _is_set(schema):
        return live + [member for member in applied if member not in live]
    return applied


def remove(value: Any, path: Path, schema: Schema) -> Any:
    """Return ``value`` without the field at ``path``; what loses its last field becomes None, as on a real server."""
    word, rest = path[0], path[1:]
    if isinstance(value, dict) and word.startswith("f:"):
        name = word[2:]
        if name not in value:
            return value
        left = {name: remove(value[name], rest, child(schema, name))} if rest else {}
        return {key: left.get(key, part) for key, part in value.items() if rest or key != name} or None
    if isinstance(value, list):
        words = [_item_word(item, schema) if _is_keyed(schema) else _member_word(item) for item in value]
        below = schema.get("items", {})
        pairs = zip(words, value, strict=True)
        return [
            remove(item, rest, below) if own == word else item for own, item in pairs if rest or own != word
        ] or None
    return value


def child(schema: Schema, name: str) -> Schema:
    """Return the schema of a map's or object's field."""
    found = schema.get("properties", {}).get(name)
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def is_declared(schema: Schema, path: Path) -> bool:
    """Return whether the last step of ``path`` is a property that the schema names (not the key of a free map)."""
    for word in path[:-1]:
        schema = child(schema, word[2:]) if word.startswith("f:") else schema.get("items", {})
    return path[-1].startswith("f:") and path[-1][2:] in schema.get("properties", {})


def encode(fields: FieldSet) -> dict[str, Any]:
    """Return ``fields`` as ``FieldsV1``."""
    root: dict[str, Any] = {}
    for path in sorted(fields):
        node = root
        for word in path:
            node = node.setdefault(word, {})
        node["."] = {}
    return _without_lone_dots(root)


def decode(fields: dict[str, Any]) -> FieldSet:
    """Return ``FieldsV1`` as a set of paths."""
    return frozenset(_decoded(fields, ()))


def _decoded(node: dict[str, Any], path: Path) -> Iterator[Path]:
    if not node and path:
        yield path
    for word, below in node.items():
        if word == ".":
            yield path
        else:
            yield from _decoded(below, (*path, word))


def _without_lone_dots(node: dict[str, Any]) -> dict[str, Any]:
    if node.keys() == {"."}:
        return {}
    return {word: below if word == "." else _without_lone_dots(below) for word, below in node.items()}


def _merge_items(live: list[Any], applied: list[Any], schema: Schema) -> list[Any]:
    """Merge by key: applied items in their order, each item that only ``live`` has before the one it stood before."""
    wanted = {_item_word(item, schema): item for item in applied}
    merged: list[Any] = []
    pending = dict(wanted)
    old = {_item_word(item, schema): item for item in live}
    for word, item in old.items():
        if word not in wanted:
            merged.append(item)
            continue
        for ahead in [*pending]:
            if word not in pending:
                break
            merged.append(merge(old.get(ahead, {}), pending.pop(ahead), schema.get("items", {})))
    return [*merged, *pending.values()]


def _is_taken_apart(value: Any, schema: Schema) -> bool:
    """Return whether the fields of a value are owned one by one."""
    if isinstance(value, dict):
        return bool(value) and not _is_atomic_map(schema)
    return isinstance(value, list) and bool(value) and (_is_keyed(schema) or _is_set(schema))


def _is_keyed(schema: Schema) -> bool:
    return schema.get("x-kubernetes-list-type") == "map"


def _is_set(schema: Schema) -> bool:
    return schema.get("x-kubernetes-list-type") == "set"


def _is_atomic_map(schema: Schema) -> bool:
    return schema.get("x-kubernetes-map-type") == "atomic"


def _item_word(item: Any, schema: Schema) -> str:
    properties = schema.get("items", {}).get("properties", {})
    keys = {
        key: item.get(key, properties.get(key, {}).get("default"))
        for key in sorted(schema["x-kubernetes-list-map-keys"])
        if key in item or "default" in properties.get(key, {})
    }
    return "k:" + orjson.dumps(keys).decode()


def _member_word(member: Any) -> str:
    return "v:" + orjson.dumps(member).decode()
