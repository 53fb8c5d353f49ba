"""gRPC connections: an engine on a transport, deadlines, cancellation, limits in time, and the way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from fairlead.feedback.token import PREDICTION_HEADER
from fairlead_server.errors import DeadlinePassed, Overloaded, RequestError
from fairlead_server.protocol.grpc.compression import packed, unpacked
from fairlead_server.protocol.grpc.engine import Call, Engine, Limits, Metadata
from fairlead_server.protocol.grpc.health import CHECK, WATCH, HealthMethods
from fairlead_server.protocol.grpc.inference import PROTOCOL
from fairlead_server.protocol.grpc.methods import INFER, SERVICE, InferenceMethods, Method, SlowMethod
from fairlead_server.protocol.grpc.reflection import PATHS, Reflection
from fairlead_server.protocol.grpc.status import NUMBER_OF, encoded
from fairlead_server.protocol.service import Service

_LOG = logging.getLogger(__name__)
_TICK_S: Final = 1.0
_CALL: Final = 7
_MESSAGE: Final = 3
_DEADLINE: Final = DeadlinePassed.grpc_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long a connection may take, in seconds."""

    greeting_s: float = 10
    """Until its client has greeted as HTTP/2 clients do."""
    idle_s: float = 3600
    """Without a call."""
    age_s: float = float("inf")
    """Until it is told to go away, a tenth more or less, so that clients find new servers."""
    grace_s: float = 30
    """From then on until it is cut off."""


class GrpcMethods:
    """Every method of every service, by path."""

    def __init__(self, service: Service) -> None:
        """Answer from ``service``."""
        inference = InferenceMethods(service)
        self.failure = service.failure
        self.infer = inference.infer
        self.health = HealthMethods(service)
        reflection = Reflection()
        self.quick: dict[str, Method] = {f"/{SERVICE}/{name}": method for name, method in inference.quick.items()}
        self.quick[CHECK] = self.health.check
        self.slow: dict[str, SlowMethod] = {f"/{SERVICE}/{name}": method for name, method in inference.slow.items()}
        self.streams: dict[str, Method] = dict.fromkeys(PATHS, reflection.answer)


class _Ongoing:
    """A call that is being answered; an inference's ``Reply``."""

    __slots__ = ("_connection", "_gzip", "over", "size_bytes", "stream", "task")

    def __init__(self, connection: GrpcConnection, stream: int, *, gzip: bool, size_bytes: int) -> None:
        self._connection = connection
        self._gzip = gzip
        self.over: str | None = None
        self.size_bytes = size_bytes
        self.stream = stream
        self.task: asyncio.Task[None] | None = None

    def gone(self) -> bool:
        """See ``Reply``."""
        return self.over is not None

    def answer(self, message: bytes, token: str | None = None) -> bool:
        """See ``Reply``."""
        if self.over is not None:
            return False
        metadata = None if token is None else [(PREDICTION_HEADER, token)]
        compressed = packed(message) if self._gzip else None
        if compressed is not None:
            return self._connection.reply(self, compressed, metadata, compressed=True)
        return self._connection.reply(self, message, metadata, compressed=False)

    def fail(self, error: RequestError) -> None:
        """See ``Reply``."""
        if self.over is None:
            pushback: Metadata | None = None
            if isinstance(error, Overloaded):
                pushback = [("grpc-retry-pushback-ms", str(max(1, round(1000 * error.retry_after_s))))]
            self._connection.finish(self, NUMBER_OF[error.grpc_code], str(error), pushback)


class GrpcConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, connections: GrpcConnections, engine: Engine, methods: GrpcMethods, limits: Limits) -> None:
        """Wait for a transport.

        Args:
            connections: All of the process.
            engine: A new one.
            methods: What is served.
            limits: As the engine has them.
        """
        self._connections = connections
        self._engine = engine
        self._methods = methods
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, _Ongoing] = {}
        self._streams: dict[int, Method] = {}
        self._watches: dict[int, tuple[str, bytes]] = {}
        self._deadlines: dict[int, float] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._working_bytes = 0
        self._paused_by_client = False
        self._paused_by_work = False
        self.marked = False
        """Whether answers wait to be written at the end of the turn."""
        self.opened_s = self.busy_s = self._loop.time()
        """When it was opened, and when it last had a call."""
        self.leaving_s: float | None = None
        """When its client was told to go away."""

    @property
    def idle(self) -> bool:
        """Whether no call is being received or answered."""
        return not self._calls and self._engine.idle

    @property
    def greeted(self) -> bool:
        """Whether its client has begun as HTTP/2 clients do."""
        return self._engine.greeted

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none of asyncio's classes
        self._connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """End all calls: nobody is there to be answered."""
        self._transport = None
        for ongoing in list(self._calls.values()):
            self._end(ongoing, "CANCELLED")
        self._streams.clear()
        self._watches.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        self._connections.remove(self)

    def pause_writing(self) -> None:
        """Read no more while the client does not read: whatever it asks for would pile up."""
        self._paused_by_client = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._paused_by_client = False
        self.flush()
        self._read_on()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client's."""
        try:
            events = self._engine.feed(data)
            for event in events:
                if len(event) == _CALL:
                    self._begin(event)
                elif len(event) == _MESSAGE:
                    self._go_on(*event)
                else:
                    self._cancel(event[0])
        except Exception as error:  # noqa: BLE001 -- the top of what a client can do; its connection ends, and no other
            self._methods.failure(error, PROTOCOL)
            self.abort()
            return
        if not self.marked:  # what is answered in this turn goes along
            self._connections.mark(self)

    def eof_received(self) -> bool:
        """Close: a gRPC client that is gone reads nothing more."""
        return False

    # calls

    def _begin(self, call: Call) -> None:
        stream, path, message, compressed, takes_gzip, timeout_s, metadata = call
        self.busy_s = now_s = self._loop.time()
        size_bytes = 0 if message is None else len(message)
        ongoing = _Ongoing(self, stream, gzip=compressed and takes_gzip, size_bytes=size_bytes)
        self._calls[stream] = ongoing
        deadline_s = None if timeout_s is None else now_s + timeout_s
        if deadline_s is not None:
            self._expect(stream, deadline_s)
        self._working_bytes += size_bytes
        if self._working_bytes > self._limits.held_bytes:
            self._wait_for_work()
        if message is None:
            self._streams[stream] = self._methods.streams[path]
            return
        try:
            if compressed:
                message = unpacked(message, self._limits.message_bytes)
            if path == INFER:
                self._methods.infer(message, metadata, deadline_s, ongoing)
            else:
                self._answer(ongoing, path, message)
        except Exception as error:  # noqa: BLE001 -- the top of a call: a client never sees a traceback
            ongoing.fail(self._methods.failure(error, PROTOCOL))

    def _answer(self, ongoing: _Ongoing, path: str, message: bytes) -> None:
        """Answer a method other than the one that matters."""
        methods = self._methods
        if (quick := methods.quick.get(path)) is not None:
            ongoing.answer(quick(message))
        elif (slow := methods.slow.get(path)) is not None:
            ongoing.task = self._loop.create_task(self._answer_slowly(ongoing, slow, message))
        elif path == WATCH:
            self._watch(ongoing.stream, methods.health.name_in(message))
        else:
            self.finish(ongoing, NUMBER_OF["UNIMPLEMENTED"], f"{path} is not served here")

    def _wait_for_work(self) -> None:
        """Read no more while as much is being answered as may be."""
        if not self._paused_by_work and self._transport is not None:
            self._paused_by_work = True
            self._transport.pause_reading()

    async def _answer_slowly(self, ongoing: _Ongoing, method: SlowMethod, message: bytes) -> None:
        try:
            answer = await method(message)
        except Exception as error:  # noqa: BLE001 -- the top of a call
            ongoing.fail(self._methods.failure(error, PROTOCOL))
        else:
            ongoing.answer(answer)

    def _go_on(self, stream: int, message: bytes | None, compressed: bool) -> None:
        method, ongoing = self._streams.get(stream), self._calls.get(stream)
        if method is None or ongoing is None:
            return
        if message is None:
            self.finish(ongoing, NUMBER_OF["OK"], "")
            return
        try:
            answer = method(unpacked(message, self._limits.message_bytes) if compressed else message)
        except Exception as error:  # noqa: BLE001 -- the top of a call
            ongoing.fail(self._methods.failure(error, PROTOCOL))
            return
        if not self._engine.send(stream, answer):
            self.finish(ongoing, NUMBER_OF["RESOURCE_EXHAUSTED"], "too many answers wait for the client to read them")

    def _watch(self, stream: int, name: str) -> None:
        status = self._methods.health.watched(name)
        self._watches[stream] = (name, status)
        self._engine.send(stream, status)

    def _expect(self, stream: int, deadline_s: float) -> None:
        self._deadlines[stream] = deadline_s
        if self._alarm is None or deadline_s < self._alarm.when():
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        self._alarm = None
        now_s = self._loop.time()
        for stream in [stream for stream, at_s in self._deadlines.items() if at_s <= now_s]:
            ongoing = self._calls.get(stream)
            if ongoing is not None:
                self.finish(
                    ongoing, NUMBER_OF[_DEADLINE], "the deadline passed before there was an answer", over=_DEADLINE
                )
        if self._deadlines:
            self._alarm = self._loop.call_at(min(self._deadlines.values()), self._expire)

    def _cancel(self, stream: int) -> None:
        ongoing = self._calls.get(stream)
        if ongoing is not None:
            self._end(ongoing, "CANCELLED")

    def reply(self, ongoing: _Ongoing, message: bytes, metadata: Metadata | None, *, compressed: bool) -> bool:
        """Answer a call; see ``Engine.reply``."""
        sent = self._engine.reply(ongoing.stream, message, compressed, metadata)
        self._end(ongoing, "OK" if sent else "CANCELLED")
        return sent

    def finish(
        self, ongoing: _Ongoing, status: int, text: str, metadata: Metadata | None = None, *, over: str = "OK"
    ) -> None:
        """End a call; see ``Engine.finish``. ``over`` is the code that its answer is told, should it still come."""
        self._engine.finish(ongoing.stream, status, encoded(text), metadata)
        self._end(ongoing, over)

    def _end(self, ongoing: _Ongoing, over: str) -> None:
        stream = ongoing.stream
        if self._calls.pop(stream, None) is None:
            return
        ongoing.over = over
        if ongoing.task is not None and over != "OK":
            ongoing.task.cancel()
        if self._deadlines:
            self._deadlines.pop(stream, None)
        if self._streams:
            self._streams.pop(stream, None)
        if self._watches:
            self._watches.pop(stream, None)
        self._working_bytes -= ongoing.size_bytes
        if self._paused_by_work and self._working_bytes <= self._limits.held_bytes:
            self._paused_by_work = False
            self._loop.call_soon(self._read_on)
        if not self.marked:
            self._connections.mark(self)

    # writing and ending

    def flush(self) -> None:
        """Write what the engine has, as far as the client reads."""
        transport = self._transport
        engine = self._engine
        self.marked = False
        if transport is None:
            return
        while not self._paused_by_client and (data := engine.take()):
            transport.write(data)
        if engine.closed:
            transport.close()
        elif not self._paused_by_client and engine.stalled:
            self._loop.call_soon(self.data_received, b"")

    def _read_on(self) -> None:
        if self._transport is None or self._paused_by_client or self._paused_by_work:
            return
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.data_received(b"")

    def shutdown(self) -> None:
        """Tell the client to go away once its calls are answered."""
        if self.leaving_s is None:
            self.leaving_s = self._loop.time()
            self._engine.shutdown()
            self.flush()

    def close(self) -> None:
        """Close at once, after what is written."""
        if self._transport is not None:
            self.flush()
            self._transport.close()

    def abort(self) -> None:
        """Cut off."""
        if self._transport is not None:
            self._transport.abort()

    def tick(self) -> None:
        """Let a second pass."""
        self._engine.tick()
        if self._calls:
            self.busy_s = self._loop.time()
        for stream, (name, status) in list(self._watches.items()):
            now = self._methods.health.watched(name)
            if now != status:
                self._watches[stream] = (name, now)
                self._engine.send(stream, now)
        self.flush()


class GrpcConnections:
    """Every gRPC connection of the process; made and used on the event loop."""

    def __init__(
        self,
        service: Service,
        maker: Callable[[], Engine],
        limits: Limits,
        lifetimes: Lifetimes,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Make them, none open yet.

        Args:
            service: What calls are answered from.
            maker: Gives the engine of one connection, with ``limits``.
            limits: See :func:`limits_of`.
            lifetimes: How long connections may take.
            jitter: A number between two.
        """
        self._methods = GrpcMethods(service)
        self._maker = maker
        self._limits = limits
        self._lifetimes = lifetimes
        self._jitter = jitter
        self._ages_s: dict[GrpcConnection, float] = {}
        self._marked: list[GrpcConnection] = []
        self._empty = asyncio.Event()
        self._retiring = False
        self._ticking: asyncio.TimerHandle | None = None

    def open(self) -> GrpcConnection:
        """Return the protocol of one new connection."""
        return GrpcConnection(self, self._maker(), self._methods, self._limits)

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._ages_s)

    def retire(self) -> None:
        """Tell clients to go elsewhere (GOAWAY); what they have asked for is answered."""
        self._retiring = True
        for connection in list(self._ages_s):
            connection.shutdown()

    async def drain(self, deadline_s: float) -> None:
        """Answer what is in flight, close every connection, and cut off what is not answered in time."""
        self.retire()
        for connection in list(self._ages_s):
            if not connection.greeted:
                connection.close()
        if self._ages_s:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._empty.wait()
        if self._ages_s:
            _LOG.warning("connections cut off connections=%d", len(self._ages_s))
        for connection in list(self._ages_s):
            connection.abort()
        if self._ticking is not None:
            self._ticking.cancel()

    def add(self, connection: GrpcConnection) -> None:
        """Know a connection that was opened."""
        self._ages_s[connection] = self._lifetimes.age_s * self._jitter(0.9, 1.1)
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def remove(self, connection: GrpcConnection) -> None:
        """Forget a connection that has ended."""
        self._ages_s.pop(connection, None)
        if not self._ages_s:
            self._empty.set()

    def mark(self, connection: GrpcConnection) -> None:
        """Write what a connection's client is answered at the end of this turn, in one go."""
        connection.marked = True
        if not self._marked:
            asyncio.get_running_loop().call_soon(self._flush)
        self._marked.append(connection)

    def _flush(self) -> None:
        marked, self._marked = self._marked, []
        for connection in marked:
            if connection.marked:
                connection.flush()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for connection, age_s in list(self._ages_s.items()):
            try:
                connection.tick()
                self._judge(connection, age_s, now_s)
            except Exception as error:  # noqa: BLE001 -- no connection keeps others from their tick
                self._methods.failure(error, PROTOCOL)
                connection.abort()
        self._ticking = loop.call_later(_TICK_S, self._tick) if self._ages_s else None

    def _judge(self, connection: GrpcConnection, age_s: float, now_s: float) -> None:
        times = self._lifetimes
        if not connection.greeted:
            if now_s - connection.opened_s > times.greeting_s:
                connection.abort()
        elif connection.leaving_s is not None:
            if now_s - connection.leaving_s > times.grace_s:
                connection.abort()
            elif connection.idle and now_s - connection.leaving_s > _TICK_S:
                connection.close()
        elif self._retiring or now_s - connection.opened_s > age_s or now_s - connection.busy_s > times.idle_s:
            connection.shutdown()


def limits_of(max_message_bytes: int) -> Limits:
    """Return what one connection may do."""
    most = 4 * max_message_bytes
    return Limits(message_bytes=max_message_bytes, held_bytes=max(most, Limits().held_bytes), streaming=PATHS)
