"""The local platform: what the core's actions mean on one machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.experiment.design import Design
from fairlead_operator.core.desired import Revision
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.plan import (
    Action,
    InstallFilter,
    ProveFilter,
    RemoveFilter,
    ScaleServer,
    StartServer,
    StopServer,
    WriteRoute,
)
from fairlead_operator.core.signature import Signature, misfit
from fairlead_operator.errors import GatewayError
from fairlead_operator.platforms.local.envoy import Gateway
from fairlead_operator.platforms.local.processes import ProcessRecord
from fairlead_operator.platforms.local.server import LocalServer, ServerTask
from fairlead_operator.platforms.local.state import State


@dataclass(frozen=True, slots=True)
class ServerSetup:
    """How servers are started here."""

    command: Sequence[str]
    """Program and first arguments, such as ``python -m fairlead_server``."""
    clock: str
    """``system`` or ``replay:FILE``."""
    resolve: Callable[[str], Path]
    """What a URI reference of the manifest means on this machine."""


@dataclass(frozen=True, slots=True)
class _Running:
    server: LocalServer
    task: asyncio.Task[None]


class LocalPlatform:
    """Server processes and one Envoy."""

    def __init__(
        self,
        *,
        state: State,
        gateway: Gateway,
        setup: ServerSetup,
        remember: Callable[[tuple[ProcessRecord, ...]], None],
        design: Callable[[], Design | None] = lambda: None,
    ) -> None:
        """Describe the platform; :meth:`start` starts its gateway.

        Args:
            state: Where logs and what servers read live.
            gateway: The Envoy that is not started yet.
            setup: How servers are started.
            remember: Called with all running processes whenever they change.
            design: Gives the design of the experiment, if one is judged: what servers tell of their models is held
                against it.
        """
        self._design = design
        self._state = state
        self._gateway = gateway
        self._setup = setup
        self._remember = remember
        self._servers: dict[str, _Running] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._draining: dict[LocalServer, str] = {}
        self._event = asyncio.Event()

    async def start(self) -> None:
        """Start the gateway.

        Raises:
            GatewayError: It does not come up.
        """
        await self._gateway.start(self._event.set)
        self._record()

    async def observe(self) -> Observed:
        """Return the world as it is now; what changes from here on is announced by :meth:`changed`."""
        self._event.clear()
        for running in self._servers.values():
            if running.task.done():
                running.task.result()  # it ends only by a fault of ours, which is raised here
        servers = {name: running.server.observed for name, running in self._servers.items()}
        wrong = misfit(self._design(), self._signatures())
        return Observed(servers, self._gateway.route, problems=() if wrong is None else (wrong,))

    def _signatures(self) -> dict[str, Signature]:
        """Return what models take and answer, by revision and by variant."""
        known = [running.server for running in self._servers.values()]
        by_variant = {server.task.variant: server.signature for server in known}
        return {server.task.revision: server.signature for server in known} | by_variant

    async def apply(self, action: Action) -> None:
        """Carry out one action; see ``Platform.apply``."""
        match action:
            case StartServer(revision, generation, _):
                self._start(revision, generation)
            case WriteRoute(route):
                if self._gateway.record is None:
                    await self.start()
                await self._write_endpoints()
                await self._gateway.write_route(route)
            case StopServer(name):
                self._stop(name)
            case ScaleServer() | InstallFilter() | ProveFilter() | RemoveFilter():
                raise AssertionError(f"{action}: one process each, and a gateway that keeps the law by itself")

    async def changed(self, timeout_s: float) -> bool:
        """Wait until something observable has changed, at most ``timeout_s`` seconds; return whether it has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        return self._event.is_set()

    def wake(self) -> None:
        """Have the world looked at again, as if something in it had changed."""
        self._event.set()

    async def stop(self) -> None:
        """Drain the gateway, then end every process."""
        await self._gateway.stop()
        for name in list(self._servers):
            self._stop(name)
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        self._record()

    def _start(self, revision: Revision, generation: int) -> None:
        if revision.name in self._servers:  # it was refused, and waits to be tried again
            self._stop(revision.name)
        server = LocalServer(
            ServerTask(
                revision=revision.name,
                variant=revision.variant,
                model_name=revision.model_name,
                prediction=revision.prediction,
                generation=generation,
                command=self._command(revision),
                log=self._state.logs / f"{revision.name}.log",
            ),
            moved=self._moved,
            changed=self._turned,
        )
        self._servers[revision.name] = _Running(server, asyncio.create_task(server.run()))

    def _stop(self, name: str) -> None:
        running = self._servers.pop(name)
        self._draining[running.server] = name
        self._in_background(self._take_down(name, running))

    async def _take_down(self, name: str, running: _Running) -> None:
        if self._gateway.record is not None and name not in self._servers:
            await self._gateway.drained(name, deadline_s=10.0)
        running.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running.task
        await running.server.stop()
        del self._draining[running.server]
        await self._moved()

    def _turned(self) -> None:
        """Note that a server's health has changed, and with it perhaps which processes run."""
        self._record()
        self._event.set()

    async def _moved(self) -> None:
        """Tell the gateway where servers are now, and remember which processes run."""
        self._record()
        if self._gateway.record is not None:
            # The next route is written only after the same endpoints, so that a failure here is met again there.
            with contextlib.suppress(GatewayError):
                await self._write_endpoints()
        self._event.set()

    async def _write_endpoints(self) -> None:
        known = [*((name, server) for server, name in self._draining.items())]
        known += [(name, running.server) for name, running in self._servers.items()]
        await self._gateway.write_endpoints({name: server.endpoint for name, server in known if server.endpoint})

    def _record(self) -> None:
        servers = [*(running.server for running in self._servers.values()), *self._draining]
        records = [self._gateway.record, *(server.record for server in servers)]
        self._remember(tuple(record for record in records if record))

    def _command(self, revision: Revision) -> list[str]:
        return [
            *self._setup.command,
            *("--model", str(self._setup.resolve(revision.model.uri))),
            *("--feature-store", str(self._setup.resolve(revision.feature_store.path or ""))),
            *("--model-name", revision.model_name),
            *("--model-digest", revision.model.digest),
            *("--variant", revision.variant),
            *("--revision", revision.name),
            *("--host", "127.0.0.1"),
            *("--hydration", revision.hydration.model_dump_json()),
            *("--serving-dir", str(self._state.serving)),
            *("--spool-dir", str(self._state.spool / revision.name)),
            *("--clock", self._setup.clock),
        ]

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
