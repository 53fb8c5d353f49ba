"""The server's parts in this process: two models, the application, the lane, and connections of both gRPC engines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead.serving import FeedbackReport
from fairlead_server.exposure.assemble import feedback_of
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import load
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.protocol.grpc.connection import GrpcConnections, Lifetimes, limits_of
from fairlead_server.protocol.grpc.engines import maker_of
from fairlead_server.protocol.grpc.methods import InferenceMethods
from fairlead_server.protocol.http import HttpConnections
from fairlead_server.protocol.lane import Lane, LaneProtocol
from fairlead_server.protocol.port import Bounds, Door
from fairlead_server.protocol.rest import Answer, Limits, RestApplication
from fairlead_server.protocol.service import Served, Service, Version
from fuzz import models
from fuzz.wire import Wire

_BODY_BYTES = 2**20
_QUIET_TURNS = 6
_MOST_TURNS = 20_000
_PAUSE_S = 0.0005


class Unforeseen(Exception):
    """Something that no client may cause."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An HTTP answer, and the bytes after it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class _Errors(logging.Handler):
    """Keeps errors that were logged: a connection's top catches what nobody foresaw, and says so there."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


class Rig:
    """Everything that inputs are fed to; made once for a process."""

    def __init__(self, folder: Path) -> None:
        """Load the models; they are written to ``folder``."""
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._note)
        self._raised: list[BaseException | str] = []
        self._errors = _Errors()
        log = logging.getLogger("fairlead_server")
        log.addHandler(self._errors)
        log.propagate = False
        files = models.write(folder)
        self.sessions = {name: ort.InferenceSession(str(file)) for name, file in files.items()}
        self.run(self._load(files))

    async def _load(self, files: dict[str, Path]) -> None:
        self.metrics = ServerMetrics(CollectorRegistry())
        self.service = Service(None, "", self.metrics)
        self.service.begin()
        for name, file in files.items():
            predictor = await load(PredictorSettings(model=file), clock=SystemClock(), metrics=self.metrics)
            exposures, reporter = feedback_of(
                predictor, SystemClock(), serving_dir=None, spool_dir=None, spool_bytes=2**20, pace=Pace(interval_s=60)
            )
            self.service.put(name, {"1": Version(Served.of(predictor, exposures, partial(_report, reporter)))})
        self.limits = Limits(_BODY_BYTES, 30.0)
        self.rest = RestApplication(self.service, CollectorRegistry(), self.limits, _no_pages)
        self.methods = InferenceMethods(self.service)
        bounds = limits_of(_BODY_BYTES)
        self._grpc = {
            name: GrpcConnections(self.service, maker_of(name, bounds), bounds, Lifetimes()) for name in engines()
        }
        self._lane = Lane(self.service, self.limits)
        self._http = HttpConnections(self.rest, partial(LaneProtocol, self._lane))

    def run(self, awaited: Any) -> Any:
        """Run a coroutine to its end, and raise whatever happened beside it."""
        result = self.loop.run_until_complete(awaited)
        self.require_calm()
        return result

    def require_calm(self) -> None:
        """Check that no callback raised and no error was logged.

        Raises:
            Unforeseen: One was.
        """
        raised, self._raised = self._raised, []
        told, self._errors.told = self._errors.told, []
        for one in raised:
            if isinstance(one, BaseException):
                raise one
        if raised or told:
            raise Unforeseen("; ".join(map(str, [*raised, *told])))

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._raised.append(context.get("exception") or str(context.get("message")))

    def close(self) -> None:
        """End the loop."""
        self.loop.close()
        log = logging.getLogger("fairlead_server")
        log.removeHandler(self._errors)
        log.propagate = True

    # Ways in.

    def http(self) -> Wire:
        """Return a new connection to the HTTP port, with a lane that knows no forms any more."""
        self._lane.forget()
        return Wire(self._http.open())

    def either(self, engine: str) -> Wire:
        """Return a new connection to a port that takes both protocols."""
        return Wire(Door(self._http, self._grpc[engine], Bounds()).open())

    async def strictly(self, path: str, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
        """Return what the ordinary application answers to a POST."""
        scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.rest(scope, receive, send)
        return Answer(sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:]))

    async def quiet(self, wire: Wire) -> None:
        """Wait until nothing more is written."""
        still, size = 0, len(wire.written)
        while still < _QUIET_TURNS:
            await asyncio.sleep(0)
            still = still + 1 if len(wire.written) == size else 0
            size = len(wire.written)

    async def answer(self, wire: Wire) -> Heard:
        """Take one answer off a connection.

        Raises:
            Unforeseen: None came, and the connection stays open.
        """
        for turn in range(_MOST_TURNS):
            heard = _taken(wire.written)
            if heard is not None:
                return heard
            if wire.lost:
                break
            await asyncio.sleep(0 if turn < _QUIET_TURNS else _PAUSE_S)
        raise Unforeseen(f"no answer; written was {bytes(wire.written[:200])!r}")


def engines() -> tuple[str, ...]:
    """Return the gRPC engines that are here."""
    from fairlead_server.native import native  # noqa: PLC0415 -- looked at when asked

    return ("python",) if native is None else ("python", "native")


def _taken(written: bytearray) -> Heard | None:
    head, found, rest = bytes(written).partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.split(b"\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    length = int(headers.get(b"content-length", b"0"))
    if len(rest) < length:
        return None
    del written[: len(head) + 4 + length]
    return Heard(int(first.split()[1]), headers, rest[:length])


def _report(reporter: Reporter) -> FeedbackReport:
    return reporter.report


async def _no_pages(_scope: Any, _receive: Any, send: Any) -> None:
    with suppress(KeyError):
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
