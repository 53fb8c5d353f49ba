"""Servers as they run: started pinned to one CPU, frozen while others are measured, ended with all their processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.environments import NotInstalled, python_of
from bench.native import native_server
from bench.ours import write_serving
from bench.paths import BUILD, LOGS, PEERS, ROOT
from bench.systems import System

_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr crit;
events {{}}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{http}; default_type application/json;
    location / {{ return 200 '{answer}'; }}
  }}
}}
"""
_NGINX_ANSWER = (
    '{"model_name":"gb","outputs":[{"name":"label","shape":[1],"datatype":"INT64","data":[1]},'
    '{"name":"probabilities","shape":[1,2],"datatype":"FP32","data":[0.12345,0.87655]}]}'
)
_ENDS_WITHIN_S = 10
_PID_FILE = "pid"


class NotStarted(Exception):
    """A server ended, or could not be started; the message says why."""


@dataclass(frozen=True, slots=True)
class Given:
    """Files that servers are given."""

    model: Path
    contract: Path
    """The flights model with its contract."""
    store: Path
    """The flights feature repository."""


class Server:
    """One server of a system."""

    def __init__(self, system: System, given: Given, *, ledger_url: str | None) -> None:
        """Start it; it may not answer yet.

        Args:
            system: What to start.
            given: What it serves.
            ledger_url: Where an experiment's server reports to.

        Raises:
            NotInstalled: It is not on this machine and could not be had.
        """
        self.system = system
        self.http_port, self.grpc_port, metrics_port = _free_ports(3)
        self._folder = BUILD / "servers" / system.label
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        serving = self._folder / "serving"
        serving.mkdir()
        if system.experiment and ledger_url is not None:
            write_serving(serving, ledger_url)
        values = {
            "http": str(self.http_port),
            "grpc": str(self.grpc_port),
            "metrics": str(metrics_port),
            "folder": str(self._folder),
            "serving": str(serving),
            "peers": str(PEERS),
            "model": str(given.model),
            "contract": str(given.contract),
            "store": str(given.store),
            "python": str(python_of(system.peer) if system.peer else sys.executable),
        }
        values["native"] = str(native_server()) if "{native}" in system.command else ""
        values["nginx"] = _program("nginx") if "{nginx}" in system.command else ""
        nginx = _NGINX.format(folder=self._folder, http=self.http_port, answer=_NGINX_ANSWER)
        (self._folder / "nginx.conf").write_text(nginx)
        self._log = LOGS / f"{system.label}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self.started_s = time.monotonic()
        pinned = ["taskset", "-c", str(machine.SERVER_CPU)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*pinned, *(part.format(**values) for part in system.command)],
                cwd=self._folder,
                env=_environment(values, system),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        machine.be_as_nice(self._process.pid)
        (self._folder / _PID_FILE).write_text(f"{self.pid} {machine.began(self.pid)}")

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def check_alive(self) -> None:
        """Check that it runs.

        Raises:
            NotStarted: It has ended.
        """
        if self._process.poll() is not None:
            said = self._log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            log = self._log.relative_to(ROOT)
            raise NotStarted(f"it ended with {self._process.returncode}, saying {said[-1][:200]!r} ({log})")

    def freeze(self) -> None:
        """Stop it where it is, so that it takes nothing from others."""
        machine.send(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        machine.send(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it and all its processes."""
        self.thaw()
        everyone = machine.tree(self.pid)
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS_WITHIN_S)
        _kill(everyone, self.pid)
        self._process.wait()
        (self._folder / _PID_FILE).unlink(missing_ok=True)  # another run may have cleared the folder


def end_leftovers() -> None:
    """End servers that a run left behind which was killed itself."""
    for path in (BUILD / "servers").glob(f"*/{_PID_FILE}"):
        pid, _, began = path.read_text().partition(" ")
        if machine.began(int(pid)) == began:
            _kill(machine.tree(int(pid)), int(pid))
        path.unlink()


def _kill(pids: Sequence[int], session: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            if _session(pid) == session:
                os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int | None:
    # A number may have been given to another process meanwhile: ours are of the session that began with the server.
    with suppress(OSError):
        return os.getsid(pid)
    return None


def _environment(values: Mapping[str, str], system: System) -> dict[str, str]:
    told = {"MODEL": values["model"], "HTTP_PORT": values["http"], "OMP_NUM_THREADS": "1"}
    ours_alone = {"PYTHONPATH", "VIRTUAL_ENV"} if system.peer else set()
    kept = {name: value for name, value in os.environ.items() if name not in ours_alone}
    return kept | told | dict(system.environment)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise NotInstalled(f"there is no {name} (Debian: apt-get install {name})")
    return found


def _free_ports(count: int) -> Sequence[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
