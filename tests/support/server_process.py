"""``python -m fairlead_server`` as a process of its own, on ports that the system chooses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fairlead.clock import ReplayClockWriter, to_us
from fairlead.contract import Contract
from fairlead.route import RouteKey
from support.models import contract_of, write_model
from support.predictors import HOUR, NOON
from support.store import FeatureRepo, make_repo

_LISTENING = re.compile(r"listening host=\S+ http_port=(\d+) grpc_port=(\d+)")
_PAUSE_S = 0.05

ROUTE_KEY = RouteKey("k1", b"0123456789abcdef")
"""The key that signs experiment headers."""

ROW: dict[str, Any] = {
    "origin": "EWR",
    "dest": "IAH",
    "tailnum": "N14228",
    "hour": 5,
    "weekday": 4,
    "distance": 1400.0,
}
"""A hydrated request's row; all its stored features but ``tail_performance`` are PRESENT."""

FULL_ROW: dict[str, Any] = {
    "origin_weather__temp": 40.5,
    "origin_weather__wind": 3.0,
    "tail_performance__mean_delay": -0.25,
    "tail_performance__flights": 2,
    "plane__seats": -3,
    "plane__maker": "BOEING",
    "plane__jet": True,
    "pair_performance__mean_delay": 0.5,
    "departure__evening": 0,
    "departure__distance_km": 0.25,
}
"""A full request's row."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a server is started with."""

    folder: Path
    repo: FeatureRepo
    contract: Contract
    model: Path
    digest: str

    @property
    def arguments(self) -> list[str]:
        clock = f"replay:{self.folder / 'clock'}"
        return ["--model", str(self.model), "--feature-store", str(self.repo.path), "--clock", clock]


def make_material(folder: Path) -> Material:
    """Make a repository with a few rows, a model for it, and a clock that stands at noon."""
    repo = make_repo(folder / "repo")
    repo.write("origin_weather", {"origin": "EWR"}, {"temp": 40.5, "wind": 3.0}, NOON - HOUR)
    repo.write("plane", {"tailnum": "N14228"}, {"seats": -3, "maker": "BOEING", "jet": True}, NOON - HOUR)
    repo.write("pair_performance", {"origin": "EWR", "dest": "IAH"}, {"mean_delay": 0.5}, NOON - HOUR)
    contract = contract_of(repo.describe())
    digest = write_model(folder / "model.onnx", contract)
    ReplayClockWriter(folder / "clock", to_us(NOON))
    return Material(folder, repo, contract, folder / "model.onnx", digest)


class ServerProcess:
    """A running server."""

    def __init__(
        self,
        folder: Path,
        arguments: list[str],
        *,
        command: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; its standard error goes to a file in ``folder``.

        Args:
            folder: Where it is started.
            arguments: Of ``python -m fairlead_server``, ports aside.
            command: What runs Python.
            environment: All its variables; None for those of this process.
        """
        self._log = folder / f"server-{time.monotonic_ns()}.log"
        ports = ["--http-port", "0", "--grpc-port", "0"]
        whole = [*command, "-m", "fairlead_server", *ports, *arguments]
        variables = os.environ if environment is None else environment
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(whole, stderr=log, stdout=log, cwd=folder, env=variables)
        self.http_port = 0
        self.grpc_port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_listening(self, timeout_s: float = 40) -> None:
        """Wait until its ports are open, and learn them."""
        self.wait_until(lambda: _LISTENING.search(self.log) is not None, timeout_s)
        found = _LISTENING.search(self.log)
        assert found is not None
        self.http_port, self.grpc_port = int(found[1]), int(found[2])

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until it says that it is ready."""
        self.wait_listening(timeout_s)
        self.wait_until(lambda: httpx.get(f"{self.url}/v2/health/ready", timeout=5).status_code == 200, timeout_s)

    def wait_ended(self, timeout_s: float = 40) -> int:
        """Wait until it has ended and return its exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_ended()

    def count(self, metric: str, **labels: str) -> float:
        """Return a sample of ``/metrics``; 0 if it was never counted."""
        wanted = {"model": "arrival-delay"} | labels
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            name, _, rest = line.partition("{")
            if name == metric and wanted.items() <= _labels(rest).items():
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait until ``condition`` holds; fails with the log if the server ends meanwhile."""
        end = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.log}")
            if time.monotonic() > end:
                raise TimeoutError(self.log)
            threading.Event().wait(_PAUSE_S)


def _labels(text: str) -> Mapping[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', text))


@contextmanager
def server_process(folder: Path, arguments: list[str]) -> Iterator[ServerProcess]:
    """Start a server and end it afterwards, whatever happened."""
    server = ServerProcess(folder, arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
