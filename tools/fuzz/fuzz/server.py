"""A real server process, and what is asked of it between two batches of broken bytes."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import numpy as np

from fairlead_server.protocol.grpc.messages import pb
from fuzz.models import ROWS, WIDTH
from fuzz.paths import BUILD
from fuzz.rig import Unforeseen
from fuzz.worker import resident_bytes

_LISTENING = re.compile(rb"listening host=\S+ http_port=(\d+) grpc_port=(\d+)")
_FAILED = b"request failed"
_START_S = 60.0
DEADLINE_S = 30.0
"""Longest that a connection may take whose client has said all it will."""
_INTERNAL = {"2", "13", "15"}
"""gRPC's UNKNOWN, INTERNAL and DATA_LOSS: none of them is a client's fault."""
_READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@dataclass(slots=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    log: Path
    http_port: int
    grpc_port: int
    _read: int = 0

    @property
    def resident_bytes(self) -> int:
        """Its resident memory."""
        return resident_bytes(self.process.pid)

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def require_calm(self) -> None:
        """Check that it lives and has logged no failure since the last time.

        Raises:
            Unforeseen: It has ended, or failed.
        """
        if self.process.poll() is not None:
            raise Unforeseen(f"the server ended with {self.process.returncode}")
        told = self.log.read_bytes()
        fresh, self._read = told[self._read :], len(told)
        for line in fresh.splitlines():
            if _FAILED in line or b"Traceback" in line:
                raise Unforeseen(line.decode("utf-8", "replace")[-300:])


@contextmanager
def serving(engine: str) -> Iterator[Server]:
    """Serve ``rows`` with a gRPC engine; the server is ended afterwards.

    Raises:
        Unforeseen: It does not start.
    """
    log = BUILD / f"server-{engine}.log"
    model = BUILD / "models" / f"{ROWS}.onnx"
    command = [sys.executable, "-m", "fairlead_server", "--model", str(model), "--http-port", "0", "--grpc-port", "0"]
    with log.open("wb") as opened:
        process = subprocess.Popen([*command, "--grpc-engine", engine], stdout=opened, stderr=opened)
    try:
        found = _listening(process, log)
        server = Server(process, log, int(found[1]), int(found[2]))
        asyncio.run(_ready(server))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S * 3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path) -> re.Match[bytes]:
    end_s = time.monotonic() + _START_S
    while (found := _LISTENING.search(log.read_bytes())) is None:
        if process.poll() is not None or time.monotonic() > end_s:
            raise Unforeseen(f"the server does not start; see {log}")
        time.sleep(0.05)
    return found


async def _ready(server: Server) -> None:
    end_s = time.monotonic() + _START_S
    while b" 200 " not in (await exchange(server.http_port, [_READY]))[:20]:
        if time.monotonic() > end_s:
            raise Unforeseen("the server does not get ready")
        await asyncio.sleep(0.05)


async def exchange(port: int, chunks: list[bytes], *, ends: bool = True) -> bytes:
    """Send bytes over a new connection, and return what comes until it is closed.

    Args:
        port: Where the server listens.
        chunks: What is sent.
        ends: Whether to say that this is all.

    Raises:
        Unforeseen: It is not closed in time.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    try:
        async with asyncio.timeout(DEADLINE_S):
            for chunk in chunks:
                writer.write(chunk)
                await asyncio.sleep(0)
            if ends:
                writer.write_eof()
            while piece := await reader.read(2**16):
                received += piece
    except TimeoutError:
        raise Unforeseen(f"hang: the connection is open after {DEADLINE_S:g} s") from None
    except OSError:
        pass  # a server may cut off whom it does not understand
    finally:
        writer.close()
    return bytes(received)


async def call(port: int, path: str, message: bytes) -> tuple[str, bytes]:
    """Call a unary method with hyper-h2; return the status, empty if the call was cut off, and the answer.

    Raises:
        Unforeseen: No answer came in time.
    """
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    client.send_headers(1, [*fields, ("content-type", "application/grpc")])
    framed = b"\0" + struct.pack(">I", len(message)) + message
    for start in range(0, len(framed), 16384):
        client.send_data(1, framed[start : start + 16384])
    client.end_stream(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(client.data_to_send())
    status, answer = "", bytearray()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while piece := await reader.read(2**16):
                for event in client.receive_data(piece):
                    if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                        heads: dict[Any, Any] = dict(event.headers or ())
                        status = str(heads.get("grpc-status", status))
                    elif isinstance(event, h2.events.DataReceived):
                        answer += event.data or b""
                    elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                        return status, bytes(answer[5:])
                writer.write(client.data_to_send())
    except TimeoutError:
        raise Unforeseen(f"hang: no answer to a call after {DEADLINE_S:g} s") from None
    finally:
        writer.close()
    return status, bytes(answer[5:])


def require_status(status: str) -> None:
    """Check that a call was not answered as a failure of the server's.

    Raises:
        Unforeseen: It was.
    """
    if status in _INTERNAL:
        raise Unforeseen(f"grpc-status {status}")


async def require_well(server: Server) -> None:
    """Check that new connections are answered correctly, over REST and gRPC.

    Raises:
        Unforeseen: One is not.
    """
    row = np.arange(WIDTH, dtype="<f4") + 0.5
    wanted = (row * 2).tolist()
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": row.tolist()}]}
    body = json.dumps(document).encode()
    head = (
        f"POST /v2/models/{ROWS}/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    heard = await exchange(server.http_port, [head.encode() + body], ends=False)
    answered = json.loads(heard.partition(b"\r\n\r\n")[2] or b"null")
    if not answered or answered["outputs"][0]["data"] != wanted:
        raise Unforeseen(f"a valid request is answered {heard[:300]!r}")
    message = pb.ModelInferRequest(model_name=ROWS, raw_input_contents=[row.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
    status, answer = await call(
        server.grpc_port, "/inference.GRPCInferenceService/ModelInfer", message.SerializeToString()
    )
    outputs = pb.ModelInferResponse.FromString(answer).raw_output_contents
    if status != "0" or np.frombuffer(outputs[0], "<f4").tolist() != wanted:
        raise Unforeseen(f"a valid call is answered {status!r} {answer!r}")
