"""What holds for the metadata of any object: names, labels, finalizers, owners, and what a writer may not change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from support.kube.errors import Cause
from support.kube.kinds import Kind
from support.kube.store import Object

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUBDOMAIN_MAX, _LABEL_MAX = 253, 63
_ANNOTATIONS_MAX_BYTES = 256 * 1024
_STANDARD_FINALIZERS = {"kubernetes", "foregroundDeletion", "orphan"}
_RBAC = "rbac.authorization.k8s.io"

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is '"
    + _SUBDOMAIN.pattern.replace(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "[a-z0-9]([-a-z0-9]*[a-z0-9])?")
    + "')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '" + _LABEL.pattern + "')"
)
_SERVICE_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '"
    + _SERVICE_LABEL.pattern
    + "')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)

KEPT = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")
"""Fields of metadata that stay what they are, whatever a writer sends."""


def faults(kind: Kind, metadata: Object) -> Iterator[Cause]:
    """Yield what is wrong with the metadata of an object of ``kind``."""
    yield from _name_faults(kind, metadata.get("name", ""))
    yield from _label_faults(metadata.get("labels") or {})
    annotations: dict[str, str] = metadata.get("annotations") or {}
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > _ANNOTATIONS_MAX_BYTES:
        why = f"Too long: may not be more than {_ANNOTATIONS_MAX_BYTES} bytes"
        yield Cause("FieldValueTooLong", "metadata.annotations", why)
    if not kind.custom:
        yield from _finalizer_faults(metadata.get("finalizers") or [])
    yield from _owner_faults(metadata.get("ownerReferences") or [])


def _finalizer_faults(finalizers: list[str]) -> Iterator[Cause]:
    for index, name in enumerate(finalizers):
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            why = f'Invalid value: "{name}": name is neither a standard finalizer name nor is it fully qualified'
            yield Cause("FieldValueInvalid", f"metadata.finalizers[{index}]", why)


def change_faults(live: Object, new: Object) -> Iterator[Cause]:
    """Yield what a change of metadata may not do."""
    if not live.get("deletionTimestamp"):
        return
    added = [one for one in new.get("finalizers") or () if one not in (live.get("finalizers") or ())]
    if added:
        shown = ", ".join(f'"{one}"' for one in added)
        why = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
        yield Cause("FieldValueForbidden", "metadata.finalizers", f"Forbidden: {why}")


def carried_over(live: Object, new: Object) -> Object:
    """Return the new metadata with what a writer cannot change."""
    kept = {name: live[name] for name in (*KEPT, "name", "namespace", "resourceVersion") if name in live}
    free = {name: part for name, part in new.items() if name not in {*KEPT, "managedFields", "selfLink"}}
    return free | kept


def _name_faults(kind: Kind, name: str) -> Iterator[Cause]:
    if kind.group == _RBAC:
        return
    rule, longest, words = _SUBDOMAIN, _SUBDOMAIN_MAX, _SUBDOMAIN_RULE
    if kind.resource == "namespaces":
        rule, longest, words = _LABEL, _LABEL_MAX, _LABEL_RULE
    if kind.resource == "services":
        rule, longest, words = _SERVICE_LABEL, _LABEL_MAX, _SERVICE_RULE
    if len(name) > longest:
        why = f'Invalid value: "{name}": must be no more than {longest} characters'
        yield Cause("FieldValueInvalid", "metadata.name", why)
    if not rule.fullmatch(name):
        yield Cause("FieldValueInvalid", "metadata.name", f'Invalid value: "{name}": {words}')


def _label_faults(labels: dict[str, Any]) -> Iterator[Cause]:
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if len(name) > _LABEL_MAX or not _QUALIFIED.fullmatch(name) or (slash and not _SUBDOMAIN.fullmatch(prefix)):
            yield Cause("FieldValueInvalid", "metadata.labels", f'Invalid value: "{key}": {_KEY_RULE}')
        if len(value) > _LABEL_MAX:
            why = f'Invalid value: "{value}": must be no more than {_LABEL_MAX} characters'
            yield Cause("FieldValueInvalid", "metadata.labels", why)
        elif value and not _QUALIFIED.fullmatch(value):
            yield Cause("FieldValueInvalid", "metadata.labels", f'Invalid value: "{value}": {_VALUE_RULE}')


def _owner_faults(owners: list[Object]) -> Iterator[Cause]:
    for owner in owners:
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                field = f"metadata.ownerReferences.{name}"
                yield Cause("FieldValueInvalid", field, 'Invalid value: "": must not be empty')
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        why = "Only one reference can have Controller set to true"
        yield Cause("FieldValueInvalid", "metadata.ownerReferences", f"Invalid value: {why}")
