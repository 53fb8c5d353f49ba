"""The server process: opens its ports, loads its models, serves them until it is told to stop, and drains.

The ports open before the model is loaded and answer "not ready" meanwhile, so that probes and clients see a server
that starts rather than one that is not there.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
from collections.abc import Callable, Sequence
from functools import partial

import uvloop
from prometheus_client import CollectorRegistry

from fairlead.clock import Clock
from fairlead_server import logs
from fairlead_server.draining import Drain, drain
from fairlead_server.listening import Entrance, Ways
from fairlead_server.loading import Reporting, load
from fairlead_server.metrics import ServerMetrics
from fairlead_server.protocol.connections import Drained
from fairlead_server.protocol.grpc.connection import GrpcConnections, Lifetimes, limits_of
from fairlead_server.protocol.grpc.engines import chosen, maker_of
from fairlead_server.protocol.http import HttpConnections
from fairlead_server.protocol.kserve_pages import KServePages
from fairlead_server.protocol.lane import Lane, LaneProtocol
from fairlead_server.protocol.port import Bounds, Door
from fairlead_server.protocol.rest import Limits, RestApplication
from fairlead_server.protocol.service import Service
from fairlead_server.settings import Settings
from fairlead_server.sockets import room_for

_LOG = logging.getLogger(__name__)


class ServerProcess:
    """One process that serves models."""

    def __init__(self, settings: Settings, entrance: Entrance, clock: Clock) -> None:
        """Make the process' parts; nothing runs yet.

        Args:
            settings: What the command line says.
            entrance: Where connections come from.
            clock: What ages of features are measured by.
        """
        logs.configure()
        self._settings = settings
        self._entrance = entrance
        self._clock = clock
        self._registry = CollectorRegistry()
        self._metrics = ServerMetrics(self._registry)
        self._service = Service(settings.model_name, settings.variant, self._metrics)
        self._reporting: Reporting | None = None

    def run(self) -> None:
        """Serve until a signal to stop.

        Raises:
            StartupError: The model cannot be served, or the gRPC port is taken.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        ways = await self._listen(stop.set)
        try:
            await self._until_stopped(stop)
        finally:
            await self._stop(ways)

    async def _listen(self, stop: Callable[[], None]) -> Sequence[Drained]:
        """Answer connections from now on, and return every way in."""
        settings = self._settings
        limits = Limits(settings.max_body_bytes, settings.body_deadline_s)
        others = self._entrance.others(self._service, self._registry)
        application = RestApplication(self._service, self._registry, limits, KServePages(self._service), others)
        http = HttpConnections(application, partial(LaneProtocol, Lane(self._service, limits)))
        room = Bounds(connections=room_for(settings.max_connections))
        engine = chosen(settings.grpc_engine)
        if engine == "grpcio":
            grpcio = importlib.import_module("fairlead_server.protocol.grpc.grpcio")
            server = grpcio.GrpcioServer(
                self._service, settings.host, self._entrance.release_grpc(), settings.max_body_bytes
            )
            await self._let_in(Door(http, None, room), stop, grpc=False)
            await server.start()
            self._log_listening(engine, server.port)
            return http, server
        bounds = limits_of(settings.max_body_bytes)
        lifetimes = Lifetimes(age_s=settings.grpc_max_age_s, grace_s=settings.drain_deadline_s)
        grpc = GrpcConnections(self._service, maker_of(engine, bounds), bounds, lifetimes)
        await self._let_in(Door(http, grpc, room), stop, grpc=True)
        self._log_listening(engine, self._entrance.grpc_port)
        return http, grpc

    async def _let_in(self, door: Door, stop: Callable[[], None], *, grpc: bool) -> None:
        """Let connections in; ``grpc`` says whether those to gRPC's port come through this door too."""
        door.watch(self._registry)
        await self._entrance.open(Ways(door.open, door.open if grpc else None, lambda: door.count, stop))

    def _log_listening(self, engine: str, grpc_port: int) -> None:
        host, http_port = self._settings.host, self._entrance.http_port
        _LOG.info("listening host=%s http_port=%d grpc_port=%d grpc_engine=%s", host, http_port, grpc_port, engine)

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        """Load the models and serve them until ``stop`` is set, or loading fails."""
        loading = asyncio.create_task(load(self._settings, self._clock, self._metrics, self._service))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            self._reporting = loading.result()
            self._entrance.ready()
            await stopping
        loading.cancel()
        await asyncio.wait({loading})

    async def _stop(self, ways: Sequence[Drained]) -> None:
        settings = self._settings
        _LOG.info("stopping deadline_s=%g", settings.drain_deadline_s)
        await drain(self._service, self._entrance, ways, Drain(settings.drain_delay_s, settings.drain_deadline_s))
        if self._reporting is not None:
            await self._reporting.close(settings.flush_deadline_s)
        await self._service.close()
        await self._entrance.finish()
        _LOG.info("stopped")
