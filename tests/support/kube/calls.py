"""Requests as kube-apiserver understands them, and the log of those that came."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

from support.kube.intents import Intent
from support.kube.store import Place

WRITES = frozenset({"create", "update", "patch", "apply", "delete", "deletecollection"})
APPLY = "application/apply-patch+yaml"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_MANAGER_MAX_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who wants to do what, to which object."""

    verb: str
    """get, list, watch, create, update, patch, apply (a patch to RBAC), delete or deletecollection."""
    path: str
    group: str = ""
    version: str = ""
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict, hash=False)
    content_type: str = ""
    user_agent: str = ""
    token: str = ""
    body: bytes = b""

    @property
    def is_resource(self) -> bool:
        """Whether it is about objects (not discovery or health)."""
        return bool(self.plural)

    @property
    def is_write(self) -> bool:
        """Whether it may change anything."""
        return self.is_resource and self.verb in WRITES and not self.is_dry_run

    @property
    def is_dry_run(self) -> bool:
        """Whether all is to be checked and nothing done."""
        asked = self.query.get("dryRun", "")
        if self.verb in {"delete", "deletecollection"} and b"dryRun" in self.body:
            asked = orjson.loads(self.body).get("dryRun") or asked
        return "All" in asked

    @property
    def resource(self) -> str:
        """The qualified plural: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def place(self) -> Place:
        """Where its object is among its kind."""
        return self.namespace, self.name

    @property
    def manager(self) -> str:
        """The field manager: as asked for, else what the user agent begins with."""
        return self.query.get("fieldManager") or self.user_agent.split("/")[0][:_MANAGER_MAX_LENGTH]

    @property
    def intent(self) -> Intent:
        """Who writes, and how."""
        return Intent(
            manager=self.manager,
            subresource=self.subresource,
            force=self.query.get("force") == "true",
            dry_run=self.is_dry_run,
            strict=self.query.get("fieldValidation") == "Strict",
        )

    @property
    def body_digest(self) -> str:
        """SHA-256 of the body, hexadecimal; "" when there is none."""
        return hashlib.sha256(self.body).hexdigest() if self.body else ""


@dataclass(frozen=True, slots=True)
class Record:
    """A call and what came of it."""

    number: int
    call: Call
    code: int
    """HTTP status; 0 where the client got none."""
    before: bytes | None = None
    """The object's JSON before a write, None where there was none (or it is no write)."""
    after: bytes | None = None

    @property
    def changed(self) -> bool:
        """Whether the stored object is another one than before."""
        return self.before != self.after

    @property
    def object_before(self) -> dict[str, Any] | None:
        """The object before a write, without apiVersion and kind."""
        return None if self.before is None else orjson.loads(self.before)

    @property
    def object_after(self) -> dict[str, Any] | None:
        """The object after a write, without apiVersion and kind."""
        return None if self.after is None else orjson.loads(self.after)

    def __str__(self) -> str:
        """Say it in one line: ``apply configmaps flights/scores as fairlead -> 200``."""
        where = "/".join(part for part in self.call.place if part)
        what = f"{self.call.resource}/{self.call.subresource}" if self.call.subresource else self.call.resource
        return f"{self.call.verb} {what or self.call.path} {where} as {self.call.manager} -> {self.code}"


def read_call(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Call:
    """Return what an HTTP request asks for; anything outside /api and /apis is a plain get of its path."""
    content_type = headers.get("Content-Type", "").split(";")[0].strip()
    place = _place(path)
    named = bool(place.get("name"))
    if method == "GET":
        watches = query.get("watch") in {"true", "1"}
        verb = "watch" if watches and place else "get" if named or not place else "list"
    elif method == "DELETE" and not named:
        verb = "deletecollection"
    else:
        verb = "apply" if method == "PATCH" and content_type == APPLY else _VERBS.get(method, method.lower())
    return Call(
        verb=verb,
        path=path,
        query=dict(query),
        content_type=content_type,
        user_agent=headers.get("User-Agent", ""),
        token=headers.get("Authorization", "").removeprefix("Bearer ").strip(),
        body=body,
        **place,
    )


def _place(path: str) -> dict[str, str]:
    match [unquote(word) for word in path.strip("/").split("/")]:
        case ["api", version, *rest] if rest:
            return {"group": "", "version": version} | _within(rest)
        case ["apis", group, version, *rest] if rest:
            return {"group": group, "version": version} | _within(rest)
    return {}


def _within(words: list[str]) -> dict[str, str]:
    match words:
        case ["namespaces", name, ("status" | "finalize") as subresource]:
            return {"plural": "namespaces", "name": name, "subresource": subresource}
        case ["namespaces", namespace, plural, *rest]:
            return {"plural": plural, "namespace": namespace} | _below(rest)
        case [plural, *rest]:
            return {"plural": plural} | _below(rest)
    return {}


def _below(words: list[str]) -> dict[str, str]:
    return dict(zip(("name", "subresource"), words, strict=False))
