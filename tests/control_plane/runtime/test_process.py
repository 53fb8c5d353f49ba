"""The operator as a process: its flags, its signals, its exit codes, and what it takes at scale."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairlead_operator.__main__ import main
from support.kube import KubeApiServer
from support.operator_process import OperatorProcess, start
from support.operators import model_deployment
from support.scale import measured
from support.waiting import until

LEASE_FLAGS = ("--lease-duration-s", "1.5", "--lease-renew-deadline-s", "1", "--lease-retry-s", "0.1")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def process_of(mode: str, kubeconfig: Path, *flags: str) -> AsyncIterator[OperatorProcess]:
    process = await start(mode, kubeconfig, free_port(), *LEASE_FLAGS, *flags)
    try:
        yield process
    finally:
        if process.process.returncode is None:
            process.process.kill()
            await process.process.wait()


def writers(server: KubeApiServer) -> list[str]:
    """Return who wrote a mark, in order, repetitions left out."""
    bodies = [record.call.body.decode() for record in server.changes if record.call.plural == "configmaps"]
    names = [name for body in bodies for name in ("first", "second") if f'"{name} ' in body]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


async def test_sigterm_ends_it_in_good_order(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(model_deployment("delay"))
    kubeconfig = server.kubeconfig(tmp_path)
    async with process_of("writing", kubeconfig, "--pod-name", "first", "--shutdown-s", "1") as process:
        await until(lambda: bool(writers(server)), timeout_s=20)
        assert (await process.ask("livez"))[0] == 200
        begun = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert await process.process.wait() == 0
        assert time.monotonic() - begun < 10
        lease = server.get("Lease", "default", "fairlead-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == ""
        assert server.open_watches == []


async def test_a_process_stopped_past_its_lease_and_resumed_writes_nothing(
    server: KubeApiServer, tmp_path: Path
) -> None:
    server.create(model_deployment("delay"))
    kubeconfig = server.kubeconfig(tmp_path)
    async with process_of("writing", kubeconfig, "--pod-name", "first") as first:
        await until(lambda: writers(server) == ["first"], timeout_s=20)
        async with process_of("writing", kubeconfig, "--pod-name", "second"):
            first.process.send_signal(signal.SIGSTOP)
            await until(lambda: writers(server) == ["first", "second"], timeout_s=20)
            first.process.send_signal(signal.SIGCONT)
            await asyncio.sleep(2)
            assert writers(server) == ["first", "second"]
            assert first.process.returncode is None
            assert "fairlead_leader 0.0" in (await first.ask("metrics"))[1]


async def test_it_ends_with_1_and_says_why_without_credentials(tmp_path: Path) -> None:
    process = await start("idle", tmp_path / "none", free_port(), output=subprocess.PIPE)
    _, said = await process.process.communicate()
    assert process.process.returncode == 1
    assert b"--kubeconfig" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--workers", "0"], 2, "--workers"),
        (["run", "--lease-duration-s", "5"], 2, "lease_renew_deadline_s < lease_duration_s"),
        (["run", "--server-image", "x:1"], 2, "{release}"),
        (["walk"], 2, "usage"),
        (["--help"], 0, "usage"),
    ],
)
def test_flags_are_checked_before_anything_starts(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = main(arguments)
    except SystemExit as ended:
        returned = int(str(ended.code))
    assert returned == code
    assert said in capsys.readouterr().err


def test_the_module_explains_its_flags() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fairlead_operator", "run", "--help"], check=True, capture_output=True, text=True
    )
    assert "FAIRLEAD_OPERATOR_NAMESPACES" in done.stdout


async def test_a_thousand_deployments_are_known_soon_and_in_little_memory(tmp_path: Path) -> None:
    figures = await measured(tmp_path, deployments=1000, settle_s=0.5, steady_s=0.5)
    assert figures.stored_objects == 1000 * 13
    assert figures.cold_start_s < 30
    assert figures.most_mib < 300
