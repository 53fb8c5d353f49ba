"""A Kubernetes API server in memory, over HTTP on the loopback.

    async with KubeApiServer(kinds=kserve_kinds()) as server:
        client = connect(server.url)
        ...
        assert not server.writes

Clients reach it by ``url`` or ``kubeconfig``; tests look behind it with ``get``, ``objects``, ``requests`` and
``writes``, and disturb it with ``faults``, ``interrupt_watches`` and ``halt_after``. What it leaves to a real
kube-apiserver: RBAC, admission webhooks, OpenAPI, protobuf, conversion between versions, and
strategic merge patch, which it takes as a merge patch (lists are replaced).
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
import yaml
from aiohttp import web

from fairlead.clock import Clock, SystemClock
from support.kube.answers import Answer, answer, watch_request
from support.kube.calls import Call, Record, read_call
from support.kube.cluster import Cluster
from support.kube.errors import ApiError, unauthorized
from support.kube.faults import Delay, Drop, Fault, Faults, Hang, LoseAnswer, Refuse, WatchFault
from support.kube.halt import Halt
from support.kube.kinds import Kind
from support.kube.logs import PodLogs, log_asked
from support.kube.watching import CutError, Watch

BeforeWrite = Callable[[Call], Awaitable[None]]
AfterWrite = Callable[[Record], Awaitable[None]]

_LARGEST_BODY_BYTES = 3 * 1024 * 1024
_SHUTDOWN_S = 0.1


class KubeApiServer(Cluster):
    """A cluster's API that answers HTTP; used as an async context manager."""

    def __init__(
        self,
        *,
        kinds: Iterable[Kind] = (),
        namespaces: Iterable[str] = (),
        clock: Clock | None = None,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        token: str = "",
        bookmark_interval_s: float = 60.0,
        collects_garbage: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            kinds: What is served besides the built-in kinds; more can come and go later (``register``, or as
                CustomResourceDefinitions).
            namespaces: Namespaces that exist from the start, besides ``default``.
            clock: Where times in objects come from.
            new_uid: Where uids come from.
            token: The bearer token that clients must send; "" lets all in. It can be changed at any time.
            bookmark_interval_s: Seconds between the bookmarks of a watch that asked for them.
            collects_garbage: Whether dependents of deleted owners go by themselves; otherwise ``settle`` does it.
            tls: Serve over TLS with this context.
        """
        super().__init__(kinds=kinds, namespaces=namespaces, clock=clock or SystemClock(), new_uid=new_uid)
        self.token = token
        self.faults = Faults()
        self.logs: dict[tuple[str, str], PodLogs] = {}
        """Of pods with one container, by namespace and name."""
        self.requests: list[Record] = []
        """All calls that were answered (or never will be), in the order of their ends; a watch when it begins."""
        self.before_write: list[BeforeWrite] = []
        self.after_write: list[AfterWrite] = []
        """Run before and after every write; what they raise fails the test when the server stops."""
        self._bookmark_interval_s = bookmark_interval_s
        self._collects_garbage = collects_garbage
        self._tls = tls
        self._watches: set[Watch] = set()
        self._halt: Halt | None = None
        self._failures: list[Exception] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens: ``http://127.0.0.1:PORT``."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def writes(self) -> list[Record]:
        """The calls that could have changed something, dry runs left out, whatever came of them."""
        return [record for record in self.requests if record.call.is_write]

    @property
    def changes(self) -> list[Record]:
        """The writes that did change an object."""
        return [record for record in self.writes if record.changed]

    @property
    def open_watches(self) -> list[str]:
        """The resources that are being watched, one entry for each watch."""
        return sorted(watch.request.kind.resource for watch in self._watches)

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig (and the token's file, if there is a token) into ``folder``; return its path."""
        user = {}
        if self.token:
            (folder / "token").write_text(self.token)
            user = {"tokenFile": str(folder / "token"), "token": self.token}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "memory",
            "clusters": [{"name": "memory", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "memory", "context": {"cluster": "memory", "user": "test", "namespace": "default"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def halt_after(self, writes: int) -> Halt:
        """Stop answering once ``writes`` more writes are done; the last of them gets no answer either."""
        self._halt = Halt(writes)
        return self._halt

    def interrupt_watches(self, fault: WatchFault, resource: str = "") -> int:
        """Let ``fault`` befall the open watches (of one resource); return how many there were."""
        struck = [watch for watch in self._watches if resource in {"", watch.request.kind.resource}]
        for watch in struck:
            watch.interrupt(fault)
        return len(struck)

    def forget_requests(self) -> None:
        """Empty the log."""
        self.requests.clear()

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        app = web.Application(client_max_size=_LARGEST_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]
        if self._collects_garbage:
            self._tasks.append(asyncio.create_task(self._collect()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Stop; raise what a hook had to say, unless the test has failed already."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._runner:
            await self._runner.cleanup()
        if self._failures and error is None:
            raise self._failures[0]

    async def _collect(self) -> None:
        while True:
            self.settle()
            await self.store.everything.grown()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = read_call(request.method, request.path, request.query, request.headers, body)
        fault = self.faults.take(call)
        try:
            await self._before(call, fault)
            if call.verb == "watch" and not isinstance(fault, Refuse):
                return await self._watch(request, call, fault)
            if (call.resource, call.subresource) == ("pods", "log"):
                return await self._tail(request, call, fault)
            given, record = self._answered(call, fault)
        except _LostError:
            self._log(call, 0)
            _cut(request)
        await self._after(request, record, fault)
        return _response(given)

    async def _before(self, call: Call, fault: Fault | None) -> None:
        if self._halt:
            await self._halt.begun(call)
        match fault:
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Drop():
                raise _LostError
            case Hang():
                self._log(call, 0)
                await asyncio.Event().wait()
        if call.is_write:
            await self._run([hook(call) for hook in self.before_write])

    def _answered(self, call: Call, fault: Fault | None) -> tuple[Answer, Record]:
        before, revision = self._json(call), self.store.revision
        try:
            self._admit(call, fault)
            given = answer(self, call)
        except ApiError as refused:
            given = Answer(refused.code, orjson.dumps(refused.status()), retry_after_s=refused.retry_after_s)
        after = self._json(call) if call.name or not call.is_write else given.stored
        if call.verb == "deletecollection" and self.store.revision > revision:
            before = b"{}"
        return given, self._log(call, 0 if isinstance(fault, LoseAnswer) else given.code, before, after)

    async def _after(self, request: web.Request, record: Record, fault: Fault | None) -> None:
        if record.call.is_write:
            await self._run([hook(record) for hook in self.after_write])
        if self._halt and record.call.is_write and (record.changed or record.code < 400):
            self._halt.count()
            await self._halt.passed()
        if isinstance(fault, LoseAnswer):
            _cut(request)

    async def _watch(self, request: web.Request, call: Call, fault: Fault | None) -> web.StreamResponse:
        try:
            self._admit(call, fault)
            asked = watch_request(self, call)
        except ApiError as refused:
            self._log(call, refused.code)
            return _response(Answer(refused.code, orjson.dumps(refused.status())))
        watch = Watch(asked, self.store, self._bookmark_interval_s)
        if isinstance(fault, WatchFault):
            watch.interrupt(fault)
        self._log(call, 200)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches.add(watch)
        try:
            async for line in watch.lines(lambda: self.catalog.at(call.group, call.version, call.plural) is not None):
                await response.write(line)
            await response.write_eof()
        except CutError as cut:
            await response.write(cut.rest)
            _cut(request)
        except ConnectionResetError:
            return response
        finally:
            self._watches.discard(watch)
        return response

    async def _tail(self, request: web.Request, call: Call, fault: Fault | None) -> web.StreamResponse:
        try:
            self._admit(call, fault)
            log = log_asked(self.logs.get(call.place), call.query)
        except ApiError as refused:
            self._log(call, refused.code)
            return _response(Answer(refused.code, orjson.dumps(refused.status())))
        self._log(call, 200)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with suppress(ConnectionResetError):
            async for line in log.read(call.query):
                await response.write(line)
            await response.write_eof()
        return response

    def _admit(self, call: Call, fault: Fault | None) -> None:
        if self.token and call.token != self.token:
            raise unauthorized()
        if isinstance(fault, Refuse):
            raise ApiError(fault.code, fault.reason, fault.message, retry_after_s=fault.retry_after_s)

    def _json(self, call: Call) -> bytes | None:
        if not call.is_write or not call.name:
            return None
        stored = self.store.get(call.resource, call.place)
        return stored.json if stored else None

    def _log(self, call: Call, code: int, before: bytes | None = None, after: bytes | None = None) -> Record:
        record = Record(len(self.requests), call, code, before, after)
        self.requests.append(record)
        return record

    async def _run(self, hooks: Iterable[Awaitable[None]]) -> None:
        for hook in hooks:
            try:
                await hook
            except Exception as error:  # noqa: BLE001  a hook's complaint is kept and raised where the test sees it
                self._failures.append(error)


class _LostError(Exception):
    """The client gets no answer."""


def _cut(request: web.Request) -> None:
    if request.transport:
        request.transport.abort()
    raise ConnectionResetError("cut by the test")


def _response(given: Answer) -> web.Response:
    response = web.Response(status=given.code, body=given.body, content_type=given.content_type)
    if given.retry_after_s is not None:
        response.headers["Retry-After"] = str(given.retry_after_s)
    for warning in given.warnings:
        escaped = warning.replace('"', r"\"")
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response
