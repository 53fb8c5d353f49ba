"""The Kubernetes API of the test cluster, called directly: kubectl's start costs more than most calls."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from fairlead_operator.platforms.kubernetes.kinds import Kind
from support.kubeconfig import credentials_of

FIELD_MANAGER = "tests"
_TIMEOUT_S = 30.0
_MERGE = {"content-type": "application/merge-patch+json"}
_APPLY = {"content-type": "application/apply-patch+yaml"}

Resource = dict[str, Any]


class ApiError(AssertionError):
    """The API refused a call; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ClusterApi:
    """A client of the API server with the administrator's credentials, for one thread at a time."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = credentials_of(kubeconfig).client(_TIMEOUT_S)

    def get(self, kind: Kind, namespace: str | None, name: str) -> Resource:
        """Return an object.

        Raises:
            ApiError: There is none, or another refusal.
        """
        return self._call("GET", kind.path(namespace, name))

    def find(self, kind: Kind, namespace: str | None, name: str) -> Resource | None:
        """Return an object; None if there is none."""
        try:
            return self.get(kind, namespace, name)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def items(self, kind: Kind, namespace: str | None, **labels: str) -> list[Resource]:
        """Return all objects of a kind, with their version; labels are given without their group, ``/`` as ``__``."""
        selector = ",".join(f"{name.replace('__', '/')}={value}" for name, value in labels.items())
        listed = self._call("GET", kind.path(namespace), params={"labelSelector": selector} if selector else {})
        named = {"apiVersion": kind.api_version, "kind": kind.kind}
        return [{**named, **item} for item in listed["items"]]

    def apply(self, kind: Kind, manifest: Mapping[str, Any]) -> Resource:
        """Apply a manifest as ``kubectl apply --server-side --validate=strict`` does."""
        metadata = manifest["metadata"]
        params = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return self._call("PATCH", path, params=params, headers=_APPLY, content=json.dumps(manifest))

    def patch(
        self, kind: Kind, namespace: str | None, name: str, change: Mapping[str, Any], subresource: str | None = None
    ) -> Resource:
        """Merge ``change`` into an object."""
        path = kind.path(namespace, name, subresource)
        return self._call("PATCH", path, headers=_MERGE, content=json.dumps(change))

    def annotate(self, kind: Kind, namespace: str | None, name: str, **annotations: str | None) -> Resource:
        """Set annotations, ``/`` in their names written as ``__``; None removes one."""
        named = {key.replace("__", "/"): value for key, value in annotations.items()}
        return self.patch(kind, namespace, name, {"metadata": {"annotations": named}})

    def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete an object, if it is there."""
        try:
            self._call("DELETE", kind.path(namespace, name))
        except ApiError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, method: str, path: str, **given: Any) -> Resource:
        answer = self._client.request(method, path, **given)
        if answer.is_error:
            raise ApiError(answer.status_code, _message(answer))
        found: Resource = answer.json()
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """One object as it was from a moment on."""

    resource: Resource
    deleted: bool

    @property
    def version(self) -> int:
        """When: resourceVersions are in order over all kinds that the server keeps in one store."""
        return int(self.resource["metadata"]["resourceVersion"])


class Watch:
    """Keeps every change of a kind's objects, from its start to its end: watches of the API leave none out."""

    def __init__(self, kubeconfig: Path, kind: Kind, namespace: str | None) -> None:
        self.changes: list[Change] = []
        """Oldest first; what was there at the start comes before."""
        self.problems: list[str] = []
        """Why something may be missing; must be empty in the end."""
        self._path = kind.path(namespace)
        self._client = credentials_of(kubeconfig).client(_TIMEOUT_S)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._list(),), daemon=True, name=f"watch {kind}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(_TIMEOUT_S)
        self._client.close()

    def _list(self) -> str:
        listed = self._client.get(self._path).raise_for_status().json()
        self.changes += [Change(item, deleted=False) for item in listed["items"]]
        version: str = listed["metadata"]["resourceVersion"]
        return version

    def _run(self, version: str) -> None:
        try:
            while not self._stopping.is_set():
                for event in self._events(version):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self.changes.append(Change(event["object"], event["type"] == "DELETED"))
        except (httpx.HTTPError, KeyError, ValueError) as error:  # 410, too: its object has no version
            self.problems.append(repr(error))

    def _events(self, version: str) -> Iterator[Resource]:
        params = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "2"}
        with self._client.stream("GET", self._path, params=params) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                yield json.loads(line)


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError):
        return answer.text
