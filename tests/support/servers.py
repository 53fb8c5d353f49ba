"""Real servers for tests: started on a free port of the loopback, ended by the id of their process."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port of ``host``, an address of this machine, that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A redis-server without persistence that can be stopped, frozen and started again on its port.

    ``options`` are further arguments of its command line, and the last word.
    """

    def __init__(
        self, folder: Path, port: int | None = None, *, host: str = "127.0.0.1", options: Sequence[str] = ()
    ) -> None:
        self.host = host
        self.port = port or free_port(host)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def online_store(self) -> dict[str, str]:
        """The block ``online_store`` of a feature_store.yaml."""
        return {"type": "redis", "connection_string": self.address}

    def start(self) -> None:
        where = ["--port", str(self.port), "--bind", self.host, "--protected-mode", "no"]
        command = ["redis-server", *where, "--save", "", "--appendonly", "no", *self._options]
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not any(b"Ready to accept connections" in line for line in self._process.stdout):
            raise RuntimeError(f"redis-server did not start on port {self.port}")

    def freeze(self) -> None:
        """Stop its process from running; its connections stay open and unanswered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run a redis-server for a test; skips the test where there is none."""
    need_redis()
    with RedisServer(folder) as server:
        yield server


def need_redis() -> None:
    """Skip a test where there is no redis-server."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
