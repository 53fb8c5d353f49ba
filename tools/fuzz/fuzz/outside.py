"""The targets over sockets, against a whole server: batches of connections, and a look at the server after each."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fuzz import seeds
from fuzz.findings import Cause, write
from fuzz.inside import require_no_failure
from fuzz.models import ROWS
from fuzz.mutate import pieces
from fuzz.rig import Unforeseen, engines
from fuzz.seeds import PREFACE
from fuzz.server import Server, call, exchange, require_status, require_well, serving
from fuzz.targets import TARGETS, kept
from fuzz.worker import LARGEST_BYTES

_BATCH = 64
_AT_ONCE = 16
_SLACK_BYTES = 16 * 2**20
_SLACK = 1.05
_SLACK_DESCRIPTORS = 4
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_CHANGES = (0, 1, 1, 1, 2, 4)


@dataclass(slots=True)
class Outcome:
    """What became of driving one target against servers."""

    inputs: int = 0
    findings: list[str] = field(default_factory=list)
    early_bytes: int = 0
    resident_bytes: int = 0


def drive(target: str, seconds: float, seed: int, told: Callable[[Outcome], None]) -> Outcome:
    """Send changed inputs to servers until time is up: one after the other with each gRPC engine where that matters."""
    outcome = Outcome()
    chosen = engines() if target in {"protobuf", "frames"} else engines()[-1:]
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it tells of each connection that a server cuts off
    for engine in chosen:
        try:
            with serving(engine) as server:
                asyncio.run(_drive(target, server, seconds / len(chosen), seed, outcome=outcome, told=told))
        except Unforeseen as error:
            outcome.findings.append(str(error))
    return outcome


async def _drive(
    target: str, server: Server, seconds: float, seed: int, *, outcome: Outcome, told: Callable[[Outcome], None]
) -> None:
    inputs = _inputs(target, random.Random(seed))
    start_s = time.monotonic()
    early_bytes = early_descriptors = 0
    known: set[Cause] = set()
    while (spent_s := time.monotonic() - start_s) < seconds:
        batch = [next(inputs) for _ in range(_BATCH)]
        try:
            await _send_all(target, server, batch)
            server.require_calm()
            await require_well(server)
        except Unforeseen as error:
            cause = Cause.of(error)
            if cause not in known:
                known.add(cause)
                outcome.findings.append(f"{error}; {await _one_of(target, server, batch, error)}")
            if server.process.poll() is not None:
                return
        outcome.inputs += len(batch)
        outcome.resident_bytes = server.resident_bytes
        if spent_s < seconds / 10 or not early_bytes:
            early_bytes = outcome.early_bytes = server.resident_bytes
            early_descriptors = server.descriptors
        told(outcome)
    await asyncio.sleep(1)
    if server.resident_bytes > early_bytes * _SLACK + _SLACK_BYTES:
        outcome.findings.append(f"memory grew from {early_bytes} to {server.resident_bytes} bytes")
    if server.descriptors > early_descriptors + _SLACK_DESCRIPTORS:
        outcome.findings.append(f"open files grew from {early_descriptors} to {server.descriptors}")


def _inputs(target: str, chance: random.Random) -> Iterator[bytes]:
    known = [*seeds.of(target).values(), *kept(target).values()]
    yield from known
    while True:
        data = chance.choice(known)
        for _ in range(chance.choice(_CHANGES)):
            data = TARGETS[target].mutate(chance, data)[:LARGEST_BYTES]
        yield data


async def _send_all(target: str, server: Server, batch: list[bytes]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(data: bytes) -> None:
        async with gate:
            await _send(target, server, data)

    results = await asyncio.gather(*map(one, batch), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _one_of(target: str, server: Server, batch: list[bytes], error: Unforeseen) -> str:
    """Find which input of a batch does it, by sending them one by one; return its file."""
    for data in batch:
        try:
            await _send(target, server, data)
            server.require_calm()
        except Unforeseen as again:
            return str(write(target, data, again))
    return f"no single input of its batch does it, the first is {write(target, batch[0], error)}"


async def _send(target: str, server: Server, data: bytes) -> None:
    """Send one input.

    Raises:
        Unforeseen: What came back was no answer that a client may get.
    """
    match target:
        case "http":
            heard = await exchange(server.http_port, list(pieces(data, zlib.crc32(data))))
            require_no_failure(heard)
        case "frames":
            await exchange(server.grpc_port, list(pieces(PREFACE + data, zlib.crc32(data))))
        case "protobuf":
            status, _ = await call(server.grpc_port, _INFER, data)
            require_status(status)
        case "v2-json":
            for path in (f"/v2/models/{ROWS}/infer", f"/v1/models/{ROWS}:predict"):
                await _post(server, path, data)
        case _:
            told, _, body = data.partition(b"\n")
            if all(31 < byte < 127 for byte in told) and told.strip():
                length = b"inference-header-content-length: " + told.strip() + b"\r\n"
                await _post(server, f"/v2/models/{ROWS}/infer", body, length)


async def _post(server: Server, path: str, body: bytes, extra: bytes = b"") -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n".encode()
    heard = await exchange(server.http_port, [head + extra + b"\r\n" + body], ends=False)
    if not heard.startswith(b"HTTP/1.1 "):
        raise Unforeseen(f"{path}: a whole request is answered {heard[:100]!r}")
    require_no_failure(heard)
