"""What the server looks at before it takes a write; each refuses with an ``ApiError``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.kube import metadata, schema
from support.kube.errors import ApiError, Cause, bad_request, conflict, invalid, modified
from support.kube.intents import Deletion
from support.kube.kinds import Kind
from support.kube.store import Object, Stored

_NO_RULES_AFTER = frozenset(
    f"FieldValue{reason}" for reason in ("Required", "TypeInvalid", "NotSupported", "TooMany", "TooLong")
)
"""Rules in CEL are left alone where the schema is broken in one of these ways."""


def refuse_other_kind(kind: Kind, value: Any) -> None:
    """Refuse a body that is no object of ``kind``.

    Raises:
        ApiError: 400 or 422.
    """
    if not isinstance(value, dict):
        raise bad_request("the body of the request is not an object")
    sent = value.get("apiVersion", ""), value.get("kind", "")
    if kind.custom and not sent[1]:
        raise bad_request("Object 'Kind' is missing in the request's body")
    if kind.custom and sent[0] == kind.api_version and sent[1] != kind.kind:
        cause = Cause("FieldValueInvalid", "kind", f'Invalid value: "{sent[1]}": must be {kind.kind}')
        raise invalid(replace(kind, kind=sent[1]), (value.get("metadata") or {}).get("name", ""), [cause])
    if any(sent) and sent != (kind.api_version, kind.kind):
        expected = f"{kind.api_version}, Kind={kind.kind}"
        raise bad_request(f"the object provided is unrecognized: {sent[0]}, Kind={sent[1]} (expected {expected})")


def refuse_stale(kind: Kind, live: Stored, sent: Object) -> None:
    """Refuse a write whose uid or resourceVersion is not that of the live object.

    Raises:
        ApiError: 409.
    """
    if sent.get("uid") and sent["uid"] != live.uid:
        why = f"Precondition failed: UID in precondition: {sent['uid']}, UID in object meta: {live.uid}"
        raise conflict(kind, live.name, why)
    if sent.get("resourceVersion") and sent["resourceVersion"] != str(live.revision):
        raise modified(kind, live.name)


def refuse_other_object(kind: Kind, live: Stored, deletion: Deletion) -> None:
    """Refuse a deletion that is meant for another object, or another version of it.

    Raises:
        ApiError: 409.
    """
    kind = replace(kind, plural=kind.kind)
    if deletion.uid and deletion.uid != live.uid:
        why = (
            f"the UID in the precondition ({deletion.uid}) does not match the UID in record ({live.uid})."
            " The object might have been deleted and then recreated"
        )
        raise conflict(kind, live.name, why)
    if deletion.revision and deletion.revision != str(live.revision):
        why = (
            f"the ResourceVersion in the precondition ({deletion.revision}) does not match the ResourceVersion in"
            f" record ({live.revision}). The object might have been modified"
        )
        raise conflict(kind, live.name, why)


def refuse_unreadable(kind: Kind, value: Object) -> None:
    """Refuse what server-side apply cannot read as the kind (the real server calls it its own error).

    Raises:
        ApiError: 500.
    """
    wrong = list(schema.typing_faults({**value, "metadata": {}}, kind.schema)) if kind.custom else []
    if wrong:
        metadata = value.get("metadata") or {}
        where = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
        what = f"failed to create typed patch object ({where}; {kind.api_version}, Kind={kind.kind})"
        raise ApiError(500, "", f"{what}: " + "\n".join(wrong))


def refuse_invalid(kind: Kind, value: Object, before: Object | None = None) -> None:
    """Refuse an object that breaks the rules of metadata, its schema, or its rules in CEL.

    Raises:
        ApiError: 400 or 422.
    """
    name = value["metadata"]["name"]
    wrong = [*metadata.faults(kind, value["metadata"])]
    if before:
        wrong += metadata.change_faults(before["metadata"], value["metadata"])
    broken = [*schema.faults(value, kind.schema)]
    if kind.ruled:
        is_blocked = any(cause.reason in _NO_RULES_AFTER for cause in broken)
        broken += [schema.unchecked_rules()] if is_blocked else schema.broken_rules(value, kind.schema, before)
    if broken and not kind.custom:
        raise bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled: {broken[0].message}')
    if wrong or broken:
        raise invalid(kind, name, wrong + broken)
