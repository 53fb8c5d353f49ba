"""The five targets inside this process: what an input is fed to, and what must hold of what comes back."""

from __future__ import annotations

import asyncio
import random
import re
import time
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fairlead_server.errors import RequestError
from fairlead_server.predict.signature import column
from fairlead_server.protocol import v1, v2
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.schema import Schema
from fuzz import mutate, oracle
from fuzz.models import KINDS, ROWS
from fuzz.mutate import pieces
from fuzz.rig import Rig, Unforeseen, engines
from fuzz.seeds import PREFACE

HANG_S = 2.0
"""CPU time of one input beyond which it counts as a hang."""
_TIMES = 3
"""How often a body is sent down one connection: its form is read strictly, learned, and then known."""
_LENGTH = "inference-header-content-length"
_COLUMNS = Schema(
    model="columns",
    version="1",
    inputs={
        "f": column("f", "float32", (-1, 1)),
        "d": column("d", "float64", (-1, 1)),
        "i": column("i", "int64", (-1, 1)),
        "b": column("b", "bool", (-1, 1)),
        "t": column("t", "string", (-1, 1)),
    },
    key_inputs=("t",),
    outputs={"p": column("p", "float32", (-1,))},
    rows_limit=1000,
)
"""As a model with a contract has it: only decoded here, never run."""
_REFUSED, _FAILED = 400, 500

_NUMBERS = re.compile(rb"\[[-+0-9.eE, \t\r\n\[\]]*\]")

Feed = Callable[[Rig, bytes], Awaitable[None]]


async def http(rig: Rig, data: bytes) -> None:
    """Feed bytes of a connection, whole and in pieces."""
    for seed in (0, zlib.crc32(data) or 1):
        wire = rig.http()
        for piece in pieces(data, seed):
            wire.feed(piece)
            await asyncio.sleep(0)
        await rig.quiet(wire)
        require_no_failure(bytes(wire.written))
        wire.hang_up()
        await asyncio.sleep(0)


async def v2_json(rig: Rig, data: bytes) -> None:
    """Send a body down every path that takes JSON."""
    _decoded(lambda: v2.decode(data, None, _COLUMNS))
    _decoded(lambda: v1.decode(data, _COLUMNS))
    for model in (ROWS, KINDS):
        await _both_ways(rig, model, f"/v2/models/{model}/infer", data, None)
        await _both_ways(rig, model, f"/v1/models/{model}:predict", data, None)


async def v2_binary(rig: Rig, data: bytes) -> None:
    """Send a body whose first line is the value of the header that says how long its JSON is."""
    told, _, body = data.partition(b"\n")
    text = told.decode("latin-1")
    _decoded(lambda: v2.decode(body, text, _COLUMNS))
    if all(31 < byte < 127 for byte in told) and told.strip():
        for model in (ROWS, KINDS):
            await _both_ways(rig, model, f"/v2/models/{model}/infer", body, text.strip())


async def protobuf(rig: Rig, data: bytes) -> None:
    """Read a message as every method does, and answer it as an inference."""
    _decoded(lambda: codec.decode(data, _COLUMNS))
    for method in rig.methods.quick.values():
        _decoded(partial(method, data))
    reply = _Reply(rig.loop.create_future())
    rig.methods.infer(data, None, None, reply)
    answer = await reply.told
    if isinstance(answer, RequestError):
        if answer.http_status >= _FAILED:
            raise Unforeseen(f"{type(answer).__name__}: {answer}")
        return
    asked = pb.ModelInferRequest.FromString(data)
    heard = pb.ModelInferResponse.FromString(answer)
    oracle.require(rig.sessions[asked.model_name], _tensors(asked, "input"), _tensors(heard, "output"))


async def frames(rig: Rig, data: bytes) -> None:
    """Feed frames to a connection of each engine, in pieces."""
    for engine in engines():
        for seed in (0, zlib.crc32(data) or 1):
            wire = rig.either(engine)
            for piece in pieces(PREFACE + data, seed):
                wire.feed(piece)
                await asyncio.sleep(0)
            await rig.quiet(wire)
            wire.hang_up()
            await asyncio.sleep(0)


TARGETS: dict[str, Feed] = {
    "http": http,
    "v2-json": v2_json,
    "v2-binary": v2_binary,
    "protobuf": protobuf,
    "frames": frames,
}


def run(rig: Rig, target: str, data: bytes) -> None:
    """Feed one input to a target.

    Raises:
        Exception: Whatever no client may cause; ``Unforeseen`` for what did not raise by itself.
    """
    started_s = time.thread_time()
    rig.run(TARGETS[target](rig, data))
    spent_s = time.thread_time() - started_s
    if spent_s > HANG_S:
        raise Unforeseen(f"hang: {spent_s:.1f} s for {len(data)} bytes")


def require_no_failure(written: bytes) -> None:
    """Check that no answer has a status of 500 or more.

    Raises:
        Unforeseen: One has.
    """
    for line in written.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 5"):
            raise Unforeseen(line.decode("latin-1"))


class _Reply:
    """Keeps what an inference is answered."""

    over: str | None = None

    def __init__(self, told: asyncio.Future[bytes | RequestError]) -> None:
        self.told = told

    def gone(self) -> bool:
        """Return False: nobody leaves."""
        return False

    def answer(self, message: bytes, token: str | None) -> bool:
        del token
        self.told.set_result(message)
        return True

    def fail(self, error: RequestError) -> None:
        self.told.set_result(error)


def _decoded(decode: Callable[[], Any]) -> None:
    """Decode; a refusal is well, if it is the client's fault."""
    try:
        decode()
    except RequestError as error:
        if error.http_status >= _FAILED:
            raise


async def _both_ways(rig: Rig, model: str, path: str, body: bytes, json_length: str | None) -> None:
    """Compare what the lane answers with what the application does, and both with ONNX Runtime.

    The body comes several times over one connection, and then with other numbers: if its form was learned from the
    first, those are read by the form, and must be answered as if they were not.
    """
    wire = rig.http()
    for one in [body] * _TIMES + other_numbers(body, None if json_length is None else _length(json_length)):
        strict = await rig.strictly(path, one, _headers(json_length))
        extra = b"".join(b"%b: %b\r\n" % header for header in _headers(json_length))
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(one)}\r\n".encode()
        wire.feed(head + extra + b"\r\n" + one)
        heard = await rig.answer(wire)
        if (heard.status, heard.body) != (strict.status, strict.body):
            raise Unforeseen(
                f"{path} {one!r}: the lane answers {heard.status} {heard.body[:300]!r}, "
                f"the application {strict.status} {strict.body[:300]!r}"
            )
        if heard.status >= _FAILED:
            raise Unforeseen(f"{path}: {heard.status} {heard.body[:300]!r}")
        if heard.status < _REFUSED and path.startswith("/v2"):
            length = None if json_length is None else int(json_length)
            answered = oracle.rest(heard.body, oracle.json_length_of(heard))
            oracle.require(rig.sessions[model], oracle.rest(one, length), answered)
    wire.hang_up()


def other_numbers(body: bytes, json_length: int | None) -> list[bytes]:
    """Return bodies with another list of numbers, or other bytes after the JSON; none if ``body`` has neither."""
    chance = random.Random(zlib.crc32(body))
    if json_length is not None and json_length < len(body):
        tail = body[json_length:]
        return [body[:json_length] + one for one in (chance.randbytes(len(tail)), tail[:-1], tail + b"\0")]
    found = max(_NUMBERS.finditer(body), key=lambda one: one.end() - one.start(), default=None)
    if found is None or json_length is not None:
        return []
    changes = (*[mutate.respelled] * 4, mutate.json_body)
    numbers = [change(chance, found[0]) for change in changes]
    return [body[: found.start()] + one + body[found.end() :] for one in numbers]


def _length(text: str) -> int:
    return int(text[:9]) if text.isascii() and text.isdigit() else 0


def _headers(json_length: str | None) -> list[tuple[bytes, bytes]]:
    return [] if json_length is None else [(_LENGTH.encode(), json_length.encode())]


def _tensors(message: Any, way: str) -> oracle.Arrays:
    raws = getattr(message, f"raw_{way}_contents")
    found: oracle.Arrays = {}
    for place, tensor in enumerate(getattr(message, f"{way}s")):
        if raws:
            found[tensor.name] = oracle.raw(raws[place], tensor.datatype, tensor.shape)
            continue
        values = list(getattr(tensor.contents, codec.CONTENTS_OF[tensor.datatype]))
        texts = [value.decode() for value in values] if tensor.datatype == "BYTES" else values
        found[tensor.name] = oracle.listed(texts, tensor.datatype, tensor.shape)
    return found
