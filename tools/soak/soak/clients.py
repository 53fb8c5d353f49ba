"""Connections that ask and check: HTTP/1.1 one request at a time, HTTP/2 several calls; cheap, as load must be."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import hpack

from bench import questions
from fairlead_server.protocol.grpc.messages import pb
from soak.traffic import Question

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\x06\x04\0\0\0\0\0\0\1\0\0\0\0"  # no dynamic table: every block of headers stands for itself
_ACK = b"\0\0\0\x04\1\0\0\0\0"
_CREDIT = struct.pack(">I", 2**30)
_MORE = b"\0\0\4\x08\0\0\0\0\0"
_FRAME = 9
_MOST_STREAM = 2**30
_REFILL_BYTES = 2**24
_LARGEST_PROBLEMS = 20


@dataclass(slots=True)
class Tally:
    """What was answered."""

    answered: Counter[str] = field(default_factory=Counter)
    """By kind."""
    waits_us: list[int] = field(default_factory=list)
    """Of valid requests since they were last taken, from when each was due."""
    problems: Counter[str] = field(default_factory=Counter)
    """What should not have happened, by what it was."""
    bodies: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    """Answers that were checked whole, by kind and row."""

    def note(
        self, question: Question, due_s: float, status: int, headers: Callable[[], dict[str, str]], body: bytes
    ) -> None:
        """Count an answer, and check it."""
        self.answered[question.kind] += 1
        if status not in question.allowed:
            self.blame(f"{question.kind}: status {status} {body[:80]!r}")
        if question.rows is None:
            return
        self.waits_us.append(round((time.perf_counter() - due_s) * 1e6))
        key = question.kind, question.rows.rows.tobytes()
        if self.bodies.get(key) != body:
            try:
                self._check(question, status, headers(), body)
                self.bodies.setdefault(key, body)
            except (questions.WrongAnswer, ValueError) as error:
                self.blame(f"{question.kind}: {error}")

    def blame(self, what: str) -> None:
        """Count something that should not have happened."""
        if len(self.problems) < _LARGEST_PROBLEMS or what in self.problems:
            self.problems[what] += 1

    def _check(self, question: Question, status: int, headers: dict[str, str], body: bytes) -> None:
        if question.rows is None:
            return
        if question.kind == "grpc":
            questions.check_grpc(pb.ModelInferResponse.FromString(body[5:]), question.rows)
        else:
            questions.check_rest(questions.Answer(status, headers, body), question.rows)


class RestClient(asyncio.Protocol):
    """An HTTP/1.1 connection."""

    slots = 1

    def __init__(self, tally: Tally, free: Callable[[RestClient], None]) -> None:
        """Ask nothing yet; ``free`` is called whenever another question may be asked."""
        self._tally = tally
        self._free = free
        self._received = b""
        self._asked: tuple[Question, float] | None = None
        self.transport: Any = None
        self.waiting = 0
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, question: Question, due_s: float) -> None:
        """Ask; nothing else is being asked."""
        self._asked = question, due_s
        self.waiting = 1
        self.transport.write(question.wire)

    def data_received(self, data: bytes) -> None:
        """Take the answer."""
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0 or self._asked is None:
            return
        head = received[:end].lower()
        place = head.find(b"\r\ncontent-length:")
        length = int(head[place + 17 :].split(b"\r\n", 1)[0])
        if len(received) < end + 4 + length:
            return
        self._received = b""
        question, due_s = self._asked
        self._asked = None
        self.waiting = 0
        self._tally.note(question, due_s, int(head[9:12]), lambda: _headers(head), received[end + 4 :])
        self._free(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Say so, unless it was this side's wish."""
        if not self.closing:
            self._tally.blame("a connection of REST was closed by the server")


class GrpcClient(asyncio.Protocol):
    """An HTTP/2 connection."""

    slots = 8

    def __init__(self, tally: Tally, free: Callable[[GrpcClient], None]) -> None:
        """Ask nothing yet; ``free`` is called whenever another question may be asked."""
        self._tally = tally
        self._free = free
        self._received = b""
        self._stream = -1
        self._asked: dict[int, tuple[Question, float, bytearray]] = {}
        self._taken = 0
        self._decoder = hpack.Decoder()
        self.transport: Any = None
        self.closing = False

    @property
    def waiting(self) -> int:
        """Calls without an answer."""
        return len(self._asked)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(_PREFACE + _SETTINGS + _MORE + _CREDIT)

    def ask(self, question: Question, due_s: float) -> None:
        """Ask."""
        self._stream += 2
        stream = struct.pack(">I", self._stream)
        self._asked[self._stream] = question, due_s, bytearray()
        (size,) = struct.unpack_from(">I", question.wire)
        block, message = question.wire[4 : 4 + size], question.wire[4 + size :]
        head = struct.pack(">I", len(block))[1:] + b"\1\4" + stream + block
        self.transport.write(head + struct.pack(">I", len(message))[1:] + b"\0\1" + stream + message)

    def data_received(self, data: bytes) -> None:
        """Take answers."""
        received = self._received + data
        place = 0
        while len(received) - place >= _FRAME:
            size = int.from_bytes(received[place : place + 3], "big")
            end = place + _FRAME + size
            if len(received) < end:
                break
            stream = int.from_bytes(received[place + 5 : place + _FRAME], "big")
            self._take(received[place + 3], received[place + 4], stream, received[place + _FRAME : end])
            place = end
        self._received = received[place:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        asked = self._asked.get(stream)
        if kind == 4 and not flags & 1:  # noqa: PLR2004 -- SETTINGS
            self.transport.write(_ACK)
        elif kind == 6 and not flags & 1:  # noqa: PLR2004 -- PING
            self.transport.write(b"\0\0\x08\x06\1\0\0\0\0" + payload)
        elif kind == 7 and not self.closing:  # noqa: PLR2004 -- GOAWAY
            self._tally.blame(f"GOAWAY {int.from_bytes(payload[4:8], 'big')}")
        elif kind == 3 and asked is not None:  # noqa: PLR2004 -- RST_STREAM
            self._tally.blame(f"RST_STREAM {int.from_bytes(payload, 'big')}")
            self._ended(stream)
        elif kind == 0 and asked is not None:
            asked[2].extend(payload)
            self._taken += len(payload)
            if self._taken > _REFILL_BYTES:
                self.transport.write(_MORE + struct.pack(">I", self._taken))
                self._taken = 0
        elif kind == 1:
            fields = {str(name): str(value) for name, value in self._decoder.decode(payload)}
            if flags & 1 and asked is not None:
                question, due_s, body = asked
                self._tally.note(question, due_s, int(fields.get("grpc-status", -1)), dict, bytes(body))
                self._ended(stream)

    def _ended(self, stream: int) -> None:
        del self._asked[stream]
        if self._stream < _MOST_STREAM:
            self._free(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Say so, unless it was this side's wish."""
        if not self.closing:
            self._tally.blame("a connection of gRPC was closed by the server")


Client = RestClient | GrpcClient


class Pool:
    """Connections of one kind: questions wait for one that is free."""

    def __init__(self, tally: Tally, make: type[RestClient | GrpcClient]) -> None:
        """Have none yet."""
        self._tally = tally
        self._make = make
        self._free: deque[Client] = deque()
        self._due: deque[tuple[Question, float]] = deque()
        self.clients: list[Client] = []

    async def connect(self, port: int, count: int) -> None:
        """Open connections."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, client = await loop.create_connection(lambda: self._make(self._tally, self.freed), "127.0.0.1", port)
            self.clients.append(client)
            self._free.extend([client] * client.slots)

    def ask(self, question: Question, due_s: float) -> None:
        """Ask now, or as soon as a connection is free."""
        if self._free:
            self._free.popleft().ask(question, due_s)
        else:
            self._due.append((question, due_s))

    def freed(self, client: Any) -> None:
        """Ask what waits."""
        if self._due:
            client.ask(*self._due.popleft())
        else:
            self._free.append(client)

    @property
    def waiting(self) -> int:
        """Questions without an answer."""
        return len(self._due) + sum(client.waiting for client in self.clients)

    def forget(self) -> None:
        """Leave out what has not been asked yet."""
        self._due.clear()

    def close(self) -> None:
        """End every connection."""
        for client in self.clients:
            client.closing = True
            client.transport.close()


async def send_garbage(port: int, content: bytes) -> None:
    """Send bytes over a connection of its own, and go away."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(content)
        await asyncio.sleep(0.2)
        writer.close()


def _headers(head: bytes) -> dict[str, str]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.decode(): value.strip().decode() for name, _, value in pairs}
