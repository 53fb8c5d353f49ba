"""The engine that needs nothing built: hyper-h2, with flow control, limits and gRPC's framing around it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    UnknownFrameReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame

from fairlead_server.errors import InvalidRequest, RequestError, RequestTooLarge, UnsupportedEncoding
from fairlead_server.exposure.experiment import RawHeaders
from fairlead_server.protocol.grpc.budget import Account, Budget
from fairlead_server.protocol.grpc.engine import (
    NOT_GRPC,
    TAKEN_BYTES,
    Engine,
    Event,
    Limits,
    Metadata,
    Sent,
    timeout_s,
)
from fairlead_server.protocol.grpc.framing import Inbox, framed
from fairlead_server.protocol.grpc.remembering import HeaderRules, RememberingDecoder, RememberingEncoder
from fairlead_server.protocol.grpc.status import NUMBER_OF

_Headers = list[tuple[bytes, bytes]]

_CONFIG: Final = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_inbound_headers=False,  # HeaderRules does
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_HEAD: Final[_Headers] = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_GZIP_HEAD: Final[_Headers] = [*_HEAD, (b"grpc-encoding", b"gzip")]
_OK: Final[_Headers] = [(b"grpc-status", b"0")]
_REFUSED_HTTP: Final[_Headers] = [(b":status", b"415"), (b"content-type", b"text/plain")]
_ENCODINGS: Final = frozenset({b"identity", b"gzip"})
_GLITCHES: Final = 2000
_GLITCHES_PER_TICK: Final = 500
"""Frames that do nothing (PING, SETTINGS, empty DATA …) at once and each tick; h2 in Rust has its own measures."""
_LAST_STREAM: Final = 2**31 - 1
_FAREWELL: Final = b"farewell"


@dataclass(slots=True)
class _Receiving:
    inbox: Inbox
    path: str
    gzip: bool
    timeout: float | None
    metadata: Sent | None
    streams: bool
    """Whether the call was handed over, and its messages follow."""
    ticks: int = 0


@dataclass(slots=True)
class _Parked:
    """What waits for the client's window."""

    data: memoryview
    claimed: int
    trailers: _Headers | None = None
    """None while more messages may follow."""


@dataclass(slots=True)
class _Answering:
    begun: bool = False
    ended_by_client: bool = True
    parked: _Parked | None = field(default=None)


class _Connection(H2Connection):
    """Goes on when the client says that it goes away: hyper-h2 would forget what it was asked, and what it had to send.

    RFC 9113, 6.8: whoever sends GOAWAY may still be answered; the streams that it forbids would be the server's own.
    """

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Any]]:
        told = ConnectionTerminated()
        told.error_code = frame.error_code
        return [], [told]


class PythonEngine:
    """See :class:`~fairlead_server.protocol.grpc.engine.Engine`."""

    def __init__(self, limits: Limits, budget: Budget) -> None:
        """Wait for a client's first bytes."""
        self._limits = limits
        self._account = Account(limits.held_bytes, budget)
        self._h2 = _Connection(_CONFIG)
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.calls,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.window_bytes,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
                SettingCodes.MAX_FRAME_SIZE: 16384,
                SettingCodes.HEADER_TABLE_SIZE: 4096,
            },
        )
        self._h2.initiate_connection()
        self._h2.encoder = RememberingEncoder()
        self._h2.decoder = RememberingDecoder(limits.header_bytes)
        self._rules = HeaderRules()
        self._h2.increment_flow_control_window(limits.connection_window_bytes - 65535)
        self._receiving: dict[int, _Receiving] = {}
        self._answering: dict[int, _Answering] = {}
        self._parked: dict[int, _Answering] = {}
        self._farewell = b""
        self._last_stream = 0
        self._last_allowed = _LAST_STREAM
        self._unsent = 0
        self._resets = limits.resets
        self._glitches = _GLITCHES
        self._leaving = False
        self._is_left = False
        """Whether the client has said that it goes away."""
        self.greeted = False
        self._closed = False
        self._handlers: dict[type[Any], Callable[[Any, list[Event]], None]] = {
            RequestReceived: self._requested,
            DataReceived: self._received,
            StreamEnded: self._ended,
            StreamReset: self._reset,
            WindowUpdated: self._window,
            RemoteSettingsChanged: self._settings,
            PingReceived: self._glitch,
            PriorityUpdated: self._glitch,
            UnknownFrameReceived: self._glitch,
            PingAckReceived: self._ponged,
            ConnectionTerminated: self._terminated,
        }

    @property
    def closed(self) -> bool:
        """See ``Engine``."""
        is_over = self._is_left or (self._leaving and self._last_allowed != _LAST_STREAM)
        return self._closed or (is_over and self.idle)

    @property
    def idle(self) -> bool:
        """See ``Engine``."""
        return not (self._receiving or self._answering)

    @property
    def stalled(self) -> bool:
        """See ``Engine``: nothing that was fed is ever kept."""
        return False

    def feed(self, received: bytes) -> list[Event]:
        """See ``Engine``."""
        events: list[Event] = []
        if self._closed:
            return events
        try:
            happened = self._h2.receive_data(received)
        except (H2Error, ValueError, KeyError, IndexError):  # the latter: hyper-h2 lets a few through
            self._close()
            return events
        handlers = self._handlers
        for event in happened:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event, events)
        if self._resets <= 0 or self._glitches <= 0:
            self._abort()
        return events

    def reply(self, stream: int, message: bytes, compressed: bool = False, metadata: Metadata | None = None) -> bool:
        """See ``Engine``."""
        answering = self._answering.get(stream)
        if answering is None:
            return False
        extra = _encoded(metadata)
        head = _GZIP_HEAD if compressed else _HEAD
        if not self._account.claim(len(message)):
            return self.finish(
                stream, NUMBER_OF["RESOURCE_EXHAUSTED"], "too many answers wait for the client to read them"
            )
        try:
            self._h2.send_headers(stream, head + extra)
        except ProtocolError:
            self._account.release(len(message))
            return self._gone(stream)
        data = memoryview(framed(message, compressed=compressed))
        answering.parked = _Parked(data, len(message), _OK + extra)
        return self._go_on(stream, answering)

    def send(self, stream: int, message: bytes) -> bool:
        """See ``Engine``."""
        answering = self._answering.get(stream)
        if answering is None or not self._account.claim(len(message)):
            return False
        if not answering.begun:
            try:
                self._h2.send_headers(stream, _HEAD)
            except ProtocolError:
                self._account.release(len(message))
                return self._gone(stream)
            answering.begun = True
        data = framed(message, compressed=False)
        if answering.parked is None:
            answering.parked = _Parked(memoryview(data), len(message))
        else:
            answering.parked.data = memoryview(bytes(answering.parked.data) + data)
            answering.parked.claimed += len(message)
        return self._go_on(stream, answering)

    def finish(self, stream: int, status: int, text: str = "", metadata: Metadata | None = None) -> bool:
        """See ``Engine``."""
        self._forget_receiving(stream)
        answering = self._answering.get(stream)
        if answering is None:
            return False
        trailers = [(b"grpc-status", b"%d" % status), *_encoded(metadata)]
        if text:
            trailers.append((b"grpc-message", text.encode()))
        if answering.parked is not None:
            answering.parked.trailers = trailers
            return self._go_on(stream, answering)
        head = trailers if answering.begun else [*_HEAD, *trailers]
        return self._end(stream, answering, head)

    def take(self) -> bytes:
        """See ``Engine``."""
        taken: bytes = self._h2.data_to_send(TAKEN_BYTES)
        if self._unsent:
            self._unsent = 0
            self._go_on_all()
        if self._farewell and len(taken) < TAKEN_BYTES:
            taken += self._farewell
            self._farewell = b""
        return taken

    def tick(self) -> None:
        """See ``Engine``."""
        limits = self._limits
        self._resets = min(limits.resets, self._resets + limits.resets_per_tick)
        self._glitches = min(_GLITCHES, self._glitches + _GLITCHES_PER_TICK)
        late = []
        for stream, receiving in self._receiving.items():
            receiving.ticks += 1
            if receiving.ticks > limits.message_ticks and not receiving.streams:
                late.append(stream)
        for stream in late:
            self._refuse(stream, NUMBER_OF["DEADLINE_EXCEEDED"], "the message did not arrive in time")
        if self._leaving:
            self._leave()

    def shutdown(self) -> None:
        """See ``Engine``."""
        if self._leaving or self._closed:
            return
        self._leaving = True
        try:
            self._h2.ping(_FAREWELL)
        except ProtocolError:
            self._close()
            return
        self._farewell += _goaway(_LAST_STREAM)

    # what clients send

    def _requested(self, event: RequestReceived, events: list[Event]) -> None:
        self.greeted = True
        stream = event.stream_id
        if stream > self._last_allowed or len(self._answering) + len(self._receiving) >= 2 * self._limits.calls:
            self._cut(stream, ErrorCodes.REFUSED_STREAM)
            return
        if not self._rules.allow(event.headers):
            self._cut(stream, ErrorCodes.PROTOCOL_ERROR)
            return
        self._last_stream = max(self._last_stream, stream)
        named = dict(event.headers)
        if named.get(b":method") != b"POST" or not named.get(b"content-type", b"").startswith(b"application/grpc"):
            self._refuse_http(stream, ended=event.stream_ended is not None)
            return
        path = named[b":path"].decode(errors="replace")
        gzip = b"gzip" in [name.strip() for name in named.get(b"grpc-accept-encoding", b"").split(b",")]
        timeout = None
        self._answering[stream] = _Answering(ended_by_client=event.stream_ended is not None)
        try:
            if b"grpc-timeout" in named:
                timeout = timeout_s(named[b"grpc-timeout"].decode("latin-1"))
                if timeout is None:
                    raise InvalidRequest("grpc-timeout is no number with a unit")
            if named.get(b"grpc-encoding", b"identity") not in _ENCODINGS:
                raise UnsupportedEncoding("grpc-encoding must be identity or gzip")
        except RequestError as error:
            self.finish(stream, NUMBER_OF[error.grpc_code], str(error))
            return
        metadata = _metadata(event.headers) if self._limits.marker.encode() in named else None
        streams = path in self._limits.streaming
        inbox = Inbox(self._limits.message_bytes)
        self._receiving[stream] = _Receiving(inbox, path, gzip, timeout, metadata, streams)
        if streams:
            events.append((stream, path, None, False, gzip, timeout, metadata))

    def _received(self, event: DataReceived, events: list[Event]) -> None:
        size = event.flow_controlled_length
        if size:
            self._h2.acknowledge_received_data(size, event.stream_id)
        elif event.stream_ended is None:
            self._glitches -= 1
        stream = event.stream_id
        receiving = self._receiving.get(stream)
        if receiving is None or not event.data:
            return
        try:
            receiving.inbox.push(event.data)
            if receiving.streams:
                while (message := receiving.inbox.pop()) is not None:
                    events.append((stream, *message))
        except (InvalidRequest, RequestTooLarge) as error:
            self._refuse(stream, NUMBER_OF[error.grpc_code], str(error))
            return
        if event.stream_ended is None:
            self._hold(stream, receiving)

    def _hold(self, stream: int, receiving: _Receiving) -> None:
        """Claim room for what is not whole yet."""
        inbox = receiving.inbox
        more = len(inbox) - inbox.held
        if more > 0 and not self._account.claim(more):
            text = "too much is being received at once; send fewer or smaller messages at a time"
            self._refuse(stream, NUMBER_OF["RESOURCE_EXHAUSTED"], text)
            return
        if more < 0:
            self._account.release(-more)
        inbox.held += more

    def _ended(self, event: StreamEnded, events: list[Event]) -> None:
        stream = event.stream_id or 0
        answering = self._answering.get(stream)
        if answering is not None:
            answering.ended_by_client = True
        receiving = self._forget_receiving(stream)
        if receiving is None:
            return
        if receiving.streams:
            events.append((stream, None, False))
            return
        try:
            message, compressed = receiving.inbox.only()
        except (InvalidRequest, RequestTooLarge) as error:
            self.finish(stream, NUMBER_OF[error.grpc_code], str(error))
            return
        events.append(
            (stream, receiving.path, message, compressed, receiving.gzip, receiving.timeout, receiving.metadata)
        )

    def _reset(self, event: StreamReset, events: list[Event]) -> None:
        if event.remote_reset:
            self._resets -= 1
        stream = event.stream_id or 0
        receiving = self._forget_receiving(stream)
        if self._gone(stream, counted=False) and (receiving is None or receiving.streams):
            events.append((stream,))

    def _window(self, event: WindowUpdated, _events: list[Event]) -> None:
        if not self._parked:
            return
        if event.stream_id:
            answering = self._parked.get(event.stream_id)
            if answering is not None:
                self._go_on(event.stream_id, answering)
        else:
            self._go_on_all()

    def _settings(self, event: RemoteSettingsChanged, _events: list[Event]) -> None:
        self._glitch(event, _events)
        self.greeted = True
        self._go_on_all()

    def _glitch(self, _event: object, _events: list[Event]) -> None:
        self._glitches -= 1

    def _ponged(self, event: PingAckReceived, _events: list[Event]) -> None:
        self._glitches -= 1
        if event.ping_data == _FAREWELL:
            self._leave()

    def _terminated(self, event: ConnectionTerminated, _events: list[Event]) -> None:
        self._glitches -= 1
        if event.error_code == ErrorCodes.NO_ERROR:
            self._is_left = True
        else:
            self._close()

    # what they are sent

    def _go_on(self, stream: int, answering: _Answering) -> bool:
        """Send what is parked of a stream as far as the client's window goes; False if the client has reset it."""
        parked = answering.parked
        if parked is None:
            return True
        try:
            while parked.data and self._unsent < TAKEN_BYTES:
                size = min(
                    len(parked.data),
                    self._h2.local_flow_control_window(stream),
                    self._h2.max_outbound_frame_size,
                )
                if size <= 0:
                    break
                self._h2.send_data(stream, parked.data[:size])
                self._unsent += size
                parked.data = parked.data[size:]
            if parked.data:
                self._parked[stream] = answering
                return True
        except ProtocolError:
            return self._gone(stream)
        self._account.release(parked.claimed)
        self._parked.pop(stream, None)
        answering.parked = None
        return True if parked.trailers is None else self._end(stream, answering, parked.trailers)

    def _go_on_all(self) -> None:
        for stream, answering in list(self._parked.items()):
            if self._unsent >= TAKEN_BYTES:
                return
            self._go_on(stream, answering)

    def _end(self, stream: int, answering: _Answering, headers: _Headers) -> bool:
        try:
            if headers:
                self._h2.send_headers(stream, headers, end_stream=True)
            else:
                self._h2.end_stream(stream)
            if not answering.ended_by_client:
                self._h2.reset_stream(stream, ErrorCodes.NO_ERROR)
        except ProtocolError:
            return self._gone(stream)
        self._gone(stream, counted=False)
        return True

    def _gone(self, stream: int, *, counted: bool = True) -> bool:
        """Forget a call that is over; says whether there was one, or False if its client has ended it (``counted``)."""
        self._parked.pop(stream, None)
        answering = self._answering.pop(stream, None)
        if answering is not None and answering.parked is not None:
            self._account.release(answering.parked.claimed)
        return answering is not None and not counted

    def _refuse(self, stream: int, status: int, text: str) -> None:
        self._forget_receiving(stream)
        self.finish(stream, status, text)

    def _cut(self, stream: int, code: ErrorCodes) -> None:
        """Reset a stream, unless it is closed already by what came right behind it."""
        with contextlib.suppress(ProtocolError):
            self._h2.reset_stream(stream, code)

    def _refuse_http(self, stream: int, *, ended: bool) -> None:
        try:
            self._h2.send_headers(stream, _REFUSED_HTTP)
        except ProtocolError:  # cancelled by what came right behind it
            return
        answering = self._answering[stream] = _Answering(begun=True, ended_by_client=ended)
        answering.parked = _Parked(memoryview(NOT_GRPC), 0, [])
        self._go_on(stream, answering)

    def _forget_receiving(self, stream: int) -> _Receiving | None:
        receiving = self._receiving.pop(stream, None)
        if receiving is not None:
            self._account.release(receiving.inbox.held)
        return receiving

    def _leave(self) -> None:
        if self._last_allowed == _LAST_STREAM:
            self._last_allowed = self._last_stream
            self._farewell += _goaway(self._last_stream)

    def _abort(self) -> None:
        try:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        finally:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._receiving.clear()
        self._answering.clear()
        self._parked.clear()
        self._account.close()

    def __del__(self) -> None:
        self._account.close()


def maker(limits: Limits, held_bytes: int) -> Callable[[], Engine]:
    """Return what makes the engines of a process' connections; see ``native.maker``."""
    budget = Budget(held_bytes)
    return lambda: PythonEngine(limits, budget)


def _metadata(headers: Any) -> Sent:
    return RawHeaders([(bytes(name), bytes(value)) for name, value in headers if not name.startswith(b":")])


def _encoded(metadata: Metadata | None) -> _Headers:
    return [] if metadata is None else [(name.encode(), value.encode("latin-1")) for name, value in metadata]


def _goaway(last_stream: int) -> bytes:
    frame: bytes = GoAwayFrame(0, last_stream_id=last_stream, error_code=ErrorCodes.NO_ERROR).serialize()
    return frame
