"""LIST: selection, pages of one snapshot, and the document that holds them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from support.kube.errors import bad_request, expired
from support.kube.kinds import Kind
from support.kube.selectors import field_selector, label_selector
from support.kube.store import Store, Stored
from support.kube.watching import Wanted


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    items: list[Stored]
    revision: int
    continued: str = ""
    remaining: int = 0

    def document(self, kind: Kind) -> bytes:
        """Return the list's JSON."""
        metadata: dict[str, str | int] = {"resourceVersion": str(self.revision)}
        if kind.custom:
            metadata["continue"] = ""
        if self.continued:
            metadata |= {"continue": self.continued, "remainingItemCount": self.remaining}
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}
        items = b",".join(stored.item(kind) for stored in self.items)
        return orjson.dumps(head)[:-1] + b',"items":[' + items + b"]}"


def wanted(query: Mapping[str, str]) -> Wanted:
    """Return whether an object is asked for by labelSelector and fieldSelector.

    Raises:
        ApiError: 400, a selector cannot be read.
    """
    labels = label_selector(query.get("labelSelector", ""))
    fields = field_selector(query.get("fieldSelector", ""))
    return lambda stored: (
        labels(stored.labels) and fields({"metadata.name": stored.name, "metadata.namespace": stored.namespace})
    )


def page(store: Store, kind: Kind, namespace: str, query: Mapping[str, str]) -> Page:
    """Return the part of a list that ``query`` asks for; later parts are of the same moment as the first.

    Raises:
        ApiError: 400, the query makes no sense; 410, its moment is no longer remembered.
    """
    limit, continued = int(query.get("limit") or 0), query.get("continue", "")
    revision, after = store.revision, ("", "")
    past: int | None = None
    if continued:
        revision, after = _read_token(continued)
        past = revision
    elif query.get("resourceVersionMatch") == "Exact":
        revision = past = int(query.get("resourceVersion") or 0)
    try:
        found = store.list(kind.resource, namespace, at=past)
    except Exception as error:
        raise expired("The provided continue parameter is too old") from error
    select = wanted(query)
    items = [stored for stored in found if stored.place > after and select(stored)]
    if not limit or len(items) <= limit:
        return Page(items, revision)
    shown = items[:limit]
    return Page(shown, revision, _token(revision, shown[-1]), len(items) - limit)


def _token(revision: int, last: Stored) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([revision, last.namespace, last.name])).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        revision, namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise bad_request("continue key is not valid") from error
    return int(revision), (namespace, name)
