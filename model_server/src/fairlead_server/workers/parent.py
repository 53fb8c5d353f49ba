"""The parent: accepts connections, gives each to the worker that has the fewest, and keeps the workers running.

It imports nothing but the standard library (10 MiB), answers nothing itself, and touches a connection only while it is
handed over. A worker has a *slot*; one that ends before its time is started anew in the same, after a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from fairlead_server.workers.channel import ENVIRONMENT, Kind, Lines, Place, Port
from fairlead_server.workers.merging import Snapshot, ended

_AT_ONCE = 64
"""Connections that are accepted before the parent does anything else."""
_FULL_PAUSE_S = 0.01
"""Pause while no worker takes connections."""
_ANSWER_S = 1.0
"""Longest wait for a worker's snapshot; then its last one is taken."""
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_HEALTHY_S = 60.0
"""A worker that lived so long is started anew without a longer pause."""
_BEYOND_S = 5.0
"""Time beyond all deadlines after which a worker that should have ended is killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the parent is told, over its command line."""

    workers: int
    arguments: list[str]
    """Of ``python -m fairlead_server``; the workers'."""
    http_fd: int
    grpc_fd: int
    drain_delay_s: float
    drain_deadline_s: float
    """All that the workers may take to end."""


@dataclass(eq=False, slots=True)
class Worker:
    """One running worker."""

    slot: int
    process: subprocess.Popen[bytes]
    connections: socket.socket
    lines: Lines
    exited: asyncio.Future[int]
    started_s: float
    open: bool = False
    """Whether it answers connections."""
    loaded: bool = False
    retired: bool = False
    """Whether it should end."""
    sent: int = 0
    received: int = 0
    still_open: int = 0
    used: int = 0
    """Grows with each connection that any worker is given."""
    snapshot: Snapshot = field(default_factory=dict)
    shows: dict[int, asyncio.Future[None]] = field(default_factory=dict)

    @property
    def load(self) -> tuple[int, int]:
        """Connections that it has, and among equals how recently it was given one."""
        return self.still_open + self.sent - self.received, self.used


class Parent:
    """Runs until a signal to stop, or until the workers cannot be started."""

    def __init__(self, plan: Plan) -> None:
        """Take over the listening sockets; nothing runs yet."""
        self._plan = plan
        self._ports = {Port.HTTP: socket.socket(fileno=plan.http_fd), Port.GRPC: socket.socket(fileno=plan.grpc_fd)}
        self._workers: list[Worker] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ids = itertools.count()
        self._used = itertools.count(1)
        self._past: Snapshot = {}
        self._loaded_slots: set[int] = set()
        self._all_loaded = False
        self._accepting = False
        self._held: tuple[Port, socket.socket] | None = None
        self._pauses_s: dict[int, float] = {}
        self._stopping = asyncio.Event()
        self._rolling = False
        self._failure: tuple[int, str] | None = None

    async def run(self) -> int:
        """Serve, and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._keep(self._roll()))
        for port in self._ports.values():
            port.setblocking(False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        await asyncio.gather(*(self._start(slot) for slot in range(self._plan.workers)))
        await self._stopping.wait()
        await self._stop()
        if self._failure is None:
            return 0
        code, message = self._failure
        print(f"fairlead_server: {message}", file=sys.stderr)  # noqa: T201 -- the one line for whoever started it
        return code

    async def _start(self, slot: int) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        our_lines, their_lines = socket.socketpair()
        http, grpc = (self._ports[port].getsockname()[1] for port in (Port.HTTP, Port.GRPC))
        place = Place(slot, self._plan.workers, theirs.fileno(), their_lines.fileno(), http, grpc)
        with theirs, their_lines:
            process = subprocess.Popen(  # noqa: ASYNC220 -- it takes a millisecond, and the exit is awaited by a pidfd
                [sys.executable, "-m", "fairlead_server", *self._plan.arguments],
                env=os.environ | {ENVIRONMENT: place.encoded()},
                pass_fds=(theirs.fileno(), their_lines.fileno()),
            )
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        worker = Worker(slot, process, ours, await Lines.over(our_lines), loop.create_future(), time.monotonic())
        self._workers.append(worker)
        self._watch_exit(worker)
        self._keep(self._listen(worker))
        return worker

    def _watch_exit(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(worker.process.pid)

        def exited() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            worker.exited.set_result(worker.process.wait())

        loop.add_reader(descriptor, exited)

    async def _listen(self, worker: Worker) -> None:
        """Hear a worker out, until it has ended; then count what it leaves, and see whether it is missed."""
        async for line in worker.lines.heard():
            self._hear(worker, line)
        worker.open = worker.loaded = False
        worker.connections.close()
        code = await worker.exited
        self._workers.remove(worker)
        self._past = ended(self._past, worker.snapshot)
        for show in worker.shows.values():
            if not show.done():
                show.set_result(None)
        if not worker.retired and not self._stopping.is_set():
            await self._restart(worker, code)

    def _hear(self, worker: Worker, line: dict[str, Any]) -> None:
        match line["kind"]:
            case Kind.OPEN:
                worker.open = True
                self._accept()
            case Kind.LOADED:
                worker.loaded = True
                self._note_loaded(worker)
            case Kind.LEAVING:
                worker.open = worker.loaded = False
                worker.connections.close()
            case Kind.LOAD:
                worker.received, worker.still_open = line["received"], line["open"]
            case Kind.SHOWN:
                worker.snapshot = line["snapshot"]
                show = worker.shows.pop(line.get("id", -1), None)
                if show is not None and not show.done():
                    show.set_result(None)
            case Kind.ASK:
                worker.snapshot = line["snapshot"]
                self._keep(self._tell(worker, line["id"]))
            case Kind.FAILED if not self._all_loaded:
                self._failure = self._failure or (line["code"], line["message"])
                self._stopping.set()

    def _note_loaded(self, worker: Worker) -> None:
        self._loaded_slots.add(worker.slot)
        if len(self._loaded_slots) < self._plan.workers:
            return
        self._all_loaded = True
        for other in self._workers:
            other.lines.say(Kind.ALL_LOADED)

    async def _tell(self, asking: Worker, number: int) -> None:
        """Tell a worker how the others are; whatever is told is kept, so that what is counted never gets less."""
        others = [worker for worker in self._workers if worker is not asking and worker.open]
        shows = [self._shown(worker) for worker in others]
        if shows:
            await asyncio.wait(shows, timeout=_ANSWER_S)
        snapshots = [worker.snapshot for worker in self._workers if worker is not asking and worker.snapshot]
        asking.lines.say(Kind.OTHERS, id=number, snapshots=snapshots, ended=self._past)

    def _shown(self, worker: Worker) -> asyncio.Future[None]:
        number = next(self._ids)
        show = worker.shows[number] = asyncio.get_running_loop().create_future()
        worker.lines.say(Kind.SHOW, id=number)
        return show

    async def _restart(self, worker: Worker, code: int) -> None:
        lived_s = time.monotonic() - worker.started_s
        pause_s = _FIRST_PAUSE_S if lived_s > _HEALTHY_S else self._pauses_s.get(worker.slot, _FIRST_PAUSE_S)
        self._pauses_s[worker.slot] = min(2 * pause_s, _LONGEST_PAUSE_S)
        pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 -- jitter is no secret
        _log(
            "warning", "worker ended", slot=worker.slot, code=code, lived_s=round(lived_s, 1), pause_s=round(pause_s, 2)
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
                return
        await self._start(worker.slot)

    async def _roll(self) -> None:
        """Replace the workers one after another: each new one is loaded before an old one drains."""
        if self._rolling:
            return
        self._rolling = True
        try:
            for old in list(self._workers):
                new = await self._start(old.slot)
                while not (new.loaded or new.exited.done() or self._stopping.is_set()):
                    await asyncio.wait({new.exited}, timeout=_FULL_PAUSE_S)
                if not new.loaded:
                    _log("error", "rolling restart given up", slot=old.slot)
                    return
                old.retired = True
                old.open = old.loaded = False
                old.connections.close()
                await old.exited
        finally:
            self._rolling = False

    def _accept(self) -> None:
        """Accept connections, from now on."""
        if self._accepting or self._ports[Port.HTTP].fileno() < 0:
            return
        self._accepting = True
        for port, listening in self._ports.items():
            asyncio.get_running_loop().add_reader(listening, self._take, port)

    def _pause(self) -> None:
        """Leave connections in the queue of the system until a worker takes them."""
        self._accepting = False
        for listening in self._ports.values():
            asyncio.get_running_loop().remove_reader(listening)
        asyncio.get_running_loop().call_later(_FULL_PAUSE_S, self._resume)

    def _resume(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._hand_over(*held):
            return
        self._accept()

    def _take(self, port: Port) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._ports[port].accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._pause()  # out of descriptors
                return
            if not self._hand_over(port, accepted):
                return

    def _hand_over(self, port: Port, accepted: socket.socket) -> bool:
        """Give a connection to the worker that has the fewest; False if none takes it, and it is held."""
        able = [worker for worker in self._workers if worker.loaded] or [one for one in self._workers if one.open]
        for worker in sorted(able, key=lambda worker: worker.load):
            try:
                socket.send_fds(worker.connections, [port.encode()], [accepted.fileno()])
            except OSError:
                continue  # it has ended, or has not taken many that it was given before
            worker.sent += 1
            worker.used = next(self._used)
            accepted.close()
            return True
        self._held = (port, accepted)
        self._pause()
        return False

    async def _stop(self) -> None:
        """End the workers: not ready at once, connections as long as the delay says, then what is in flight."""
        plan = self._plan
        for worker in self._workers:
            worker.process.send_signal(signal.SIGTERM)
        if plan.drain_delay_s and self._failure is None:
            await asyncio.sleep(min(plan.drain_delay_s, plan.drain_deadline_s))
        for listening in self._ports.values():
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        for worker in self._workers:
            worker.connections.close()
        left = {worker.exited for worker in self._workers}
        if left:
            await asyncio.wait(left, timeout=plan.drain_deadline_s + _BEYOND_S)
        for worker in self._workers:
            if not worker.exited.done():
                _log("error", "worker killed that did not end", slot=worker.slot)
                worker.process.kill()
                await worker.exited

    def _keep(self, running: Any) -> None:
        task = asyncio.ensure_future(running)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _log(level: str, message: str, **fields: Any) -> None:
    """Write one line, as ``fairlead_server.logs`` does."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    text = " ".join(f"{name}={value}" for name, value in fields.items())
    print(f"time={moment}.000Z level={level} {message} {text}", file=sys.stderr, flush=True)  # noqa: T201 -- the log


def run(plan: Plan) -> int:
    """Run the parent and return its exit code."""
    return asyncio.run(Parent(plan).run())
