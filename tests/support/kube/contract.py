"""How contract tests talk to a Kubernetes API, whoever serves it: plain HTTP, a namespace, and one custom kind.

The custom kind, ``Probe`` of ``contract.fairlead.dev``, has one field for each thing that a schema can say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from support.kube.store import Object
from support.waiting import until

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
GROUP = "contract.fairlead.dev"

_PLURALS = {"NetworkPolicy": "networkpolicies"}
_CLUSTER_SCOPED = {"Namespace", "CustomResourceDefinition"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    code: int
    body: Object
    headers: Mapping[str, str]

    @property
    def metadata(self) -> Object:
        """The metadata of the object that came back."""
        found: Object = self.body["metadata"]
        return found

    @property
    def revision(self) -> str:
        """The resourceVersion of the object or list that came back."""
        return str(self.metadata["resourceVersion"])

    @property
    def causes(self) -> list[tuple[str, str]]:
        """The reason and field of each cause of a refusal, sorted; that rules in CEL were not looked at is left out."""
        causes = self.body["details"]["causes"]
        return sorted((cause["reason"], cause["field"]) for cause in causes if cause["field"] != "<nil>")

    @property
    def owners(self) -> dict[tuple[str, str], Any]:
        """The fields of each manager and operation (and subresource)."""
        return {
            (
                entry["manager"],
                entry["operation"] + ("/" + entry["subresource"] if "subresource" in entry else ""),
            ): entry["fieldsV1"]
            for entry in self.metadata.get("managedFields", ())
        }


class Events:
    """What a watch delivers."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Read from an answer that goes on."""
        self.code = response.status
        self._response = response

    async def next(self, timeout_s: float = 10.0) -> Object:
        """Return the next event.

        Raises:
            TimeoutError: None came in time.
            EOFError: The watch has ended.
        """
        async with asyncio.timeout(timeout_s):
            line = await self._response.content.readline()
        if not line:
            raise EOFError("the watch has ended")
        event: Object = json.loads(line)
        return event

    async def rest(self) -> list[Object]:
        """Return all events up to the end."""
        return [json.loads(line) async for line in self._response.content]


class Api:
    """A Kubernetes API and a namespace in it that is this test's own."""

    def __init__(self, session: aiohttp.ClientSession, namespace: str) -> None:
        """Talk through ``session``, whose base is the server's address."""
        self.session = session
        self.namespace = namespace

    async def call(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: str
    ) -> Reply:
        """Send a request; return whatever came back."""
        payload = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type, "User-Agent": "contract/1.0"}
        async with self.session.request(method, path, data=payload, params=query, headers=headers) as response:
            text = await response.text()
            parsed = json.loads(text) if text.startswith("{") else {"text": text}
            return Reply(response.status, parsed, dict(response.headers))

    def path(self, value: Object, name: str = "", subresource: str = "") -> str:
        """Return the path of an object's kind, of the object, or of a part of it."""
        version, kind = value["apiVersion"], value["kind"]
        space = "" if kind in _CLUSTER_SCOPED else f"/namespaces/{self.namespace}"
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural = _PLURALS.get(kind, f"{kind.lower()}s")
        return "/".join(part for part in (f"{root}{space}/{plural}", name, subresource) if part)

    async def create(self, value: Object, **query: str) -> Reply:
        """POST an object."""
        return await self.call("POST", self.path(value), value, **query)

    async def get(self, value: Object, name: str = "") -> Reply:
        """GET the object that ``value`` names."""
        return await self.call("GET", self.path(value, name or value["metadata"]["name"]))

    async def list(self, value: Object, **query: str) -> Reply:
        """GET the list of the kind of ``value``."""
        return await self.call("GET", self.path(value), **query)

    async def update(self, value: Object, subresource: str = "", **query: str) -> Reply:
        """PUT an object."""
        return await self.call("PUT", self.path(value, value["metadata"]["name"], subresource), value, **query)

    async def merge(self, value: Object, patch: Object, subresource: str = "", **query: str) -> Reply:
        """Merge ``patch`` into the object that ``value`` names."""
        path = self.path(value, value["metadata"]["name"], subresource)
        return await self.call("PATCH", path, patch, content_type=MERGE, **query)

    async def json_patch(self, value: Object, *operations: Object, subresource: str = "") -> Reply:
        """Carry out a JSON patch on the object that ``value`` names."""
        path = self.path(value, value["metadata"]["name"], subresource)
        return await self.call("PATCH", path, list(operations), content_type=JSON_PATCH)

    async def apply(self, value: Object, manager: str = "fairlead", subresource: str = "", **query: str) -> Reply:
        """Apply an object on the server's side."""
        path = self.path(value, value["metadata"]["name"], subresource)
        return await self.call("PATCH", path, value, content_type=APPLY, fieldManager=manager, **query)

    async def delete(self, value: Object, options: Object | None = None, **query: str) -> Reply:
        """DELETE the object that ``value`` names."""
        return await self.call("DELETE", self.path(value, value["metadata"]["name"]), options, **query)

    @asynccontextmanager
    async def watch(self, value: Object, **query: str) -> AsyncIterator[Events]:
        """Watch the kind of ``value``."""
        query = {"watch": "true", "timeoutSeconds": "30"} | query
        async with self.session.get(self.path(value), params=query) as response:
            yield Events(response)

    async def gone(self, value: Object) -> None:
        """Wait until the object that ``value`` names is not there any longer."""

        async def absent() -> bool:
            return (await self.get(value)).code == 404

        await until(absent, timeout_s=30.0)

    async def prepared(self) -> None:
        """Make the namespace and the custom kind; wait until both are there."""
        await self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        await self.create(definition())

        async def served() -> bool:
            return (await self.list(probe("any"))).code == 200

        await until(served)


def config_map(name: str, **text: str) -> Object:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": text}


def probe(name: str, status: Object | None = None, **spec: Any) -> Object:
    """Return a Probe."""
    value = {"apiVersion": f"{GROUP}/v1", "kind": "Probe", "metadata": {"name": name}, "spec": spec}
    return value if status is None else value | {"status": status}


def named(value: Object, **metadata: Any) -> Object:
    """Return an object with more metadata."""
    return value | {"metadata": value["metadata"] | metadata}


def definition() -> Object:
    """Return the CustomResourceDefinition of ``Probe``."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"probes.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": "probes",
                "singular": "probe",
                "kind": "Probe",
                "shortNames": ["prb"],
                "categories": ["contract"],
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": _SCHEMA},
                }
            ],
        },
    }


_TEXT = {"type": "string"}
_KEYED = {"x-kubernetes-list-type": "map", "type": "array"}
_CONDITION = {
    "type": "object",
    "required": ["type", "status"],
    "properties": {"type": _TEXT, "status": _TEXT, "reason": _TEXT},
}
_SPEC = {
    "type": "object",
    "x-kubernetes-validations": [
        {"rule": "!has(self.salt) || !has(self.code) || self.salt != self.code", "message": "salt and code must differ"}
    ],
    "properties": {
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
        "mode": {"type": "string", "enum": ["Fast", "Safe"]},
        "code": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
        "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "enabled": {"type": "boolean"},
        "note": {"type": "string", "nullable": True},
        "at": {"type": "string", "format": "date-time"},
        "args": {"type": "array", "maxItems": 3, "items": _TEXT},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": _TEXT},
        "arms": _KEYED
        | {
            "x-kubernetes-list-map-keys": ["name"],
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": _TEXT,
                    "weight": {"type": "integer"},
                    "role": {"type": "string", "default": "Treatment"},
                },
            },
        },
        "settings": {"type": "object", "maxProperties": 2, "additionalProperties": _TEXT},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": _TEXT, "b": _TEXT}},
        "inner": {
            "type": "object",
            "required": ["key"],
            "properties": {"key": _TEXT, "depth": {"type": "integer", "default": 3}, "other": _TEXT},
        },
        "salt": {
            "type": "string",
            "maxLength": 20,
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "salt never changes", "reason": "FieldValueForbidden"}
            ],
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
_STATUS = {
    "type": "object",
    "properties": {
        "phase": _TEXT,
        "observedGeneration": {"type": "integer"},
        "conditions": _KEYED | {"x-kubernetes-list-map-keys": ["type"], "items": _CONDITION},
    },
}
_SCHEMA = {"type": "object", "properties": {"spec": _SPEC, "status": _STATUS}}
