"""Reads and writes with the rules of kube-apiserver: the server without HTTP.

A write runs to its end without giving way, so it is either done or it is not. What a writer may not touch is put back
rather than refused, as the real server does: status on the object's path, all else on the status path, and the
server's own fields of metadata.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fairlead.clock import Clock, from_us
from support.kube import checks, metadata, schema
from support.kube.definitions import DEFINITION, established, kinds_of
from support.kube.errors import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from support.kube.intents import Deletion, Intent
from support.kube.kinds import Catalog, Kind
from support.kube.ownership import Claim, Owner, apply, claims_after_update, claims_of, managed_fields, ownable
from support.kube.patches import json_patch, merge_patch
from support.kube.store import Object, Place, Store, Stored

NAMESPACE = "namespaces"
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_SUFFIX_LENGTH = 5
_OMITTED_EMPTY = {"configmaps": ("data", "binaryData"), "secrets": ("data",)}
_METADATA_LISTS = ("labels", "annotations", "finalizers", "ownerReferences")


@dataclass(frozen=True, slots=True)
class Written:
    """What a write left behind."""

    stored: Stored
    created: bool = False
    gone: bool = False
    warnings: tuple[str, ...] = ()


class Registry:
    """The objects of a catalog's kinds, and the rules by which they change."""

    def __init__(self, catalog: Catalog, store: Store, clock: Clock, new_uid: Callable[[], str]) -> None:
        """Keep the objects of ``catalog`` in ``store``; times and uids come from the parameters."""
        self.catalog = catalog
        self.store = store
        self._clock = clock
        self._new_uid = new_uid

    def get(self, kind: Kind, place: Place) -> Stored:
        """Return an object.

        Raises:
            ApiError: 404.
        """
        stored = self.store.get(kind.resource, place)
        if stored is None:
            raise not_found(kind, place[1])
        return stored

    def create(self, kind: Kind, namespace: str, value: Object, intent: Intent) -> Written:
        """Make a new object.

        Raises:
            ApiError: 400, 403, 404 (its namespace), 409 (the name is taken) or 422.
        """
        checks.refuse_other_kind(kind, value)
        if value.get("metadata", {}).get("resourceVersion"):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        value, warnings = self._decoded(kind, value, intent)
        return self._made(kind, namespace, value, intent, warnings=warnings)

    def update(self, kind: Kind, place: Place, value: Object, intent: Intent) -> Written:
        """Replace an object, or its status.

        Raises:
            ApiError: 400, 404, 409 (it has changed since it was read) or 422.
        """
        checks.refuse_other_kind(kind, value)
        live = self.get(kind, place)
        sent = value.get("metadata", {})
        if sent.get("name") != place[1]:
            message = f"the name of the object ({sent.get('name', '')}) does not match the name on the URL ({place[1]})"
            raise bad_request(message)
        if kind.custom and not sent.get("resourceVersion"):
            why = "Invalid value: 0: must be specified for an update"
            cause = Cause("FieldValueInvalid", "metadata.resourceVersion", why)
            raise invalid(replace(kind, kind=kind.plural), place[1], [cause])
        return self._replaced(kind, live, value, intent)

    def merge_patch(self, kind: Kind, place: Place, patch: Object, intent: Intent) -> Written:
        """Merge ``patch`` into an object (RFC 7386)."""
        live = self.get(kind, place)
        return self._replaced(kind, live, merge_patch(live.value(kind), patch), intent)

    def json_patch(self, kind: Kind, place: Place, operations: Sequence[Object], intent: Intent) -> Written:
        """Carry out ``operations`` on an object (RFC 6902)."""
        live = self.get(kind, place)
        return self._replaced(kind, live, json_patch(live.value(kind), operations), intent)

    def apply(self, kind: Kind, place: Place, value: Object, intent: Intent) -> Written:
        """Apply on the server's side: the writer owns just what ``value`` says, and the object is made if absent.

        Raises:
            ApiError: 400, 404 (no object to set the status of), 409 (others own a field; it has changed) or 422.
        """
        checks.refuse_other_kind(kind, value)
        if not value.get("kind"):
            raise bad_request("invalid object type: /, Kind=")
        sent: Object = value.get("metadata") or {}
        if sent.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if sent.get("name", place[1]) != place[1]:
            message = f"the name of the object ({sent['name']}) does not match the name on the URL ({place[1]})"
            raise bad_request(message)
        live = self.store.get(kind.resource, place)
        if live is None:
            return self._made_by_apply(kind, place, value, intent)
        if sent.get("uid", live.uid) != live.uid:
            why = f'Invalid value: "{sent["uid"]}": field is immutable'
            raise invalid(kind, place[1], [Cause("FieldValueInvalid", "metadata.uid", why)])
        checks.refuse_stale(kind, live, sent)
        checks.refuse_unreadable(kind, value)
        before = live.value(kind)
        owner = Owner("Apply", intent.manager, kind.api_version, intent.subresource)
        mine = _part_for(kind, value, intent.subresource)
        after, claims = apply(before, mine, kind.schema, owner, self.now(), force=intent.force)
        return self._replaced(kind, live, after, intent, claims)

    def delete(self, kind: Kind, place: Place, deletion: Deletion, intent: Intent) -> Written:
        """Delete an object, or mark it as deleted while finalizers hold it.

        Raises:
            ApiError: 404, or 409 (it is not the one that was meant).
        """
        live = self.get(kind, place)
        checks.refuse_other_object(kind, live, deletion)
        value = live.value(kind)
        meta = value["metadata"]
        held_by = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(deletion.policy, [])
        finalizers = [
            *(meta.get("finalizers") or ()),
            *(one for one in held_by if one not in meta.get("finalizers", ())),
        ]
        if not finalizers and kind.resource != NAMESPACE:
            return Written(live if intent.dry_run else self._removed(kind, live), gone=True)
        if "deletionTimestamp" not in meta:
            meta |= {"deletionTimestamp": self.now(), "deletionGracePeriodSeconds": 0}
            if kind.generation:
                meta["generation"] += 1
        if finalizers:
            meta["finalizers"] = finalizers
        if kind.resource == NAMESPACE:
            value["status"] = value.get("status", {}) | {"phase": "Terminating"}
        if value == live.value(kind):
            return Written(live)
        return Written(self._kept(kind, value, intent))

    def finish(self, kind: Kind, live: Stored) -> None:
        """Take away an object that nothing holds any longer (what the namespace controller does in the end)."""
        self._removed(kind, live)

    def now(self) -> str:
        """Return the time as objects carry it: RFC 3339, whole seconds."""
        return from_us(self._clock.now_us()).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _made_by_apply(self, kind: Kind, place: Place, value: Object, intent: Intent) -> Written:
        if intent.subresource:
            raise not_found(kind, place[1])
        sent = value.get("metadata") or {}
        if sent.get("uid"):
            why = f"uid mismatch: the provided object specified uid {sent['uid']}, and no existing object was found"
            raise conflict(kind, place[1], why)
        checks.refuse_unreadable(kind, value)
        owner = Owner("Apply", intent.manager, kind.api_version)
        mine = _part_for(kind, value, "")
        mine["metadata"] = {**mine.get("metadata", {}), "name": place[1]}
        _, claims = apply({}, mine, kind.schema, owner, self.now(), force=True)
        decoded, warnings = self._decoded(kind, mine, intent)
        return self._made(kind, place[0], decoded, intent, claims=claims, warnings=warnings)

    def _made(
        self,
        kind: Kind,
        namespace: str,
        value: Object,
        intent: Intent,
        *,
        claims: dict[Owner, Claim] | None = None,
        warnings: tuple[str, ...] = (),
    ) -> Written:
        born = self._born(kind, namespace, value)
        self._check_namespace(kind, namespace, born["metadata"]["name"])
        if claims is None:
            owner = Owner("Update", intent.manager, kind.api_version)
            claims = claims_after_update({}, born, kind.schema, owner, self.now())
        _record(born, claims)
        checks.refuse_invalid(kind, born)
        if there := self.store.get(kind.resource, (namespace, born["metadata"]["name"])):
            is_going = "deletionTimestamp" in there.value(kind)["metadata"]
            raise already_exists(kind, there.name, is_going=is_going)
        return Written(self._kept(kind, born, intent), created=True, warnings=warnings)

    def _born(self, kind: Kind, namespace: str, value: Object) -> Object:
        sent = value["metadata"]
        name = sent.get("name") or ""
        if not name and sent.get("generateName"):
            name = sent["generateName"] + self._new_uid().replace("-", "")[:_SUFFIX_LENGTH]
        if not name:
            cause = Cause("FieldValueRequired", "metadata.name", "Required value: name or generateName is required")
            raise invalid(kind, "", [cause])
        if sent.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        free = {key: part for key, part in sent.items() if key not in {*metadata.KEPT, "managedFields", "selfLink"}}
        if "generateName" in sent:
            free["generateName"] = sent["generateName"]
        own: Object = {"name": name, "uid": self._new_uid(), "creationTimestamp": self.now()}
        if kind.namespaced:
            own["namespace"] = namespace
        if kind.generation:
            own["generation"] = 1
        if kind.resource == NAMESPACE:
            free["labels"] = {**(free.get("labels") or {}), "kubernetes.io/metadata.name": name}
        kept = {key: part for key, part in value.items() if not (kind.status and key == "status")}
        born = kept | {"metadata": free | own}
        schema.fill_in(born, kind.schema)
        return born

    def _replaced(
        self, kind: Kind, live: Stored, value: Object, intent: Intent, claims: dict[Owner, Claim] | None = None
    ) -> Written:
        before = live.value(kind)
        checks.refuse_stale(kind, live, value.get("metadata") or {})
        new, warnings = self._decoded(kind, value, intent, keeps_null=claims is not None)
        new = _touched_by(kind, before, new, intent.subresource)
        new["metadata"] = metadata.carried_over(before["metadata"], new["metadata"])
        if claims is None:
            owner = Owner("Update", intent.manager, kind.api_version, intent.subresource)
            claims = claims_after_update(before, new, kind.schema, owner, self.now())
        _record(new, claims)
        if ownable(new) == ownable(before) and claims == claims_of(before):
            return Written(live, warnings=warnings)
        if kind.generation and _intended(new) != _intended(before):
            new["metadata"]["generation"] += 1
        checks.refuse_invalid(kind, new, before)
        if _may_go(kind, new):
            revision = live.revision if intent.dry_run else self._removed(kind, live).revision
            return Written(Stored.of(kind.resource, new, revision), gone=True, warnings=warnings)
        return Written(self._kept(kind, new, intent), warnings=warnings)

    def _decoded(
        self, kind: Kind, value: Object, intent: Intent, *, keeps_null: bool = False
    ) -> tuple[Object, tuple[str, ...]]:
        value = {**value, "metadata": dict(value.get("metadata") or {})}
        if kind.resource == "secrets" and value.get("stringData"):
            encoded = {name: base64.b64encode(text.encode()).decode() for name, text in value.pop("stringData").items()}
            value["data"] = {**(value.get("data") or {}), **encoded}
        unknown = [f'unknown field "{path}"' for path in sorted(schema.prune(value, kind.schema))]
        if unknown and intent.strict:
            what = f'{kind.kind} in version "{kind.version}"'
            raise bad_request(f"{what} cannot be handled as a {kind.kind}: strict decoding error: {', '.join(unknown)}")
        schema.fill_in(value, kind.schema, keeps_null=keeps_null and kind.custom)
        for holder, names in ((value, _OMITTED_EMPTY.get(kind.resource, ())), (value["metadata"], _METADATA_LISTS)):
            for name in names:
                if name in holder and not holder[name]:
                    del holder[name]
        return value, tuple(unknown)

    def _kept(self, kind: Kind, value: Object, intent: Intent) -> Stored:
        if intent.dry_run:
            return Stored.of(kind.resource, value, int(value["metadata"].get("resourceVersion", 0)))
        if kind.resource == DEFINITION:
            value["status"] = established(value, self.now())
            self.catalog.remove(value["metadata"]["name"])
            for served in kinds_of(value):
                self.catalog.add(served)
                self.store.journal(served.resource)
        return self.store.put(kind.resource, value)

    def _removed(self, kind: Kind, live: Stored) -> Stored:
        last = self.store.delete(kind, live)
        if kind.resource == DEFINITION:
            for custom in kinds_of(last.value(kind))[:1]:
                for stored in self.store.list(custom.resource):
                    self.store.delete(custom, stored)
            self.catalog.remove(live.name)
            self.store.journal(live.name).wake()
        return last

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        spaces = self.catalog.named(NAMESPACE)
        stored = self.get(spaces, ("", namespace))
        if "deletionTimestamp" in stored.value(spaces)["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Cause("NamespaceTerminating", "metadata.namespace", f"namespace {namespace} is being terminated")
            raise forbidden(kind, name, why, [cause])


def _part_for(kind: Kind, value: Object, subresource: str) -> Object:
    """Return what of an applied object counts on this path; empty lists of metadata are as good as absent."""
    if subresource:
        return {name: value[name] for name in ("apiVersion", "kind", "status") if name in value}
    kept = {name: part for name, part in value.items() if not (kind.status and name == "status")}
    sent = (value.get("metadata") or {}).items()
    return kept | {"metadata": {name: part for name, part in sent if part or name not in _METADATA_LISTS}}


def _touched_by(kind: Kind, before: Object, new: Object, subresource: str) -> Object:
    """Return ``new`` with what this path does not touch put back."""
    if subresource:
        return before | ({"status": new["status"]} if "status" in new else {})
    if not kind.status:
        return new
    free = {name: part for name, part in new.items() if name != "status"}
    return free | ({"status": before["status"]} if "status" in before else {})


def _record(value: Object, claims: dict[Owner, Claim]) -> None:
    if claims:
        value["metadata"]["managedFields"] = managed_fields(claims)


def _intended(value: Object) -> Object:
    """Return the part whose changes the generation counts."""
    return {name: part for name, part in value.items() if name not in {"apiVersion", "kind", "metadata", "status"}}


def _may_go(kind: Kind, value: Object) -> bool:
    """Return whether a deleted object is held by nothing any longer."""
    meta = value["metadata"]
    return "deletionTimestamp" in meta and not meta.get("finalizers") and kind.resource != NAMESPACE
