"""One server process: refused, mended, crashed, stuck; and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fairlead_operator.core.observed import Health
from fairlead_operator.platforms.local.server import Backoff, LocalServer, Patience, ServerTask
from support.envoy import ECHO, model, wait_until

PATIENCE = Patience(crash=Backoff(0.05, 0.1), refusal=Backoff(0.2, 0.2), start_s=30.0)


@contextlib.asynccontextmanager
async def kept(folder: Path, *arguments: str, patience: Patience = PATIENCE) -> AsyncIterator[LocalServer]:
    """Keep a server of the model ``m.onnx`` running."""
    described = model(folder, "m")
    command = [sys.executable, str(ECHO), "--model", str(folder / described["uri"]), "--model-name", "m"]
    command += ["--model-digest", described["digest"], "--host", "127.0.0.1", *arguments]
    task = ServerTask("m-1", "m", "m", "p", 1, command, folder / "m.log")

    async def moved() -> None:
        """Nobody routes to it."""

    server = LocalServer(task, moved=moved, changed=lambda: None, patience=patience)
    running = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await server.stop()


async def until(met: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, met, 10)


def message(server: LocalServer) -> str:
    failure = server.observed.failure
    return failure.message if failure else ""


async def test_a_server_whose_file_was_replaced_comes_back_when_the_file_does(tmp_path: Path) -> None:
    async with kept(tmp_path) as server:
        await until(lambda: server.observed.ready)
        (tmp_path / "m.onnx").write_bytes(b"trained again")
        assert server.record is not None
        os.kill(server.record.pid, signal.SIGKILL)
        await until(lambda: server.observed.health is Health.REFUSED)
        restarts, refused = server.observed.restarts, message(server)
        assert "digest is sha256:" in refused
        tried = (tmp_path / "m.log").read_text().count("digest is")
        await until(lambda: (tmp_path / "m.log").read_text().count("digest is") > tried)
        assert (server.observed.health, message(server)) == (Health.REFUSED, refused)
        (tmp_path / "m.onnx").write_bytes(b"m")
        await until(lambda: server.observed.ready)
        assert server.observed.restarts == restarts


async def test_what_a_server_logged_before_a_signal_is_not_told_as_the_cause(tmp_path: Path) -> None:
    async with kept(tmp_path, patience=Patience(crash=Backoff(5.0, 5.0))) as server:
        await until(lambda: server.observed.ready)
        with server.task.log.open("a") as log:
            log.write("INFO everything is fine\n")
        assert server.record is not None
        os.kill(server.record.pid, signal.SIGKILL)
        await until(lambda: server.observed.failure is not None)
        assert message(server) == f"signal 9 (see {server.task.log})"


async def test_a_server_that_never_gets_ready_is_killed_and_started_again(tmp_path: Path) -> None:
    impatient = Patience(crash=Backoff(0.05, 0.1), start_s=1.0)
    async with kept(tmp_path, "--ready-after", "3600", patience=impatient) as server:
        await until(lambda: server.observed.restarts > 0)
        assert message(server) == f"killed: not ready within 1s of its start (see {server.task.log})"


def test_pauses_double_up_to_a_cap() -> None:
    refusal = Patience().refusal
    assert [refusal.pause_s(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [5, 10, 20, 40, 60, 60]
