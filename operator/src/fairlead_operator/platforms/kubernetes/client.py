"""The Kubernetes API on ``kubernetes.aio``: its connections and credentials, without its models.

A call has attempts, each with a deadline. Tried again are: 429, whatever the verb, since nothing was done; a
connection that could not be made; and for reads, server-side applies and deletes also timeouts and 5xx. A 401 has the
credentials read again, once. The fence is asked right before each attempt of a write.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client.api_client import ApiClient

from fairlead_operator.platforms.kubernetes.answers import (
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    error_from,
    error_from_status,
    retry_after_s,
)
from fairlead_operator.platforms.kubernetes.api import (
    FIELD_MANAGER,
    Change,
    KubeApi,
    Page,
    Propagation,
    Resource,
    WatchEvent,
)
from fairlead_operator.platforms.kubernetes.connection import Connection
from fairlead_operator.platforms.kubernetes.errors import Expired, KindMissing, KubeError, NotFound, Unavailable
from fairlead_operator.platforms.kubernetes.kinds import POD, SECRET, Kind
from fairlead_operator.runtime.keys import ObjectKey

CallObserver: TypeAlias = Callable[[str, str, str, float], None]
"""Told of every attempt: verb, kind, HTTP code or ``timeout`` or ``connection``, seconds."""

_OK_BELOW: Final = 300
_APPLY: Final = "application/apply-patch+yaml"
_JSON: Final = "application/json"
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_NOT_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often a call is tried."""

    connect_s: float = 5.0
    attempt_s: float = 15.0
    """Deadline of an attempt, its answer read."""
    attempts: int = 4
    first_pause_s: float = 0.25
    longest_pause_s: float = 10.0
    """Also of what Retry-After may ask for: a longer wait is the queue's business."""
    page_size: int = 100


@dataclass(frozen=True, slots=True)
class _Call:
    verb: str
    kind: Kind
    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: Any = None
    content_type: str = _JSON
    accept: str = _JSON
    repeatable: bool = False
    """Whether doing it twice is as good as once."""
    writes: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


def _never_down() -> None:
    """Let every write pass."""


def _ignore(verb: str, kind: str, code: str, duration_s: float) -> None:
    """Count nothing."""


class KubeClient(KubeApi):
    """Talks to one API server over one pool of connections."""

    def __init__(
        self,
        connection: Connection,
        *,
        user_agent: str = "fairlead-operator",
        field_manager: str = FIELD_MANAGER,
        patience: Patience | None = None,
        observe: CallObserver = _ignore,
        randomness: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make a client; connections are opened when needed.

        Args:
            connection: Where and who.
            user_agent: How we name ourselves in the audit log.
            field_manager: How we name ourselves in managedFields.
            patience: Deadlines and attempts.
            observe: Counts calls.
            randomness: Spreads pauses.
            sleep: Waits out a pause.
        """
        self._connection = connection
        self._field_manager = field_manager
        self._patience = patience or Patience()
        self._observe = observe
        self._random = randomness or random.Random()  # noqa: S311 -- spreads pauses
        self._sleep = sleep
        self._fence: Callable[[], None] = _never_down
        self._client = ApiClient(connection.configuration)
        self._client.user_agent = user_agent

    async def close(self) -> None:
        """Close all connections; for the client that others were made from by ``fenced``."""
        await self._client.close()

    def fenced(self, fence: Callable[[], None]) -> KubeClient:
        """Return a client over the same connections that asks ``fence`` right before it sends a write.

        Args:
            fence: Raises LeaseLost when nothing may be written.
        """
        twin = object.__new__(KubeClient)
        twin.__dict__.update(self.__dict__)
        twin._fence = fence
        return twin

    async def get(self, kind: Kind, key: ObjectKey) -> Resource:
        """Return an object."""
        call = _Call("get", kind, "GET", kind.path(key.namespace, key.name), repeatable=True)
        return await self._answer(call)

    async def pages(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Page]:
        """Yield the pages of a list."""
        query = [("limit", str(self._patience.page_size)), *_selector(labels)]
        position: list[tuple[str, str]] = []
        while True:
            call = _Call("list", kind, "GET", kind.path(namespace), [*query, *position], repeatable=True)
            answer = await self._answer(call)
            metadata = answer.get("metadata") or {}
            yield Page(answer.get("items") or (), metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            position = [("continue", metadata["continue"])]

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Resource]:
        """Return a whole list; started anew once if it expires on the way."""
        try:
            return [item async for page in self.pages(kind, namespace=namespace, labels=labels) for item in page.items]
        except Expired:
            return [item async for page in self.pages(kind, namespace=namespace, labels=labels) for item in page.items]

    async def apply(
        self,
        kind: Kind,
        resource: Resource,
        *,
        resource_version: str | None = None,
        force: bool = True,
        dry_run: bool = False,
    ) -> Resource:
        """Server-side apply ``resource`` as field manager ``fairlead``."""
        metadata = resource["metadata"]
        if resource_version is not None:
            resource = {**resource, "metadata": {**metadata, "resourceVersion": resource_version}}
        query = [("fieldManager", self._field_manager), ("force", str(force).lower()), ("fieldValidation", "Strict")]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        call = _Call(
            "apply",
            kind,
            "PATCH",
            path,
            [*query, *([("dryRun", "All")] if dry_run else ())],
            resource,
            _APPLY,
            # With a resourceVersion a second try would be refused by the success of the first.
            repeatable=resource_version is None,
            writes=True,
        )
        return await self._answer(call)

    async def create(self, kind: Kind, resource: Resource) -> Resource:
        """Create an object."""
        query = [("fieldManager", self._field_manager), ("fieldValidation", "Strict")]
        path = kind.path(resource["metadata"].get("namespace"))
        return await self._answer(_Call("create", kind, "POST", path, query, resource, writes=True))

    async def replace(self, kind: Kind, resource: Resource) -> Resource:
        """Replace a whole object, if it is still at the resourceVersion that ``resource`` carries."""
        metadata = resource["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        query = [("fieldManager", self._field_manager)]
        return await self._answer(_Call("update", kind, "PUT", path, query, resource, writes=True))

    async def delete(
        self,
        kind: Kind,
        key: ObjectKey,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> bool:
        """Delete an object; return whether there was one."""
        named = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation.value}
        if preconditions := {name: value for name, value in named.items() if value is not None}:
            options["preconditions"] = preconditions
        path = kind.path(key.namespace, key.name)
        try:
            await self._answer(_Call("delete", kind, "DELETE", path, (), options, repeatable=True, writes=True))
        except NotFound:
            return False
        return True

    async def patch_status(
        self, kind: Kind, key: ObjectKey, status: Mapping[str, Any], *, resource_version: str
    ) -> Resource:
        """Replace the whole status, if the object is at ``resource_version``."""
        operations = [_at(resource_version), {"op": "add", "path": "/status", "value": dict(status)}]
        return await self._patch("patch_status", kind, kind.path(key.namespace, key.name, "status"), operations)

    async def patch_metadata(
        self, kind: Kind, key: ObjectKey, metadata: Mapping[str, Any], *, resource_version: str
    ) -> Resource:
        """Replace parts of the metadata, if the object is at ``resource_version``."""
        changes = [{"op": "add", "path": f"/metadata/{part}", "value": value} for part, value in metadata.items()]
        path = kind.path(key.namespace, key.name)
        return await self._patch("patch", kind, path, [_at(resource_version), *changes])

    async def merge(
        self,
        kind: Kind,
        key: ObjectKey,
        changes: Mapping[str, Any],
        *,
        resource_version: str,
        dry_run: bool = False,
    ) -> Resource:
        """Merge ``changes`` into an object (JSON merge patch), if it is at ``resource_version``."""
        query = [("fieldManager", self._field_manager), ("fieldValidation", "Strict")]
        asked = [*query, *([("dryRun", "All")] if dry_run else ())]
        body = {**changes, "metadata": {"resourceVersion": resource_version}}
        path = kind.path(key.namespace, key.name)
        return await self._answer(_Call("patch", kind, "PATCH", path, asked, body, _MERGE_PATCH, writes=True))

    async def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_s: float = 300.0,
        silence_s: float = 90.0,
    ) -> AsyncIterator[WatchEvent]:
        """Yield what happens after ``resource_version``, until the server ends it."""
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(int(timeout_s))),
            *_selector(labels),
        ]
        call = _Call("watch", kind, "GET", kind.path(namespace), query)
        async with self._stream(call, silence_s) as lines:
            async for line in lines:
                yield _event(call, line)

    async def log(
        self,
        pod: ObjectKey,
        container: str,
        *,
        since_s: int | None = None,
        follow: bool = False,
        previous: bool = False,
        silence_s: float = 90.0,
    ) -> AsyncIterator[bytes]:
        """Yield the whole lines of a container's log, each with the time in front at which it was written."""
        query = [("container", container), ("timestamps", "true")]
        if since_s is not None:
            query.append(("sinceTime", datetime.fromtimestamp(since_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")))
        query += [(name, "true") for name, asked in (("follow", follow), ("previous", previous)) if asked]
        path = POD.path(pod.namespace, pod.name, "log")
        call = _Call("log", POD, "GET", path, query, accept="*/*")
        async with self._stream(call, silence_s) as lines:
            async for line in lines:
                yield line

    async def serves(self, kind: Kind) -> bool:
        """Return whether the API serves this kind now."""
        try:
            answer = await self._answer(_Call("discover", kind, "GET", kind.api_path, repeatable=True))
        except (KindMissing, NotFound):
            return False
        return any(resource.get("name") == kind.plural for resource in answer.get("resources") or ())

    async def _patch(self, verb: str, kind: Kind, path: str, operations: Sequence[Any]) -> Resource:
        query = [("fieldManager", self._field_manager)]
        return await self._answer(_Call(verb, kind, "PATCH", path, query, [*operations], _JSON_PATCH, writes=True))

    async def _answer(self, call: _Call) -> Resource:
        """Return the answer to a call, trying as often as it is allowed to."""
        failures = 0
        while True:
            try:
                return await self._attempt(call)
            except _Failure as failure:
                failures += 1
                if not failure.may_repeat or failures >= self._patience.attempts:
                    raise failure.error from failure.__cause__
                asked = failure.retry_after_s
            await self._sleep(self._pause_s(failures, asked))

    async def _attempt(self, call: _Call) -> Resource:
        limits = aiohttp.ClientTimeout(total=self._patience.attempt_s, sock_connect=self._patience.connect_s)
        try:
            response = await self._send(call, limits)
            async with response:
                content = await response.read()
        except _NOT_SENT as error:
            raise _Failure(_unreachable(call, error), may_repeat=True) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Failure(_unreachable(call, error), may_repeat=call.repeatable) from error
        if response.status < _OK_BELOW:
            answer: Resource = orjson.loads(content)
            return answer
        asked = retry_after_s(response.headers.get("Retry-After"), content)
        raise _failure(call, response.status, content, asked)

    @asynccontextmanager
    async def _stream(self, call: _Call, silence_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an answer that goes on, and give its lines; it is closed in the end, whoever ends it."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._patience.connect_s, sock_read=silence_s)
        response = await self._open_stream(call, limits)
        try:
            yield _lines(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(call, error) from error
        finally:
            response.close()

    async def _open_stream(self, call: _Call, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        try:
            response = await self._send(call, limits)
            if response.status >= _OK_BELOW:
                async with response:
                    raise error_from(str(call), response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(call, error) from error
        return response

    async def _send(self, call: _Call, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Send a call; once more with fresh credentials if it is answered by 401."""
        response = await self._send_once(call, limits)
        if response.status == UNAUTHORIZED:
            response.release()
            await self._connection.renew()
            response = await self._send_once(call, limits)
        return response

    async def _send_once(self, call: _Call, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        headers = {"Accept": call.accept, "Content-Type": call.content_type, "User-Agent": self._client.user_agent}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], call.path, call.method, None)
        query = f"?{urlencode(call.query)}" if call.query else ""
        url = f"{self._client.configuration.host}{call.path}{query}"
        if call.writes:
            self._fence()
        begun, code = time.monotonic(), "connection"
        try:
            answer = await self._client.call_api(call.method, url, headers, call.body, _request_timeout=limits)
            code = str(answer.response.status)
        except TimeoutError:
            code = "timeout"
            raise
        finally:
            self._observe(call.verb, call.kind.plural, code, time.monotonic() - begun)
        response: aiohttp.ClientResponse = answer.response
        return response

    def _pause_s(self, failures: int, asked_s: float | None) -> float:
        longest_s = self._patience.longest_pause_s
        pause_s = min(self._patience.first_pause_s * 2.0**failures, longest_s) * self._random.uniform(0.5, 1.0)
        return pause_s if asked_s is None else max(pause_s, min(asked_s, longest_s))


class _Failure(Exception):
    """An attempt failed."""

    def __init__(self, error: KubeError, *, may_repeat: bool, retry_after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.may_repeat = may_repeat
        self.retry_after_s = retry_after_s


def _failure(call: _Call, code: int, content: bytes, asked_s: float | None) -> _Failure:
    error = error_from(str(call), code, content, is_secret=call.kind == SECRET)
    refused_for_now = code == TOO_MANY_REQUESTS
    broken = code >= SERVER_ERROR and isinstance(error, Unavailable)
    return _Failure(error, may_repeat=refused_for_now or (broken and call.repeatable), retry_after_s=asked_s)


def _unreachable(call: _Call, error: Exception) -> Unavailable:
    return Unavailable(f"{call}: {type(error).__name__}: {error}", reason="Unreachable")


def _selector(labels: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return [("labelSelector", ",".join(f"{name}={value}" for name, value in labels.items()))] if labels else []


def _at(resource_version: str) -> dict[str, str]:
    # Replaced rather than tested: the API answers a wrong version by 409, but a failed test by 422.
    return {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version}


def _event(call: _Call, line: bytes) -> WatchEvent:
    try:
        event = orjson.loads(line)
        if event["type"] == "ERROR":
            raise error_from_status(str(call), event["object"])
        return WatchEvent(Change(event["type"]), event["object"])
    except (orjson.JSONDecodeError, KeyError, ValueError) as error:
        raise Unavailable(f"{call}: a line of the watch cannot be read", reason="BrokenStream") from error


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield whole lines of any length; what is left when the connection ends was cut off."""
    rest: list[bytes] = []
    async for chunk in response.content.iter_any():
        first, *others = chunk.split(b"\n")
        rest.append(first)
        for other in others:
            if line := b"".join(rest):
                yield line
            rest = [other]
    if any(rest):
        raise aiohttp.ClientPayloadError("the stream ends in the middle of a line")
