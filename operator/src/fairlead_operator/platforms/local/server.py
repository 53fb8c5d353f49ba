"""One revision's server on this machine: started, probed, restarted when it crashes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fairlead_operator.core.observed import Failure, Health, Server
from fairlead_operator.platforms.local.processes import Process, ProcessRecord
from fairlead_operator.platforms.local.xds import Endpoint

REFUSED_EXIT_CODE = 3
"""A server ends so when model, contract or digest are not what it was told to serve."""

_PROBE_EVERY_S = 0.25
_PROBE_TIMEOUT_S = 1.5
"""Long, so that a busy server is not taken for a hung one; a hung one is still found within 2 s."""
_UNREADY_AFTER_S = 1.25
"""Time of bad answers, or of none, after which a server counts as not ready."""
_HUNG_AFTER_S = 20.0
"""Time without any answer after which a process that was ready is killed and started again."""
_BACKOFF_S = 0.25
_BACKOFF_CAP_S = 15.0
_STEADY_AFTER_S = 30.0
"""Time in readiness after which earlier crashes no longer lengthen the pause."""
_DRAIN_PATIENCE_S = 12.0


@dataclass(frozen=True, slots=True)
class ServerTask:
    """What to run for a revision."""

    revision: str
    variant: str
    model_name: str
    generation: int
    command: Sequence[str]
    """Program and arguments, without ports."""
    log: Path


class LocalServer:
    """Keeps one server process running."""

    def __init__(self, task: ServerTask, *, moved: Callable[[], Awaitable[None]], changed: Callable[[], None]) -> None:
        """Describe the server; :meth:`run` starts it.

        Args:
            task: What to run.
            moved: Called when its endpoint is known, before it is probed; readiness waits for it.
            changed: Called when its health has changed.
        """
        self.task = task
        self._moved = moved
        self._changed = changed
        self._process: Process | None = None
        self._health = Health.STARTING
        self._failure: Failure | None = None
        self._restarts = 0
        self._contract_digest: str | None = None
        self._answered = 0.0
        self.endpoint: Endpoint | None = None
        """Where it listens; None before its first start."""

    @property
    def observed(self) -> Server:
        """How it is."""
        alive = self._process is not None and self._process.alive
        lost = self._health in {Health.READY, Health.UNREADY} and not alive
        return Server(
            revision=self.task.revision,
            variant=self.task.variant,
            health=Health.CRASHED if lost else self._health,
            generation=self.task.generation,
            restarts=self._restarts,
            contract_digest=self._contract_digest,
            failure=self._failure,
        )

    @property
    def record(self) -> ProcessRecord | None:
        """Its running process; None between two."""
        return self._process.record if self._process and self._process.alive else None

    async def run(self) -> None:
        """Keep the server running until it refuses its model or this task is cancelled."""
        crashes = 0
        while True:
            self._health = Health.STARTING
            http_port, grpc_port = free_ports(2)
            self.endpoint = Endpoint(http_port, grpc_port)
            ports = ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
            started = time.monotonic()
            self._process = await Process.start(self.task.revision, [*self.task.command, *ports], log=self.task.log)
            await self._moved()
            probing = asyncio.create_task(self._probe(self._process, self.endpoint))
            try:
                code = await self._process.wait()
            finally:
                probing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await probing
            if self._ended(self._process, code) is Health.REFUSED:
                return
            crashes = 1 if time.monotonic() - started > _STEADY_AFTER_S else crashes + 1
            await asyncio.sleep(_pause_s(crashes))
            self._restarts += 1

    async def stop(self) -> None:
        """End the process, letting it finish what is in flight."""
        if self._process is not None:
            await self._process.stop(_DRAIN_PATIENCE_S)

    def _ended(self, process: Process, code: int) -> Health:
        words = process.last_words()
        if code == REFUSED_EXIT_CODE:
            self._failure = Failure("ModelRefused", words or "the server refused its model")
            self._become(Health.REFUSED)
        else:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._failure = Failure("Crashed", f"{how}; {words or 'no output'} (see {self.task.log})")
            self._become(Health.CRASHED)
        return self._health

    def _become(self, health: Health) -> None:
        if health is not self._health:
            self._health = health
            self._changed()

    async def _probe(self, process: Process, endpoint: Endpoint) -> None:
        ready_at = time.monotonic()
        self._answered = ready_at
        base = f"http://127.0.0.1:{endpoint.http_port}"
        async with httpx.AsyncClient(base_url=base, timeout=_PROBE_TIMEOUT_S, trust_env=False) as client:
            while process.alive:
                sent = time.monotonic()
                if await self._is_ready(client, endpoint):
                    ready_at = sent
                    self._become(Health.READY)
                elif self._health is Health.READY and time.monotonic() - ready_at >= _UNREADY_AFTER_S:
                    silent = f"no good answer from its readiness probe for {_UNREADY_AFTER_S:g}s"
                    self._failure = Failure("NotReady", f"{silent} (see {self.task.log})")
                    self._become(Health.UNREADY)
                elif self._health is Health.UNREADY and time.monotonic() - self._answered >= _HUNG_AFTER_S:
                    await process.kill()
                await asyncio.sleep(max(0.0, sent + _PROBE_EVERY_S - time.monotonic()))

    async def _is_ready(self, client: httpx.AsyncClient, endpoint: Endpoint) -> bool:
        model = f"/v2/models/{self.task.model_name}"
        try:
            answer = await client.get(f"{model}/ready")
            self._answered = time.monotonic()
            if answer.status_code != httpx.codes.OK:
                return False
            if self._health is not Health.READY:
                await _connect(endpoint.grpc_port)
                metadata = (await client.get(model)).json()
                self._contract_digest = _contract_digest(metadata)
        except (httpx.HTTPError, OSError, TimeoutError, ValueError):
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return ``count`` TCP ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def _connect(port: int) -> None:
    async with asyncio.timeout(_PROBE_TIMEOUT_S):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def _contract_digest(metadata: Any) -> str | None:
    parameters = metadata.get("parameters") if isinstance(metadata, dict) else None
    digest = parameters.get("contract_digest") if isinstance(parameters, dict) else None
    return digest if isinstance(digest, str) else None


def _pause_s(crashes: int) -> float:
    exact = min(_BACKOFF_S * 2.0 ** (crashes - 1), _BACKOFF_CAP_S)
    return exact * random.uniform(0.75, 1.25)  # noqa: S311 -- spreads restarts; nothing secret
