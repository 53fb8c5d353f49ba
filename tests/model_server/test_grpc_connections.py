"""gRPC connections of every engine: what clients see of calls, deadlines, farewells, health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from prometheus_client import CollectorRegistry

from fairlead_server.metrics import ServerMetrics
from fairlead_server.protocol.grpc.compression import packed, unpacked
from fairlead_server.protocol.grpc.connection import GrpcConnections, Lifetimes, limits_of
from fairlead_server.protocol.grpc.engines import maker_of
from fairlead_server.protocol.grpc.grpcio import make_server
from fairlead_server.protocol.grpc.health import health_file
from fairlead_server.protocol.grpc.index import control_messages
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.grpc.methods import SERVICE
from fairlead_server.protocol.grpc.reflection import PATHS
from fairlead_server.protocol.port import Bounds, Door
from fairlead_server.protocol.service import Service
from support.doors import EchoConnections
from support.engines import ENGINES, require_engine
from support.http2 import Connection, Flag, Kind, frame, framed, head

Code = grpc.StatusCode
MESSAGE_BYTES = 2**16
LIVE = f"/{SERVICE}/ServerLive"
LOAD = f"/{SERVICE}/RepositoryModelLoad"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
POOL = descriptor_pool.DescriptorPool()
POOL.Add(health_file())
ASKED, STATUS = (
    message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"grpc.health.v1.HealthCheck{name}"))
    for name in ("Request", "Response")
)
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


class Gate:
    """Loads models, one of these days: a method that takes as long as a test wants."""

    def __init__(self) -> None:
        self.begun, self.opened, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def load(self, _name: str) -> None:
        self.begun.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    unload = load


@dataclass(frozen=True, slots=True)
class Host:
    """A server without a model."""

    port: int
    service: Service
    gate: Gate
    connections: GrpcConnections

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


Starter = Callable[..., Awaitable[Host]]


@pytest.fixture(params=ENGINES)
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Starter]:
    require_engine(request.param)
    opened: list[tuple[asyncio.Server, GrpcConnections]] = []

    async def started(lifetimes: Lifetimes | None = None) -> Host:
        service = Service("nobody", "", ServerMetrics(CollectorRegistry()))
        gate = Gate()
        service.control = gate
        limits = replace(limits_of(MESSAGE_BYTES), message_ticks=10**6)
        connections = GrpcConnections(service, maker_of(request.param, limits), limits, lifetimes or Lifetimes())
        server = await asyncio.get_running_loop().create_server(connections.open, "127.0.0.1", 0)
        opened.append((server, connections))
        return Host(server.sockets[0].getsockname()[1], service, gate, connections)

    yield started
    for server, connections in opened:
        server.close()
        await connections.drain(0.0)


@pytest.fixture
async def host(start: Starter) -> Host:
    return await start()


@pytest.fixture
async def channel(host: Host) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(host.address, options=[("grpc.enable_retries", 0)]) as opened:
        yield opened


async def refused(call: Awaitable[Any]) -> tuple[Any, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), str(caught.value.details())


async def in_thread(function: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(function), 30)


async def test_many_calls_at_once_are_each_answered(channel: grpc.aio.Channel) -> None:
    live = channel.unary_unary(LIVE)
    answers = await asyncio.gather(*(live(b"", timeout=20) for _ in range(500)))
    assert set(answers) == {pb.ServerLiveResponse(live=True).SerializeToString()}


async def test_what_is_not_served_is_unimplemented(channel: grpc.aio.Channel) -> None:
    assert await refused(channel.unary_unary("/a.B/C")(b"", timeout=20)) == (
        Code.UNIMPLEMENTED,
        "/a.B/C is not served here",
    )


async def test_texts_of_refusals_may_be_of_any_language(channel: grpc.aio.Channel) -> None:
    asked = pb.ModelReadyRequest(name="wörld %41").SerializeToString()
    channel_code, text = await refused(channel.unary_unary(f"/{SERVICE}/ModelMetadata")(asked, timeout=20))
    assert channel_code == Code.UNAVAILABLE
    assert "loaded" in text
    code, text = await refused(channel.unary_unary("/é%/ü")(b"", timeout=20))
    assert (code, text) == (Code.UNIMPLEMENTED, "/é%/ü is not served here")


async def test_large_messages_come_whole_and_too_large_ones_are_refused(channel: grpc.aio.Channel) -> None:
    load = channel.unary_unary(f"/{SERVICE}/ModelMetadata")
    fits = pb.ModelReadyRequest(name="x" * (MESSAGE_BYTES - 4)).SerializeToString()
    assert len(fits) == MESSAGE_BYTES
    assert (await refused(load(fits, timeout=20)))[0] == Code.UNAVAILABLE
    code, text = await refused(load(b"x" * (MESSAGE_BYTES + 1), timeout=20))
    assert (code, text) == (Code.RESOURCE_EXHAUSTED, f"the message is too large; send at most {MESSAGE_BYTES} bytes")
    assert await channel.unary_unary(LIVE)(b"", timeout=20)


async def test_a_compressed_request_is_read(channel: grpc.aio.Channel) -> None:
    live = channel.unary_unary(LIVE)
    assert await live(b"", timeout=20, compression=grpc.Compression.Gzip)
    code, text = await refused(live(b"\xff" * 2000, timeout=20, compression=grpc.Compression.Gzip))
    assert (code, "ServerLiveRequest" in text) == (Code.INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (gzip.compress(bytes(MESSAGE_BYTES + 1)), 8),
        (b"no gzip", 3),
        (gzip.compress(b"")[:-3], 3),
        (gzip.compress(b"") + b"more", 3),
    ],
    ids=["too large", "no gzip", "cut off", "more"],
)
async def test_what_is_badly_compressed_is_refused(host: Host, sent: bytes, code: int) -> None:
    def ask() -> str:
        connection = Connection(host.port)
        connection.send(
            frame(Kind.HEADERS, Flag.END_HEADERS, 1, head(LIVE, [("grpc-encoding", "gzip")])),
            frame(Kind.DATA, Flag.END_STREAM, 1, framed(sent, compressed=True)),
        )
        return connection.ended(1)[1]["grpc-status"]

    assert await in_thread(ask) == str(code)


async def test_a_small_answer_is_not_compressed(host: Host) -> None:
    def ask() -> tuple[bytes, dict[str, str]]:
        connection = Connection(host.port)
        extra = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")]
        connection.send(
            frame(Kind.HEADERS, Flag.END_HEADERS, 1, head(LIVE, extra)),
            frame(Kind.DATA, Flag.END_STREAM, 1, framed(gzip.compress(b""), compressed=True)),
        )
        return connection.ended(1)

    data, fields = await in_thread(ask)
    assert (data, fields["grpc-status"]) == (framed(b"\x08\x01"), "0")


def test_a_large_answer_is_compressed_if_that_makes_it_smaller() -> None:
    compressed = packed(b"x" * 5000)
    assert compressed is not None
    assert unpacked(compressed, 5000) == b"x" * 5000
    assert packed(random.Random(7).randbytes(5000)) is None  # noqa: S311 -- bytes that gzip makes no smaller
    assert packed(b"x" * 100) is None


async def test_the_deadline_is_kept_whatever_the_method_does(host: Host, channel: grpc.aio.Channel) -> None:
    def ask() -> dict[str, str]:
        connection = Connection(host.port)
        connection.call(1, LOAD, b"", [("grpc-timeout", "50m")])
        return connection.ended(1)[1]

    fields = await in_thread(ask)
    assert fields["grpc-status"] == "4"
    await asyncio.wait_for(host.gate.cancelled.wait(), 20)
    assert (await refused(channel.unary_unary(LOAD)(b"", timeout=0.05)))[0] == Code.DEADLINE_EXCEEDED


async def test_a_cancelled_call_is_given_up(host: Host, channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary(LOAD)(b"")
    await asyncio.wait_for(host.gate.begun.wait(), 20)
    call.cancel()
    await asyncio.wait_for(host.gate.cancelled.wait(), 20)


async def test_a_client_that_goes_takes_its_calls_along(host: Host) -> None:
    def ask() -> None:
        connection = Connection(host.port)
        connection.call(1, LOAD, b"")
        connection.close()

    await in_thread(ask)
    await asyncio.wait_for(host.gate.cancelled.wait(), 20)


async def test_calls_in_flight_are_answered_before_the_end(host: Host, channel: grpc.aio.Channel) -> None:
    call = asyncio.ensure_future(channel.unary_unary(LOAD)(b"", timeout=20))
    await asyncio.wait_for(host.gate.begun.wait(), 20)
    draining = asyncio.create_task(host.connections.drain(20))
    await asyncio.sleep(0)
    host.gate.opened.set()
    assert control_messages()[1].FromString(await call) is not None
    await draining


async def test_what_is_not_answered_in_time_is_cut_off(host: Host, channel: grpc.aio.Channel) -> None:
    call = asyncio.ensure_future(channel.unary_unary(LOAD)(b"", timeout=20))
    await asyncio.wait_for(host.gate.begun.wait(), 20)
    await host.connections.drain(0.0)
    assert (await refused(call))[0] == Code.UNAVAILABLE


def goodbye(port: int) -> list[Kind]:
    """Do nothing until the server hangs up; return what it said."""
    connection = Connection(port)
    said = []
    for found in connection.frames():
        said.append(Kind(found.kind))
        if found.kind == Kind.PING and not found.flags:
            connection.send(frame(Kind.PING, Flag.END_STREAM, 0, found.payload))
    return said


@pytest.mark.parametrize("lifetimes", [Lifetimes(idle_s=0.0), Lifetimes(age_s=0.0)], ids=["idle", "old"])
async def test_connections_do_not_stay_for_ever(start: Starter, lifetimes: Lifetimes) -> None:
    host = await start(lifetimes)
    assert Kind.GOAWAY in await in_thread(lambda: goodbye(host.port))


async def test_who_does_not_greet_is_not_waited_for(start: Starter) -> None:
    host = await start(Lifetimes(greeting_s=0.0))
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    writer.write(b"PRI * HT")
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 20)
    writer.close()


async def test_health_says_whether_to_send_requests(host: Host, channel: grpc.aio.Channel) -> None:
    check = channel.unary_unary(CHECK)
    for name in ("", SERVICE, "nobody"):
        answer = STATUS.FromString(await check(ASKED(service=name).SerializeToString(), timeout=20))
        assert answer.status == NOT_SERVING
    host.service.begin()
    host.service.put("nobody", {})
    answer = STATUS.FromString(await check(b"", timeout=20))
    assert answer.status == SERVING
    code, _ = await refused(check(ASKED(service="somebody").SerializeToString(), timeout=20))
    assert code == Code.NOT_FOUND


async def test_health_is_watched(host: Host, channel: grpc.aio.Channel) -> None:
    seen = channel.unary_stream(WATCH)(b"", timeout=30)
    assert STATUS.FromString(await seen.read()).status == NOT_SERVING
    host.service.begin()
    host.service.put("nobody", {})
    assert STATUS.FromString(await seen.read()).status == SERVING
    host.service.drain()
    assert STATUS.FromString(await seen.read()).status == NOT_SERVING
    unknown = channel.unary_stream(WATCH)(ASKED(service="somebody").SerializeToString(), timeout=30)
    assert STATUS.FromString(await unknown.read()).status == SERVICE_UNKNOWN
    unknown.cancel()
    seen.cancel()


@pytest.mark.parametrize("path", PATHS)
async def test_reflection_describes_the_services(channel: grpc.aio.Channel, path: str) -> None:
    asked = channel.stream_stream(path)(timeout=20)
    await asked.write(b"\x3a\x00")  # list_services
    listed = await asked.read()
    assert b"inference.GRPCInferenceService" in listed
    assert b"grpc.health.v1.Health" in listed
    symbol = SERVICE.encode()
    await asked.write(b"\x22" + bytes([len(symbol)]) + symbol)  # file_containing_symbol
    described = await asked.read()
    assert pb.DESCRIPTOR.serialized_pb in described
    await asked.write(b"\x22\x01x")
    assert b"is not here" in await asked.read()
    await asked.done_writing()
    assert await asked.code() == Code.OK
    assert descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb).service[0].method


async def test_keepalive_pings_are_answered(host: Host) -> None:
    options = [("grpc.keepalive_time_ms", 10), ("grpc.keepalive_timeout_ms", 20_000)]
    options += [("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_permit_without_calls", 1)]
    async with grpc.aio.insecure_channel(host.address, options=options) as channel:
        call = asyncio.ensure_future(channel.unary_unary(LOAD)(b"", timeout=20))
        await asyncio.wait_for(host.gate.begun.wait(), 20)
        host.gate.opened.set()
        assert await call == b""


async def test_grpcio_answers_the_same(host: Host, channel: grpc.aio.Channel) -> None:
    server, port = make_server(host.service, "127.0.0.1", 0, MESSAGE_BYTES)
    await server.start()
    calls = [
        (f"/{SERVICE}/{method}", message)
        for method in ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer")
        for message in (b"", b"\xff\xff", b"\x0a\x06nobody", b"\x0a\x02no\x12\x011", b"\x0a\x02\xff\xff")
    ]
    calls += [(f"/{SERVICE}/RepositoryIndex", b""), (CHECK, b"\x0a\x02no"), (CHECK, b"\xff")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as other:
        for path, message in calls:
            assert await outcome(channel, path, message) == await outcome(other, path, message), (path, message)
    await server.stop(None)


async def outcome(channel: grpc.aio.Channel, path: str, message: bytes) -> Any:
    try:
        return await channel.unary_unary(path)(message, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()


async def test_one_port_takes_both_protocols(host: Host) -> None:
    door = Door(EchoConnections(), host.connections, Bounds())
    server = await asyncio.get_running_loop().create_server(door.open, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary(LIVE)(b"", timeout=20)
    for said in (b"GET / HTTP/1.1\r\n", b"P", b"PRINT"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in said:
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write_eof()
        answered = await asyncio.wait_for(reader.read(), 20)
        assert answered.startswith(b"http:" + said[:1])
        writer.close()
    server.close()
