"""A process with one gRPC engine and no model: ``python -m support.grpc_host ENGINE`` prints its port and serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from fairlead_server.metrics import ServerMetrics
from fairlead_server.protocol.grpc.connection import GrpcConnections, Lifetimes, limits_of
from fairlead_server.protocol.grpc.engines import maker_of
from fairlead_server.protocol.service import Service

MESSAGE_BYTES = 2**20
HELD_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class GrpcHost:
    """The running process."""

    process: subprocess.Popen[str]
    port: int

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def grpc_host(engine: str) -> Iterator[GrpcHost]:
    """Start it, and end it by closing its standard input."""
    folder = Path(__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": str(folder), "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-m", "support.grpc_host", engine]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        yield GrpcHost(process, int(process.stdout.readline()))
        assert process.stdin is not None
        assert process.poll() is None, "the server has ended by itself"
        process.stdin.close()
        assert process.wait(60) == 0


async def _serve(engine: str) -> None:
    limits = replace(limits_of(MESSAGE_BYTES), held_bytes=HELD_BYTES)
    service = Service("nobody", "", ServerMetrics(CollectorRegistry()))
    connections = GrpcConnections(service, maker_of(engine, limits), limits, Lifetimes())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(connections.open, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 -- whom the port is for reads it here
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()
    loop.remove_reader(sys.stdin)
    server.close()
    await connections.drain(0.0)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
