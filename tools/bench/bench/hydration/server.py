"""A redis-server of the run's own, on a free port of the loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


class NoRedis(RuntimeError):
    """There is no redis-server, or it does not start."""


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Run a redis-server without persistence; yield its port.

    Raises:
        NoRedis: It is not installed, or does not start.
    """
    if shutil.which("redis-server") is None:
        raise NoRedis("redis-server is not here (Debian: apt-get install redis-server)")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not any("Ready to accept connections" in line for line in process.stdout):
                raise NoRedis(f"redis-server did not start on port {port}; try `{' '.join(command)}`")
            yield port
        finally:
            process.kill()
