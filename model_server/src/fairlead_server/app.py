"""The server process: KServe's model server with our model, our routes in front, readiness and a clean end.

The ports open before the model is loaded and answer "not ready" meanwhile, so that probes and clients see a server
that starts rather than one that is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import math
import signal
import socket
from collections.abc import Iterator
from typing import Any

import grpc.aio
import kserve
import kserve.model_server
import uvicorn
import uvloop
from kserve.protocol.rest.server import RESTServer
from prometheus_client import CollectorRegistry
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fairlead.clock import Clock
from fairlead_server import logs
from fairlead_server.exposure.assemble import feedback_of
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.protocol import v1
from fairlead_server.protocol.grpc.server import make_server
from fairlead_server.protocol.rest import Limits, RestApplication
from fairlead_server.protocol.service import Served, Service
from fairlead_server.settings import Settings

_LOG = logging.getLogger(__name__)
_KEEP_ALIVE_S = 65


class FairleadModel(kserve.Model):  # type: ignore[misc]  # kserve has no types
    """The model as KServe's repository and data plane know it."""

    def __init__(self, name: str, service: Service) -> None:
        """Make the model.

        Args:
            name: Name that clients call it by.
            service: What answers.
        """
        super().__init__(name)
        self._service = service

    async def healthy(self) -> bool:
        """Return whether requests should be sent here."""
        return self._service.not_ready_reason is None

    async def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> Any:
        """Answer a V1 request that came through KServe's own data plane.

        Raises:
            RequestError: The request is refused, or failed.
        """
        del headers, response_headers
        served = self._service.served()
        request = v1.of_content(payload, served.schema)
        return v1.content_of(await served.predictor.predict(request, served.predictor.metrics.timer()))


class FairleadServer(kserve.ModelServer):  # type: ignore[misc]  # kserve has no types
    """KServe's model server, with our protocols and our life cycle."""

    def __init__(self, settings: Settings, rest_socket: socket.socket, clock: Clock) -> None:
        """Make the server.

        Args:
            settings: What the command line says.
            rest_socket: Where REST listens; closed at the end.
            clock: What ages of features are measured by.
        """
        super().__init__(
            http_port=rest_socket.getsockname()[1],
            grpc_port=settings.grpc_port,
            enable_latency_logging=False,
            event_loop="uvloop",
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        logs.configure()  # kserve's constructor has put its own handlers in place
        self._settings = settings
        self._rest_socket = rest_socket
        self._clock = clock
        self._registry = CollectorRegistry()
        self._metrics = ServerMetrics(self._registry)
        self._service = Service(settings.model_name, settings.variant, self._metrics)
        self._reporter: Reporter | None = None

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
        settings = self._settings
        grpc_server, grpc_port = make_server(self._service, settings.host, settings.grpc_port, settings.max_body_bytes)
        rest_server = self._rest()
        serving = asyncio.create_task(rest_server.serve(sockets=[self._rest_socket]))
        await grpc_server.start()
        _LOG.info("listening host=%s http_port=%d grpc_port=%d", settings.host, self.http_port, grpc_port)
        try:
            await self._until_stopped(stop)
        finally:
            await self._drain(rest_server, serving, grpc_server)

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        """Load the model and serve it until ``stop`` is set, or loading fails."""
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            await stopping
        loading.cancel()
        await asyncio.wait({loading})

    async def _load(self) -> None:
        settings = self._settings
        # Feast takes 2 s to import; in a thread, so that probes are answered meanwhile.
        loader: Any = await asyncio.to_thread(importlib.import_module, "fairlead_server.predict.load")
        predictor = await loader.load(predictor_settings(settings), clock=self._clock, metrics=self._metrics)
        exposures, reporter = feedback_of(
            predictor,
            self._clock,
            serving_dir=settings.serving_dir,
            spool_dir=settings.spool_dir,
            spool_bytes=settings.spool_bytes,
            pace=Pace(interval_s=settings.report_interval_s),
        )
        self.register_model(FairleadModel(predictor.model_name, self._service))
        loader.freeze_memory()
        gc.enable()  # off since the process started
        self._service.serve(Served.of(predictor, exposures, lambda: reporter.report))
        self._reporter = reporter
        reporter.start()
        _LOG.info(
            "loaded model=%s version=%s variant=%s revision=%s digest=%s ready=%s degraded=%s",
            predictor.model_name,
            predictor.contract.version,
            predictor.variant,
            predictor.revision,
            predictor.model_digest,
            predictor.ready,
            predictor.degraded,
        )

    async def _drain(
        self, rest_server: uvicorn.Server, serving: asyncio.Task[None], grpc_server: grpc.aio.Server
    ) -> None:
        self._service.drain()
        _LOG.info("stopping deadline_s=%g", self._settings.drain_deadline_s)
        rest_server.should_exit = True
        await asyncio.gather(serving, grpc_server.stop(grace=self._settings.drain_deadline_s))
        if self._reporter is not None:
            await self._reporter.close(self._settings.flush_deadline_s)
        await self._service.close()
        _LOG.info("stopped")

    def _rest(self) -> uvicorn.Server:
        kserve_rest = RESTServer(
            kserve.model_server.app, self.dataplane, self.model_repository_extension, self.http_port
        )
        kserve_rest.create_application()
        limits = Limits(self._settings.max_body_bytes, self._settings.body_deadline_s)
        application = RestApplication(self._service, self._registry, limits, kserve.model_server.app)
        return _RestServer(
            uvicorn.Config(
                application,
                http=_HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(self._settings.drain_deadline_s),
            )
        )


def predictor_settings(settings: Settings) -> PredictorSettings:
    """Return what the predictor is started with."""
    return PredictorSettings(
        model=settings.model,
        feature_store=settings.feature_store,
        model_name=settings.model_name,
        model_digest=settings.model_digest,
        variant=settings.variant,
        revision=settings.revision,
        hydration=settings.hydration,
        startup_deadline_s=settings.startup_deadline_s,
        registry_refresh_s=settings.registry_refresh_s,
    )


class _RestServer(uvicorn.Server):
    """Uvicorn's server without its own signal handling, which would end the process before it has drained."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


class _HttpProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1, with our shape of a refusal for what is no HTTP."""

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not an HTTP request."""
        body = b'{"error":"%s"}' % msg.encode("ascii", "replace")
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()
