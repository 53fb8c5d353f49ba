"""``/livez``, ``/readyz`` and ``/metrics`` on one port.

Live means that every part moves, by the clock: a process whose loop answers while its watches are deaf is not. A check
returns what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Check: TypeAlias = Callable[[], str | None]


class HealthServer:
    """Answers the kubelet and Prometheus while it is entered."""

    def __init__(
        self,
        *,
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
        registry: CollectorRegistry,
        host: str,
        port: int,
    ) -> None:
        """Make a server.

        Args:
            live: What must hold lest the process be restarted, by name.
            ready: What must hold before it counts as up, by name.
            registry: What /metrics shows.
            host: Address to listen on.
            port: 0 for any.
        """
        self._live = live
        self._ready = ready
        self._registry = registry
        self._host = host
        self._wanted_port = port
        app = web.Application()
        app.router.add_get("/livez", self._answer_live)
        app.router.add_get("/readyz", self._answer_ready)
        app.router.add_get("/metrics", self._answer_metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._runner.addresses[0][1]
        return port

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._wanted_port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _answer_live(self, _: web.Request) -> web.Response:
        return _answer(self._live)

    async def _answer_ready(self, _: web.Request) -> web.Response:
        return _answer(self._ready)

    async def _answer_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(checks: Mapping[str, Check]) -> web.Response:
    """Answer 200 and ``ok``, or 503 and what is wrong, a line each."""
    wrong = {name: problem for name, check in checks.items() if (problem := check()) is not None}
    lines = "".join(f"{name}: {problem}\n" for name, problem in wrong.items())
    return web.Response(text=lines or "ok\n", status=503 if wrong else 200)
