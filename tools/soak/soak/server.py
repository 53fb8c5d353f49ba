"""The server under load, as its operating system sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.model import NAME
from bench.ours import Ledger, write_serving
from bench.paths import ROOT
from bench.systems import REVISION, VARIANT

BUILD = ROOT / "build/soak"
_LISTENING = re.compile(r"listening host=\S+ http_port=(\d+) grpc_port=(\d+)")
_START_S = 90.0
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int

    @property
    def resident_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def cpu_s(self) -> float:
        """CPU time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.terminate()
        return self.process.wait(_STOP_S)


@contextmanager
def serving(model: Path, ledger: Ledger, engine: str) -> Iterator[Server]:
    """Serve the bench's model with an experiment and a ledger; the server is ended afterwards, whatever happens.

    Raises:
        RuntimeError: It does not start.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    write_serving(BUILD / "serving", ledger.url("soak"))
    log = BUILD / "server.log"
    command = [sys.executable, "-m", "fairlead_server", "--model", str(model), "--model-name", NAME]
    command += ["--variant", VARIANT, "--revision", REVISION, "--serving-dir", str(BUILD / "serving")]
    command += ["--http-port", "0", "--grpc-port", "0", "--grpc-engine", engine, "--report-interval", "5"]
    with log.open("wb") as opened:
        process = subprocess.Popen(command, stdout=opened, stderr=opened)
    try:
        yield _started(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _started(process: subprocess.Popen[bytes], log: Path) -> Server:
    end_s = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end_s:
        found = _LISTENING.search(log.read_text())
        if found is not None and _is_ready(int(found[1])):
            return Server(process, int(found[1]), int(found[2]))
        time.sleep(0.1)
    raise RuntimeError(f"the server does not start; see {log}")


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 -- OK
    except urllib.error.URLError:
        return False
