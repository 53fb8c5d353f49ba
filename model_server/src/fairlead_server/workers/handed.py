"""A worker's side: connections come from the parent, and so does word of the other workers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from fairlead_server.listening import Ways
from fairlead_server.protocol import statistics
from fairlead_server.protocol.service import Service
from fairlead_server.workers.channel import Kind, Lines, Place, Port, line_of
from fairlead_server.workers.merging import (
    Snapshot,
    counted_together,
    model_key,
    reported,
    sample_key,
    sample_of,
    summed,
)

_OTHERS_LOADING = "other workers are being loaded"
_AT_ONCE = 16
"""Connections that are taken before the event loop serves others."""
_COUNT_PAUSE_S = 0.05
"""Between looks at how many connections are open, while they come and go."""
_LONGEST_COUNT_PAUSE_S = 0.4
"""The same while nothing changes; a connection that comes ends it."""
_SHOW_PAUSE_S = 1.0
"""Between snapshots that nobody has asked for: so much is forgotten at most when a worker is killed."""
_ANSWER_S = 2.0
"""Longest wait for the other workers' snapshots; then the last ones are shown."""
_LAST_CONNECTIONS_S = 1.0
"""Longest wait for the parent to have handed over its last connection."""


class HandedOver:
    """Connections that a parent has accepted; an ``Entrance``."""

    def __init__(self, place: Place) -> None:
        """Take over what the parent has passed on; nothing runs yet.

        Args:
            place: Of this worker.
        """
        self._place = place
        self._connections = socket.socket(fileno=place.connections_fd)
        self._connections.setblocking(False)
        self._failure_fd = os.dup(place.lines_fd)
        self._socket = socket.socket(fileno=place.lines_fd)
        self._lines: Lines | None = None
        self._ways: Ways | None = None
        self._others: Others | None = None
        self._received = 0
        self._told = (0, 0)
        self._has_come = asyncio.Event()
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def http_port(self) -> int:
        """Port of REST."""
        return self._place.http_port

    @property
    def grpc_port(self) -> int:
        """Port of gRPC."""
        return self._place.grpc_port

    def others(self, service: Service, registry: CollectorRegistry) -> Others:
        """Return how this worker and the others show themselves as one."""
        self._others = Others(service, registry, self._say)
        return self._others

    def release_grpc(self) -> int:
        """Refuse: a server that opens its port itself cannot share it."""
        raise NotImplementedError

    async def open(self, ways: Ways) -> None:
        """Let connections in; see ``Entrance.open``."""
        self._ways = ways
        self._lines = await Lines.over(self._socket)
        loop = asyncio.get_running_loop()
        for task in (self._listen(), self._count(), self._show()):
            self._keep(task)
        loop.add_reader(self._connections, self._take)
        self._say(Kind.OPEN)

    def ready(self) -> None:
        """Say that the model is loaded."""
        self._say(Kind.LOADED)

    def fail(self, message: str, code: int) -> None:
        """Say that this worker ends because its model cannot be served; needs no event loop."""
        with contextlib.suppress(OSError):
            os.set_blocking(self._failure_fd, True)
            os.write(self._failure_fd, line_of(Kind.FAILED, message=message, code=code))

    async def close(self) -> None:
        """Take what the parent has handed over already, and no more."""
        self._say(Kind.LEAVING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CONNECTIONS_S):
                await self._ended.wait()
        asyncio.get_running_loop().remove_reader(self._connections)

    async def finish(self) -> None:
        """Say the last counts; everything has been answered."""
        if self._others is not None:
            self._say(Kind.SHOWN, snapshot=self._others.own())
        if self._lines is not None:
            await self._lines.close()

    def _say(self, kind: Kind, **fields: Any) -> None:
        if self._lines is not None:
            self._lines.say(kind, **fields)

    def _keep(self, running: Any) -> None:
        task = asyncio.ensure_future(running)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                said, descriptors, _, _ = socket.recv_fds(self._connections, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                said, descriptors = b"", []
            if not said:
                self._end()
                return
            for descriptor in descriptors:
                self._received += 1
                self._has_come.set()
                self._keep(self._connect(socket.socket(fileno=descriptor), Port(said.decode())))

    def _end(self) -> None:
        """Stop: the parent wants this worker to go, or is gone itself."""
        asyncio.get_running_loop().remove_reader(self._connections)
        self._ended.set()
        if self._ways is not None:
            self._ways.stop()

    async def _connect(self, accepted: socket.socket, port: Port) -> None:
        ways = self._ways
        opener = None if ways is None else ways.grpc if port is Port.GRPC else ways.http
        if opener is None:
            accepted.close()
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(opener, accepted)
        except OSError:
            accepted.close()  # the client has gone away again

    async def _listen(self) -> None:
        if self._lines is None or self._others is None:
            return
        async for line in self._lines.heard():
            match line["kind"]:
                case Kind.ALL_LOADED:
                    self._others.all_loaded()
                case Kind.SHOW:
                    self._say(Kind.SHOWN, id=line["id"], snapshot=self._others.own())
                case Kind.OTHERS:
                    self._others.heard(line)

    async def _count(self) -> None:
        pause_s = _COUNT_PAUSE_S
        while self._ways is not None:
            counted = (self._received, self._ways.count())
            pause_s = min(2 * pause_s, _LONGEST_COUNT_PAUSE_S)
            if counted != self._told:
                self._told = counted
                self._say(Kind.LOAD, received=counted[0], open=counted[1])
                pause_s = _COUNT_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._has_come.wait()
                await asyncio.sleep(_COUNT_PAUSE_S)
            self._has_come.clear()

    async def _show(self) -> None:
        while self._others is not None:
            await asyncio.sleep(_SHOW_PAUSE_S)
            self._say(Kind.SHOWN, snapshot=self._others.own())


@lru_cache(maxsize=4096)
def _key(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    """Return a sample's key, which is the same every second."""
    return sample_key(name, dict(labels))


class Others:
    """All workers as one: their metrics, reports and readiness. A registry, for whoever asks for metrics."""

    def __init__(self, service: Service, registry: CollectorRegistry, say: Callable[..., None]) -> None:
        """Know nothing of the others yet.

        Args:
            service: This worker's; not ready until all workers are loaded.
            registry: This worker's metrics.
            say: Says a line to the parent.
        """
        self._service = service
        self._registry = registry
        self._say = say
        self._asks: dict[int, asyncio.Future[None]] = {}
        self._ids = itertools.count()
        self._snapshots: list[Snapshot] = []
        self._past: Snapshot = {}
        self._shown: Snapshot = {}
        service.waiting_for = _OTHERS_LOADING
        service.others = self

    def all_loaded(self) -> None:
        """Note that every worker has been loaded."""
        self._service.waiting_for = None

    async def refresh(self) -> None:
        """Ask the others how they are now; after two seconds without an answer it is as it was."""
        number = next(self._ids)
        asked = self._asks[number] = asyncio.get_running_loop().create_future()
        self._shown = self.own()
        self._say(Kind.ASK, id=number, snapshot=self._shown)
        try:
            async with asyncio.timeout(_ANSWER_S):
                await asked
        except TimeoutError:
            pass
        finally:
            del self._asks[number]

    def heard(self, line: Mapping[str, Any]) -> None:
        """Note the parent's answer."""
        self._snapshots, self._past = line["snapshots"], line["ended"]
        asked = self._asks.get(line["id"])
        if asked is not None and not asked.done():
            asked.set_result(None)

    def own(self) -> Snapshot:
        """Return how this worker is now."""
        metrics = {
            family.name: {
                "type": family.type,
                "help": family.documentation,
                "samples": {_key(sample.name, tuple(sample.labels.items())): sample.value for sample in family.samples},
            }
            for family in self._registry.collect()
        }
        reports = {
            f"{name}/{version}": self._service.metadata_of(known.served)["parameters"]
            for name in self._service.names()
            for version, known in self._service.versions_of(name).items()
            if known.served is not None
        }
        told = statistics.of_models(self._service.asked("", ""))["model_stats"]
        return {"metrics": metrics, "reports": reports, "statistics": {model_key(one): one for one in told}}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all workers, as they were at the last :meth:`refresh`."""
        for name, family in summed([self._shown, *self._snapshots, self._past]).items():
            metric = Metric(name, family["help"], family["type"])
            for key, value in family["samples"].items():
                metric.add_sample(*sample_of(key), value)
            yield metric

    def told(self, metadata: Mapping[str, Any], version: str) -> dict[str, Any]:
        """Return a model's metadata with the report of all workers, as of the last :meth:`refresh`.

        Args:
            metadata: This worker's answer.
            version: The model's.
        """
        key = f"{metadata['name']}/{version}"
        of_others = [snapshot["reports"][key] for snapshot in self._snapshots if key in snapshot["reports"]]
        past = self._past.get("reports", {}).get(key, {})
        own = self._shown.get("reports", {}).get(key, metadata["parameters"])
        return {**metadata, "parameters": reported(own, of_others, past)}

    def statistics(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return statistics of models in all workers, as of the last :meth:`refresh`; see ``protocol.others``."""
        beside = [*self._snapshots, self._past]
        return {"model_stats": [counted_together(one, beside) for one in told["model_stats"]]}
