"""Many requests through a gateway, quickly: which variant answered each unit, over REST and over gRPC.

REST requests are pipelined on a few connections, gRPC calls share a few; both ask for the server's health unless told
otherwise, which takes the same routes as a prediction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from support.server_process import ROW

LIVE_PATH = "/v2/health/live"
SERVICE = "/inference.GRPCInferenceService"
_DATATYPES = {str: "BYTES", int: "INT64", float: "FP64"}
_CONTENTS = {str: "bytes_contents", int: "int64_contents", float: "fp64_contents"}
_CONNECTIONS, _PIPELINED, _CALLS_AT_ONCE = 4, 32, 64
_TIMEOUT_S = 30.0

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over REST."""

    status: int
    headers: Headers
    """Names in lower case, in the order received."""
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for given, value in self.headers if given == name]

    @property
    def variant(self) -> str:
        """The variant that answered; why not, if none did."""
        return ",".join(self.all("x-variant")) or f"{self.status} {self.body[:200].decode(errors='replace')}"


@dataclass(frozen=True, slots=True)
class Called:
    """The end of a gRPC call."""

    code: grpc.StatusCode
    details: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What came first; the last value of each name."""

    @property
    def variant(self) -> str:
        """The variant that answered; why not, if none did."""
        return self.metadata.get("x-variant") or f"{self.code.name} {self.details}"


def request(
    host: str,
    headers: Headers,
    *,
    method: str = "GET",
    path: str = LIVE_PATH,
    body: bytes = b"",
    encoding: str = "utf-8",
) -> bytes:
    """Return an HTTP/1.1 request as it is sent."""
    sent = [("host", host), *headers, *([("content-length", str(len(body)))] if body else [])]
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]
    return "\r\n".join([*lines, "", ""]).encode(encoding) + body


def ask(address: str, requests: Sequence[bytes]) -> list[Answer]:
    """Send requests over REST, and return their answers in order."""
    return asyncio.run(_ask(address, requests))


def units_over_rest(address: str, host: str, units: Sequence[str], header: str = "x-unit-id") -> list[str]:
    """Return the variant that answers each unit over REST."""
    return [answer.variant for answer in ask(address, [request(host, [(header, unit)]) for unit in units])]


def call(
    address: str,
    host: str,
    metadata: Sequence[Headers],
    *,
    method: str = "ServerLive",
    message: bytes = b"",
) -> list[Called]:
    """Call a method of the Open Inference Protocol once per given metadata; return the ends in order."""
    return asyncio.run(_call(address, host, metadata, f"{SERVICE}/{method}", message))


def units_over_grpc(address: str, host: str, units: Sequence[str], header: str = "x-unit-id") -> list[str]:
    """Return the variant that answers each unit over gRPC."""
    return [called.variant for called in call(address, host, [[(header, unit)] for unit in units])]


def infer_message(model: str, row: Mapping[str, str | int | float] = ROW) -> bytes:
    """Return a ModelInfer request for a row; that of ``support.server_process`` unless another is given."""
    made = pb.ModelInferRequest(model_name=model)
    for name, value in row.items():
        tensor = made.inputs.add(name=name, datatype=_DATATYPES[type(value)], shape=[1, 1])
        sent = value.encode() if isinstance(value, str) else value
        getattr(tensor.contents, _CONTENTS[type(value)]).append(sent)
    encoded: bytes = made.SerializeToString()
    return encoded


def grpc_options(host: str) -> list[tuple[str, Any]]:
    """Return the options of a channel to the gateway, for a host, with a connection of its own."""
    return [
        ("grpc.default_authority", host),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]


async def _ask(address: str, requests: Sequence[bytes]) -> list[Answer]:
    answers: list[Answer | None] = [None] * len(requests)
    everything = range(len(requests))
    batches = iter([everything[start : start + _PIPELINED] for start in everything[::_PIPELINED]])
    where, _, port = address.partition(":")

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(where, int(port))
        for batch in batches:
            writer.write(b"".join(requests[number] for number in batch))
            for number in batch:
                answers[number] = await _read(reader)
        writer.close()

    async with asyncio.timeout(_TIMEOUT_S + len(requests) / 200), asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(connection())
    return [answer for answer in answers if answer is not None]


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    return Answer(int(first.split()[1]), headers, await reader.readexactly(length))


async def _call(address: str, host: str, metadata: Sequence[Headers], path: str, message: bytes) -> list[Called]:
    turns = asyncio.Semaphore(_CALLS_AT_ONCE)
    channels = [grpc.aio.insecure_channel(address, options=grpc_options(host)) for _ in range(_CONNECTIONS)]
    methods = [channel.unary_unary(path) for channel in channels]

    async def one(number: int, given: Headers) -> Called:
        async with turns:
            made = methods[number % len(methods)](message, metadata=tuple(given), timeout=_TIMEOUT_S)
            try:
                await made
            except grpc.aio.AioRpcError as error:
                first = _text(error.initial_metadata())
                return Called(error.code(), error.details() or "", first)
            return Called(grpc.StatusCode.OK, "", _text(await made.initial_metadata()))

    try:
        return await asyncio.gather(*(one(number, given) for number, given in enumerate(metadata)))
    finally:
        for channel in channels:
            await channel.close()


def _text(metadata: Any) -> dict[str, str]:
    return {str(name): value if isinstance(value, str) else value.decode("latin-1") for name, value in metadata}
