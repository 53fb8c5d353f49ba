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
from fairlead_operator.core.signature import UNTOLD, signature_of
from fairlead_operator.platforms.local.processes import Process, ProcessRecord
from fairlead_operator.platforms.local.xds import Endpoint

REFUSED_EXIT_CODE = 3
"""A server ends so when model, contract or digest are not what it was told to serve."""

_PROBE_EVERY_S = 0.25
_PROBE_TIMEOUT_S = 1.5
"""Long, so that a busy server is not taken for a hung one; a hung one is still found within 2 s."""
_UNREADY_AFTER_S = 1.25
"""Time of bad answers, or of none, after which a server counts as not ready."""
_STEADY_AFTER_S = 30.0
"""Time in readiness after which earlier crashes no longer lengthen the pause."""
_DRAIN_PATIENCE_S = 12.0


@dataclass(frozen=True, slots=True)
class ServerTask:
    """What to run for a revision."""

    revision: str
    variant: str
    model_name: str
    prediction: str
    """Hash of what decides its predictions."""
    generation: int
    command: Sequence[str]
    """Program and arguments, without ports."""
    log: Path


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: each twice as long as the one before, up to a cap."""

    first_s: float
    cap_s: float

    def pause_s(self, failures: int) -> float:
        """Return the pause after ``failures`` failures in a row, at least one."""
        return float(min(self.first_s * 2.0 ** min(failures - 1, 32), self.cap_s))


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, and how soon it is started again."""

    crash: Backoff = Backoff(0.25, 15.0)
    refusal: Backoff = Backoff(5.0, 60.0)
    """A refused model may be mended where it lies; looking for that must cost next to nothing."""
    start_s: float = 120.0
    """Time without readiness after which a process that was just started is killed and started again."""
    hung_s: float = 20.0
    """Time without any answer after which a process that was ready is killed and started again."""


class LocalServer:
    """Keeps one server process running."""

    def __init__(
        self,
        task: ServerTask,
        *,
        moved: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
        patience: Patience = Patience(),
    ) -> None:
        """Describe the server; :meth:`run` starts it.

        Args:
            task: What to run.
            moved: Called when its endpoint is known, before it is probed; readiness waits for it.
            changed: Called when its health has changed.
            patience: How long it is waited for.
        """
        self.task = task
        self._moved = moved
        self._changed = changed
        self._patience = patience
        self._process: Process | None = None
        self._health = Health.STARTING
        self._failure: Failure | None = None
        self._restarts = 0
        self._contract_digest: str | None = None
        self.signature = UNTOLD
        """What its model takes and answers."""
        self._answered = 0.0
        self._killed: str | None = None
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
            prediction=self.task.prediction,
        )

    @property
    def record(self) -> ProcessRecord | None:
        """Its running process; None between two."""
        return self._process.record if self._process and self._process.alive else None

    async def run(self) -> None:
        """Keep the server running until this task is cancelled; a refused one is tried again now and then."""
        crashes = refusals = 0
        while True:
            started = time.monotonic()
            if await self._run_once() is Health.REFUSED:
                crashes, refusals = 0, refusals + 1
                await asyncio.sleep(_spread(self._patience.refusal.pause_s(refusals)))
            else:
                crashes = 1 if time.monotonic() - started > _STEADY_AFTER_S else crashes + 1
                refusals = 0
                await asyncio.sleep(_spread(self._patience.crash.pause_s(crashes)))
                self._restarts += 1
                self._health = Health.STARTING

    async def _run_once(self) -> Health:
        """Run one process to its end; return how the server is then. One that was refused stays so until ready."""
        http_port, grpc_port = free_ports(2)
        self.endpoint = Endpoint(http_port, grpc_port)
        ports = ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
        self._killed = None
        self._process = await Process.start(self.task.revision, [*self.task.command, *ports], log=self.task.log)
        await self._moved()
        probing = asyncio.create_task(self._probe(self._process, self.endpoint))
        try:
            code = await self._process.wait()
        finally:
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing
        return self._ended(self._process, code)

    async def stop(self) -> None:
        """End the process, letting it finish what is in flight."""
        if self._process is not None:
            await self._process.stop(_DRAIN_PATIENCE_S)

    def _ended(self, process: Process, code: int) -> Health:
        if code == REFUSED_EXIT_CODE:
            self._failure = Failure("ModelRefused", process.last_words() or "the server refused its model")
            self._become(Health.REFUSED)
        else:
            # What a process wrote before a signal ended it is not why it ended.
            how = f"signal {-code}" if code < 0 else f"exit code {code}; {process.last_words() or 'no output'}"
            self._failure = Failure("Crashed", f"{self._killed or how} (see {self.task.log})")
            self._become(Health.CRASHED)
        return self._health

    def _become(self, health: Health) -> None:
        if health is not self._health:
            self._health = health
            self._changed()

    async def _probe(self, process: Process, endpoint: Endpoint) -> None:
        begun = ready_at = time.monotonic()
        was_ready = False
        self._answered = begun
        base = f"http://127.0.0.1:{endpoint.http_port}"
        async with httpx.AsyncClient(base_url=base, timeout=_PROBE_TIMEOUT_S, trust_env=False) as client:
            while process.alive:
                sent = time.monotonic()
                if await self._is_ready(client, endpoint):
                    ready_at, was_ready = sent, True
                    self._become(Health.READY)
                elif not was_ready and time.monotonic() - begun >= self._patience.start_s:
                    await self._kill(process, f"killed: not ready within {self._patience.start_s:g}s of its start")
                elif self._health is Health.READY and time.monotonic() - ready_at >= _UNREADY_AFTER_S:
                    silent = f"no good answer from its readiness probe for {_UNREADY_AFTER_S:g}s"
                    self._failure = Failure("NotReady", f"{silent} (see {self.task.log})")
                    self._become(Health.UNREADY)
                elif self._health is Health.UNREADY and time.monotonic() - self._answered >= self._patience.hung_s:
                    await self._kill(process, f"killed: no answer for {self._patience.hung_s:g}s")
                await asyncio.sleep(max(0.0, sent + _PROBE_EVERY_S - time.monotonic()))

    async def _kill(self, process: Process, why: str) -> None:
        self._killed = why
        await process.kill()

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
                self.signature = signature_of(metadata) if isinstance(metadata, dict) else UNTOLD
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
    return digest if isinstance(digest, str) and digest else None


def _spread(pause_s: float) -> float:
    return pause_s * random.uniform(0.75, 1.25)  # noqa: S311 -- spreads restarts; nothing secret
