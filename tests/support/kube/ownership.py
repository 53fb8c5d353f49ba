"""Who owns which field: ``metadata.managedFields``, and server-side apply over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from support.kube.errors import ApiError
from support.kube.fields import FieldSet, Path, decode, encode, is_declared, leaves, merge, parts, remove
from support.kube.kinds import Schema
from support.kube.store import Object

_SERVERS_OWN = frozenset(
    {"name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"}
    | {"deletionTimestamp", "deletionGracePeriodSeconds", "generateName"}
)
"""Fields of metadata that nobody owns."""
_ALWAYS_THERE: Path = ("f:metadata",)


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """One writer, in one of its ways to write."""

    operation: str  # Apply or Update
    manager: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an owner owns, and since when it is just that."""

    fields: FieldSet
    time: str


Claims = Mapping[Owner, Claim]


def claims_of(value: Object) -> dict[Owner, Claim]:
    """Read the managedFields of an object."""
    return {
        Owner(entry["operation"], entry["manager"], entry["apiVersion"], entry.get("subresource", "")): Claim(
            decode(entry.get("fieldsV1", {})), entry.get("time", "")
        )
        for entry in value.get("metadata", {}).get("managedFields") or ()
    }


def managed_fields(claims: Claims) -> list[Object]:
    """Write claims as managedFields, in the order of the real server."""
    ordered = sorted(claims.items(), key=lambda item: (item[0].operation, item[1].time, item[0]))
    return [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            **({"time": claim.time} if claim.time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": encode(claim.fields),
        }
        | ({"subresource": owner.subresource} if owner.subresource else {})
        for owner, claim in ordered
    ]


def ownable(value: Object) -> Object:
    """Return the part of an object whose fields can be owned."""
    kept = {name: part for name, part in value.items() if name not in {"apiVersion", "kind", "metadata"}}
    metadata = {name: part for name, part in value.get("metadata", {}).items() if name not in _SERVERS_OWN}
    return kept | ({"metadata": metadata} if metadata else {})


def claims_after_update(live: Object, new: Object, schema: Schema, writer: Owner, now: str) -> dict[Owner, Claim]:
    """Return who owns what once ``writer`` has replaced ``live`` ({} when there was none) by ``new``."""
    claims = claims_of(live)
    if live and not claims:
        return {}  # nobody has owned anything so far: the first apply begins to keep accounts
    changed, gone = _difference(live, new, schema)
    mine = claims.pop(writer, Claim(frozenset(), ""))
    owned = (mine.fields | changed) - gone
    after = {owner: _less(claim, changed | gone) for owner, claim in claims.items()}
    after[writer] = mine if owned == mine.fields else Claim(owned, now)
    return {owner: claim for owner, claim in after.items() if claim.fields}


def apply(
    live: Object, applied: Object, schema: Schema, writer: Owner, now: str, *, force: bool
) -> tuple[Object, dict[Owner, Claim]]:
    """Return ``live`` after a server-side apply, and who owns what in it.

    Raises:
        ApiError: 409, others own what would change, and ``force`` is not set.
    """
    claims = claims_of(live) or _claims_before_any(live, schema, writer.api_version)
    mine = claims.pop(writer, Claim(frozenset(), ""))
    wanted = frozenset(path for path, _ in leaves(ownable(applied), schema) if path)
    merged = merge(live, applied, schema)
    kept = wanted.union(*(claim.fields for claim in claims.values()))
    merged = _pruned(merged, mine.fields - wanted, kept, schema)
    changed, gone = _difference(live, merged, schema)
    contested = {owner: fields for owner, claim in claims.items() if (fields := claim.fields & changed)}
    if contested and not force:
        raise _conflicts(contested)
    after = {owner: _less(claim, changed | gone) for owner, claim in claims.items()}
    after[writer] = Claim(wanted, now if changed or gone else mine.time)
    return merged, {owner: claim for owner, claim in after.items() if claim.fields}


def _claims_before_any(live: Object, schema: Schema, api_version: str) -> dict[Owner, Claim]:
    """Return who owns an object in which nobody owned anything: everything is of before the first apply."""
    changed, _ = _difference({}, live, schema)
    return {Owner("Update", "before-first-apply", api_version): Claim(changed, "")} if changed else {}


def _difference(live: Object, new: Object, schema: Schema) -> tuple[FieldSet, FieldSet]:
    """Return the fields that are new or other than before, and those that are gone."""
    before = dict(parts(ownable(live), schema))
    after = dict(parts(ownable(new), schema))
    for holder in (before, after):
        holder.pop(_ALWAYS_THERE, None)
        holder.pop((), None)
    changed = frozenset(path for path, part in after.items() if path not in before or before[path] != part)
    return changed, frozenset(before.keys() - after.keys())


def _pruned(value: Object, dropped: FieldSet, kept: Iterable[Path], schema: Schema) -> Object:
    """Take out what its only owner dropped, and declared fields around it in which nobody owns anything."""
    protected = {path[:length] for path in kept for length in range(1, len(path) + 1)} | {_ALWAYS_THERE}
    for path in sorted(dropped, key=len):
        prefixes = (path[:length] for length in range(1, len(path) + 1))
        for prefix in prefixes:
            if prefix not in protected and (prefix == path or is_declared(schema, prefix)):
                value = remove(value, prefix, schema)
                break
    return value


def _less(claim: Claim, fields: FieldSet) -> Claim:
    return Claim(claim.fields - fields, claim.time) if claim.fields & fields else claim


def _conflicts(contested: Mapping[Owner, FieldSet]) -> ApiError:
    named = {owner: f"conflict with {_described(owner)}" for owner in contested}
    causes = [
        {"reason": "FieldManagerConflict", "message": named[owner], "field": _dotted(path)}
        for owner in sorted(contested)
        for path in sorted(contested[owner])
    ]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        parts = [
            f"{named[owner].replace('conflict', 'conflicts', 1)}:\n"
            + "\n".join(f"- {_dotted(path)}" for path in sorted(contested[owner]))
            for owner in sorted(contested)
        ]
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(parts)
    return ApiError(409, "Conflict", message, {"causes": causes})


def _described(owner: Owner) -> str:
    subresource = f' with subresource "{owner.subresource}"' if owner.subresource else ""
    version = f" using {owner.api_version}" if owner.operation == "Update" else ""
    return f'"{owner.manager}"{subresource}{version}'


def _dotted(path: Path) -> str:
    return "".join(f".{word[2:]}" if word.startswith("f:") else f"[{_bracketed(word)}]" for word in path)


def _bracketed(word: str) -> str:
    if word.startswith("v:"):
        return "=" + word[2:]
    pairs: dict[str, Any] = orjson.loads(word[2:])
    return ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in pairs.items())
