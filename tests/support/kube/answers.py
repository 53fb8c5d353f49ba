"""From a call to its answer: the part of the server that knows HTTP's words but no sockets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import yaml

from support.kube.calls import APPLY, Call
from support.kube.cluster import Cluster
from support.kube.discovery import discovered
from support.kube.errors import (
    ApiError,
    Cause,
    bad_request,
    invalid,
    method_not_allowed,
    not_served,
    unsupported_media_type,
)
from support.kube.intents import Deletion
from support.kube.kinds import Kind
from support.kube.listing import page, wanted
from support.kube.registry import Written
from support.kube.store import Object, Stored
from support.kube.watching import WatchRequest

JSON = "application/json"
_MERGE = ("application/merge-patch+json", "application/strategic-merge-patch+json")
_JSON_PATCH = "application/json-patch+json"
_HEALTH = ("/readyz", "/livez", "/healthz")
_WATCH_S = 1800.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    code: int
    body: bytes
    content_type: str = JSON
    warnings: tuple[str, ...] = ()
    retry_after_s: int | None = None
    stored: bytes | None = None
    """The JSON of the object that a create left behind."""


def answer(cluster: Cluster, call: Call) -> Answer:
    """Carry out a call (any but a watch).

    Raises:
        ApiError: It is refused.
    """
    if call.path in _HEALTH:
        return Answer(200, b"ok", "text/plain")
    document = discovered(cluster.catalog, call.path)
    if document is not None:
        return Answer(200, orjson.dumps(document))
    kind = cluster.catalog.at(call.group, call.version, call.plural)
    if kind is None and call.group not in {served.group for served in cluster.catalog}:
        return Answer(404, b"404 page not found\n", "text/plain")
    if kind is None or not _is_served(kind, call):
        raise not_served()
    return _on_object(cluster, kind, call)


def watch_request(cluster: Cluster, call: Call) -> WatchRequest:
    """Return what a watch asks for.

    Raises:
        ApiError: 404, the kind is not served; 400, it cannot be understood.
    """
    kind = cluster.catalog.at(call.group, call.version, call.plural)
    if kind is None:
        raise not_served()
    return WatchRequest(
        kind=kind,
        namespace=call.namespace,
        wanted=wanted(call.query),
        revision=call.query.get("resourceVersion", ""),
        bookmarks=call.query.get("allowWatchBookmarks") in {"true", "1"},
        initial_events=call.query.get("sendInitialEvents") in {"true", "1"},
        timeout_s=_whole(call.query.get("timeoutSeconds", "")) or _WATCH_S,
    )


def _whole(text: str) -> int:
    """Return a parameter that must be whole; 0 if it is not given."""
    try:
        return int(text or 0)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _is_served(kind: Kind, call: Call) -> bool:
    """Return whether a path leads somewhere: an evicted pod's, a status's, an object's in or out of a namespace."""
    if call.subresource == "eviction":
        return kind.resource == "pods"
    if call.subresource and not (call.subresource == "status" and kind.status):
        return False
    in_namespace = bool(call.namespace)
    return in_namespace == kind.namespaced or (kind.namespaced and call.verb in {"list", "watch"})


def _on_object(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    if call.verb not in kind.verbs and call.verb != "apply":
        raise method_not_allowed()
    if kind.ephemeral:
        return _reviewed(call)
    if call.subresource == "eviction":
        cluster.registry.delete(kind, call.place, Deletion(), call.intent)
        return Answer(201, _success())
    if bool(call.name) is (call.verb in {"create", "list", "deletecollection"}):
        raise method_not_allowed()
    acts = {
        "get": _got,
        "list": _listed,
        "create": _created,
        "update": _updated,
        "apply": _applied,
        "patch": _patched,
        "delete": _deleted,
        "deletecollection": _all_deleted,
    }
    return acts[call.verb](cluster, kind, call)


def _got(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    return Answer(200, cluster.registry.get(kind, call.place).document(kind))


def _listed(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    return Answer(200, page(cluster.store, kind, call.namespace, call.query).document(kind))


def _created(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    return _written(kind, cluster.registry.create(kind, call.namespace, _parsed(call), call.intent))


def _updated(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    return _written(kind, cluster.registry.update(kind, call.place, _parsed(call), call.intent))


def _applied(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    if not call.query.get("fieldManager"):
        raise _bad_option("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
    return _written(kind, cluster.registry.apply(kind, call.place, _parsed(call), call.intent))


def _patched(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    if "force" in call.query:
        raise _bad_option("force", "Forbidden: may not be specified for non-apply patch", "FieldValueForbidden")
    if call.content_type == _JSON_PATCH:
        return _written(kind, cluster.registry.json_patch(kind, call.place, _parsed(call), call.intent))
    if call.content_type not in _MERGE:
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    if kind.custom and "strategic" in call.content_type:
        raise unsupported_media_type([_JSON_PATCH, _MERGE[0], APPLY])
    patch = _parsed(call)
    if not isinstance(patch, dict):
        raise bad_request("the patch is no object")
    return _written(kind, cluster.registry.merge_patch(kind, call.place, patch, call.intent))


def _bad_option(field: str, why: str, reason: str) -> ApiError:
    options = Kind("meta.k8s.io", "v1", "PatchOptions", "")
    return invalid(options, "", [Cause(reason, field, why)])


def _deleted(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    written = cluster.registry.delete(kind, call.place, _deletion(call), call.intent)
    if kind.answers_deleted or not written.gone:
        return Answer(200, written.stored.document(kind))
    return Answer(200, _success(kind, written.stored))


def _all_deleted(cluster: Cluster, kind: Kind, call: Call) -> Answer:
    found = page(cluster.store, kind, call.namespace, call.query)
    for stored in found.items:
        cluster.registry.delete(kind, stored.place, _deletion(call), call.intent)
    return Answer(200, found.document(kind))


def _reviewed(call: Call) -> Answer:
    """Answer an access review: everybody may do everything here."""
    review: Object = _parsed(call)
    return Answer(201, orjson.dumps(review | {"status": {"allowed": True}}))


def _written(kind: Kind, written: Written) -> Answer:
    code = 201 if written.created else 200
    return Answer(code, written.stored.document(kind), warnings=written.warnings, stored=written.stored.json)


def _success(kind: Kind | None = None, stored: Stored | None = None) -> bytes:
    body: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if kind and stored:
        group = {"group": kind.group} if kind.group else {}
        body["details"] = {"name": stored.name} | group | {"kind": kind.plural, "uid": stored.uid}
    return orjson.dumps(body)


def _deletion(call: Call) -> Deletion:
    options: Object = _parsed(call) if call.body else {}
    meant: Object = options.get("preconditions") or {}
    return Deletion(
        uid=meant.get("uid") or "",
        revision=meant.get("resourceVersion") or "",
        policy=options.get("propagationPolicy") or call.query.get("propagationPolicy") or "Background",
    )


def _parsed(call: Call) -> Any:
    try:
        return orjson.loads(call.body)
    except orjson.JSONDecodeError as error:
        if "yaml" not in call.content_type:
            raise bad_request(f"the body of the request is not JSON: {error}") from error
    try:
        return yaml.safe_load(call.body)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error
