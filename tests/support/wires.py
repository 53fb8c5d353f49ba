"""HTTP connections without sockets: bytes in, bytes out, in the lane and beside it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from onnx import helper
from prometheus_client import CollectorRegistry

from fairlead.clock import Clock, SystemClock
from fairlead.policy import Hydration
from fairlead_server.exposure.assemble import feedback_of
from fairlead_server.exposure.reporter import Pace
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import load
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.protocol.http import HttpConnections, HttpProtocol
from fairlead_server.protocol.lane import Lane, LaneProtocol
from fairlead_server.protocol.rest import Limits, RestApplication
from fairlead_server.protocol.service import Served, Service
from support.plain_models import Tensor, graph

LIMITS = Limits(body_bytes=4096, body_deadline_s=60.0)
_MOST_TURNS = 100
"""Of the event loop; an answer takes less than ten."""
_ANSWER = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)
_LENGTH = re.compile(rb"(?:^|\n)content-length: (\d+)")


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.is_closed = False
        self.is_paused = False
        self.waiting = b""
        """What the client has sent while reading was paused."""
        self.protocol: Any = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closed:  # as a real one does
            return
        self.written += bytes(data)
        self.writes += 1

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False
        if self.waiting:
            data, self.waiting = self.waiting, b""
            asyncio.get_running_loop().call_soon(self.send, data)

    def send(self, data: bytes) -> None:
        """Let the client's bytes arrive."""
        if self.is_paused:
            self.waiting += data
        elif not self.is_closed:
            self.protocol.data_received(data)

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    @property
    def answers(self) -> list[tuple[int, tuple[bytes, ...], bytes]]:
        """Whole answers so far: status, header lines without those that vary, body."""
        return list(_answers(self.written))


@dataclass(frozen=True, slots=True)
class Stand:
    """A service, and what opens connections to it."""

    service: Service
    metrics: CollectorRegistry
    connections: HttpConnections
    reads_store: bool = False
    """Whether requests may have to wait for a feature store."""

    def connect(self) -> Wire:
        """Open a connection."""
        wire = Wire()
        wire.protocol = self.connections.open()
        wire.protocol.connection_made(wire)
        return wire

    async def ask(self, wire: Wire, *pieces: bytes, answers: int = 1) -> list[tuple[int, tuple[bytes, ...], bytes]]:
        """Send pieces, each read for itself, until there are so many more answers, or the connection is closed."""
        before = len(wire.answers)
        for piece in pieces:
            wire.send(piece)
        await self._settled(wire, before + answers)
        return wire.answers[before:]

    async def ask_together(self, *requests: bytes) -> list[list[tuple[int, tuple[bytes, ...], bytes]]]:
        """Send requests in one turn of the event loop, each on a connection of its own."""
        wires = [self.connect() for _ in requests]
        for wire, request in zip(wires, requests, strict=True):
            wire.send(request)
        for wire in wires:
            await self._settled(wire, 1)
        for wire in wires:
            wire.close()
        await asyncio.sleep(0)
        return [wire.answers for wire in wires]

    async def _settled(self, wire: Wire, answers: int) -> None:
        """Return when there are so many answers, the connection is closed, or nothing more will come."""
        seen = -1
        for _ in range(_MOST_TURNS):
            if wire.is_closed or (len(wire.written) != seen and len(wire.answers) >= answers):
                return
            seen = len(wire.written)
            await asyncio.sleep(0)
            while self.reads_store and self.service.served().predictor.busy:  # noqa: ASYNC110 -- it sets no event
                await asyncio.sleep(0)

    def counts(self, *families: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return counters of metric families by their labels."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.metrics.collect()
            if family.name in families
            for sample in family.samples
            if sample.name.endswith("_total") and sample.value
        }


def wide() -> bytes:
    """Return a plain model: FP32 ``x`` [n, 3] in; ``double`` [n, 3], and INT64 ``place`` [n] of the greatest, out."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["double"]),
        helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
    ]
    outputs = [Tensor("double", "FP32", ("n", 3)), Tensor("place", "INT64", ("n",))]
    return graph(nodes, [Tensor("x", "FP32", ("n", 3))], outputs)


async def stand_of(
    model: Path,
    *,
    lane: bool,
    limits: Limits = LIMITS,
    serving_dir: Path | None = None,
    revision: str = "",
    feature_store: Path | None = None,
    clock: Clock | None = None,
) -> Stand:
    """Serve a model file, in the lane or by the application alone.

    Args:
        model: The ONNX file.
        lane: Whether in the lane.
        limits: What one request may take.
        serving_dir: Folder with what the operator tells.
        revision: Of the server.
        feature_store: Folder of ``feature_store.yaml``; None for a model that needs none.
        clock: What ages of features are measured by; None for the system's.
    """
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    settings = PredictorSettings(
        model=model, feature_store=feature_store, variant="v", revision=revision, hydration=Hydration(deadline_s=60.0)
    )
    predictor = await load(settings, clock=clock or SystemClock(), metrics=metrics)
    service = Service(None, "v", metrics)
    service.serve(_served(predictor, serving_dir))
    application = RestApplication(service, registry, limits, _nothing)
    opener: Callable[..., HttpProtocol] | None = partial(LaneProtocol, Lane(service, limits)) if lane else None
    return Stand(service, registry, HttpConnections(application, opener), reads_store=feature_store is not None)


def _served(predictor: Predictor, serving_dir: Path | None) -> Served:
    exposures, reporter = feedback_of(
        predictor, SystemClock(), serving_dir=serving_dir, spool_dir=None, spool_bytes=2**20, pace=Pace(interval_s=2.0)
    )
    return Served.of(predictor, exposures, lambda: reporter.report)


async def _nothing(*_: Any) -> None:
    raise AssertionError("KServe's pages were asked for")


def _answers(written: bytes) -> Iterable[tuple[int, tuple[bytes, ...], bytes]]:
    while (found := _ANSWER.match(written)) is not None:
        lines = found[2].split(b"\r\n")
        length = _LENGTH.search(found[2])
        end = found.end() + (int(length[1]) if length else 0)
        if len(written) < end:
            return
        # Tokens are never the same twice.
        kept = [line.partition(b": ")[0] if line.startswith(b"x-prediction-id") else line for line in lines]
        yield int(found[1]), tuple(line for line in kept if not line.startswith(b"date:")), written[found.end() : end]
        written = written[end:]
