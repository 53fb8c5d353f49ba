"""Engines without a socket: calls, streams, limits and farewells are the same, whoever speaks HTTP/2."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hpack
import pytest

from fairlead_server.protocol.grpc.engine import MIB, Engine, Limits, timeout_s
from fairlead_server.protocol.grpc.engines import maker_of
from fairlead_server.protocol.grpc.status import NUMBER_OF, encoded
from support.engines import ENGINES, require_engine
from support.http2 import PREFACE, Flag, Frame, Headers, Kind, frame, framed, frames_in, head

PATH = "/a.Service/Method"
STREAM = "/a.Service/Stream"
LIMITS = Limits(message_bytes=1000, held_bytes=3000, calls=10, resets=5, resets_per_tick=1, message_ticks=2)


class Client:
    """The other end of an engine."""

    def __init__(self, engine: Engine, settings: bytes = b"") -> None:
        self.engine = engine
        self._decoder = hpack.Decoder()
        self.engine.feed(PREFACE + frame(Kind.SETTINGS, payload=settings))
        self.greeting = self.take()

    def feed(self, *frames: bytes) -> list[tuple[object, ...]]:
        return [tuple(event) for event in self.engine.feed(b"".join(frames))]

    def call(self, stream: int, message: bytes = b"ask", extra: Headers = ()) -> list[tuple[object, ...]]:
        return self.feed(self.open(stream, extra), self.data(stream, framed(message), ended=True))

    def open(self, stream: int, extra: Headers = (), path: str = PATH) -> bytes:
        return frame(Kind.HEADERS, Flag.END_HEADERS, stream, head(path, extra))

    def data(self, stream: int, payload: bytes, *, ended: bool = False) -> bytes:
        return frame(Kind.DATA, Flag.END_STREAM if ended else 0, stream, payload)

    def take(self) -> list[Frame]:
        raw = b""
        while taken := self.engine.take():
            raw += taken
        return frames_in(raw)

    def answer(self, stream: int) -> tuple[bytes, dict[str, str]]:
        """DATA and headers of a stream among what is to be sent now."""
        data, fields = b"", dict[str, str]()
        for found in self.take():
            if found.kind == Kind.HEADERS:
                named = {str(name): str(value) for name, value in self._decoder.decode(found.payload)}
                fields |= named if found.stream == stream else {}
            elif found.kind == Kind.DATA and found.stream == stream:
                data += found.payload
            elif found.kind == Kind.RST_STREAM and found.stream == stream:
                fields["reset"] = str(int.from_bytes(found.payload, "big"))
        return data, fields


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Callable[..., Client]:
    require_engine(request.param)

    def made(limits: Limits = LIMITS, settings: bytes = b"", held_bytes: int = 0) -> Client:
        return Client(maker_of(request.param, limits, held_bytes)(), settings)

    return made


def kinds(frames: list[Frame]) -> list[str]:
    return [Kind(found.kind).name for found in frames]


def test_a_call_comes_whole_and_is_answered(make: Callable[..., Client]) -> None:
    client = make()
    assert client.call(1) == [(1, PATH, b"ask", False, False, None, None)]
    assert client.engine.reply(1, b"answer")
    data, fields = client.answer(1)
    assert data == framed(b"answer")
    assert fields == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
    assert client.engine.idle


def test_a_message_may_come_in_any_number_of_frames(make: Callable[..., Client]) -> None:
    client = make()
    assert client.feed(client.open(1)) == []
    for byte in framed(b"ask"):
        assert client.feed(client.data(1, bytes([byte]))) == []
    assert client.feed(client.data(1, b"", ended=True)) == [(1, PATH, b"ask", False, False, None, None)]


def test_bytes_may_come_one_at_a_time(make: Callable[..., Client]) -> None:
    client = make()
    raw = client.open(1) + client.data(1, framed(b"ask"), ended=True)
    events = [event for byte in raw for event in client.feed(bytes([byte]))]
    assert events == [(1, PATH, b"ask", False, False, None, None)]


def test_what_a_client_says_besides_is_handed_over(make: Callable[..., Client]) -> None:
    client = make(replace(LIMITS, marker="x-marker"))
    extra = [("grpc-timeout", "250m"), ("grpc-accept-encoding", "identity, gzip"), ("x-unit", "é")]
    (event,) = client.call(1, extra=extra)
    assert event[3:] == (False, True, 0.25, None)
    (event,) = client.call(3, extra=[*extra, ("x-marker", "1"), ("x-twice", "a"), ("x-twice", "b")])
    sent: Any = event[6]
    wanted = {"x-marker": "1", "x-unit": "é".encode().decode("latin-1"), "x-twice": "a,b", "x-none": None}
    assert {name: sent.get(name) for name in wanted} == wanted


def test_metadata_is_answered_before_and_after(make: Callable[..., Client]) -> None:
    client = make()
    client.call(1)
    client.engine.reply(1, b"", metadata=[("x-prediction-id", "t0ken")])
    heads = [found for found in client.take() if found.kind == Kind.HEADERS]
    decoder = hpack.Decoder()
    named = [{str(name): str(value) for name, value in decoder.decode(found.payload)} for found in heads]
    assert [fields["x-prediction-id"] for fields in named] == ["t0ken", "t0ken"]


def test_a_refusal_has_a_status_and_a_text(make: Callable[..., Client]) -> None:
    client = make()
    client.call(1)
    assert client.engine.finish(1, 5, "no%20such", [("grpc-retry-pushback-ms", "7")])
    data, fields = client.answer(1)
    assert data == b""
    assert (fields["grpc-status"], fields["grpc-message"], fields["grpc-retry-pushback-ms"]) == ("5", "no%20such", "7")


def test_a_stream_is_read_and_answered_message_by_message(make: Callable[..., Client]) -> None:
    client = make(replace(LIMITS, streaming=(STREAM,)))
    assert client.feed(client.open(1, path=STREAM)) == [(1, STREAM, None, False, False, None, None)]
    two = framed(b"one") + framed(b"two")
    assert client.feed(client.data(1, two[:10])) == [(1, b"one", False)]
    assert client.engine.send(1, b"first")
    assert client.feed(client.data(1, two[10:], ended=True)) == [(1, b"two", False), (1, None, False)]
    assert client.engine.send(1, b"second")
    assert client.engine.finish(1, 0)
    data, fields = client.answer(1)
    assert (data, fields["grpc-status"]) == (framed(b"first") + framed(b"second"), "0")


def test_who_cancels_is_not_answered(make: Callable[..., Client]) -> None:
    client = make()
    client.call(1)
    assert client.feed(frame(Kind.RST_STREAM, 0, 1, b"\0\0\0\x08")) == [(1,)]
    assert not client.engine.reply(1, b"late")
    assert client.answer(1) == (b"", {})
    client.call(3)
    assert client.engine.reply(3, b"")


@pytest.mark.parametrize(
    ("payload", "extra", "code"),
    [
        (b"", (), "INVALID_ARGUMENT"),
        (b"\0\0\0\0\5abc", (), "INVALID_ARGUMENT"),
        (framed(b"one") + framed(b"two"), (), "INVALID_ARGUMENT"),
        (b"\7\0\0\0\0", (), "INVALID_ARGUMENT"),
        (framed(b"x" * 1001), (), "RESOURCE_EXHAUSTED"),
        (framed(b"x"), [("grpc-timeout", "soon")], "INVALID_ARGUMENT"),
        (framed(b"x"), [("grpc-encoding", "snappy")], "UNIMPLEMENTED"),
    ],
    ids=["nothing", "cut off", "two messages", "no flag", "too large", "timeout", "encoding"],
)
def test_what_is_no_call_is_refused_and_the_next_is_answered(
    make: Callable[..., Client], payload: bytes, extra: Headers, code: str
) -> None:
    client = make()
    assert client.feed(client.open(1, extra), client.data(1, payload, ended=True)) == []
    assert client.answer(1)[1]["grpc-status"] == str(NUMBER_OF[code])
    assert len(client.call(3)) == 1


def test_a_message_is_refused_by_its_length_before_it_has_come(make: Callable[..., Client]) -> None:
    client = make()
    client.feed(client.open(1), client.data(1, b"\0" + struct.pack(">I", 1001)))
    assert client.answer(1)[1]["grpc-status"] == str(NUMBER_OF["RESOURCE_EXHAUSTED"])
    assert client.engine.idle


@pytest.mark.parametrize("block", [head(PATH, content_type="text/html"), head(PATH, method="GET")])
def test_what_is_not_grpc_is_told_so(make: Callable[..., Client], block: bytes) -> None:
    client = make()
    assert client.feed(frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, block)) == []
    data, fields = client.answer(1)
    assert fields[":status"] == "415"
    assert b"gRPC" in data


def test_half_messages_are_held_to_a_budget(make: Callable[..., Client]) -> None:
    client = make()
    half = b"\0" + struct.pack(">I", 1000) + b"x" * 900
    for stream in (1, 3, 5):
        client.feed(client.open(stream), client.data(stream, half))
    assert client.answer(5) == (b"", {})
    client.feed(client.open(7), client.data(7, half))
    assert client.answer(7)[1]["grpc-status"] == str(NUMBER_OF["RESOURCE_EXHAUSTED"])
    assert [event[0] for event in client.feed(client.data(1, b"x" * 100, ended=True))] == [1]


def test_a_message_that_does_not_come_is_not_waited_for(make: Callable[..., Client]) -> None:
    client = make()
    client.feed(client.open(1), client.data(1, framed(b"ask")[:3]))
    client.engine.tick()
    client.engine.tick()
    assert not client.engine.idle
    client.engine.tick()
    assert client.answer(1)[1]["grpc-status"] == str(NUMBER_OF["DEADLINE_EXCEEDED"])
    assert client.engine.idle


def test_answers_wait_for_the_clients_window(make: Callable[..., Client]) -> None:
    client = make(settings=struct.pack(">HI", 4, 10))
    client.call(1)
    client.engine.reply(1, b"0123456789")
    data, fields = client.answer(1)
    assert (data, "grpc-status" in fields) == (framed(b"0123456789")[:10], False)
    client.feed(frame(Kind.WINDOW_UPDATE, 0, 1, struct.pack(">I", 100)))
    data, fields = client.answer(1)
    assert (data, fields["grpc-status"]) == (b"56789", "0")


def test_answers_that_nobody_takes_are_held_to_a_budget(make: Callable[..., Client]) -> None:
    client = make(settings=struct.pack(">HI", 4, 0))
    for stream in (1, 3, 5, 7):
        client.call(stream)
    for stream in (1, 3, 5):
        assert client.engine.reply(stream, b"x" * 1000)
    client.engine.reply(7, b"x")
    assert client.answer(7)[1]["grpc-status"] == str(NUMBER_OF["RESOURCE_EXHAUSTED"])
    assert not client.engine.idle


def test_large_answers_are_cut_into_frames(make: Callable[..., Client]) -> None:
    client = make(Limits(), settings=struct.pack(">HI", 4, 2**30))
    client.feed(frame(Kind.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30)))
    client.call(1)
    client.engine.reply(1, b"x" * (3 * MIB))
    data, fields = client.answer(1)
    assert (len(data), fields["grpc-status"]) == (3 * MIB + 5, "0")


def test_who_cancels_again_and_again_is_sent_away(make: Callable[..., Client]) -> None:
    client = make()
    for stream in range(1, 2 * LIMITS.resets + 1, 2):
        assert not client.engine.closed
        client.call(stream)
        client.feed(frame(Kind.RST_STREAM, 0, stream, b"\0\0\0\x08"))
    last = client.take()[-1]
    assert (last.kind, last.payload[4:8]) == (Kind.GOAWAY, struct.pack(">I", 11))
    assert client.engine.closed


def test_who_cancels_now_and_then_is_forgiven(make: Callable[..., Client]) -> None:
    client = make()
    for stream in range(1, 8 * LIMITS.resets, 2):
        client.call(stream)
        client.feed(frame(Kind.RST_STREAM, 0, stream, b"\0\0\0\x08"))
        client.engine.tick()
    assert not client.engine.closed


def test_pings_are_answered(make: Callable[..., Client]) -> None:
    client = make()
    client.feed(frame(Kind.PING, 0, 0, b"12345678"))
    assert Frame(Kind.PING, Flag.END_STREAM, 0, b"12345678") in client.take()


def test_limits_are_announced(make: Callable[..., Client]) -> None:
    client = make()
    settings = next(found.payload for found in client.greeting if found.kind == Kind.SETTINGS)
    pairs = dict(struct.unpack(">HI", settings[at : at + 6]) for at in range(0, len(settings), 6))
    assert (pairs[3], pairs[4], pairs[6]) == (LIMITS.calls, LIMITS.window_bytes, LIMITS.header_bytes)


def test_a_farewell_lets_calls_end(make: Callable[..., Client]) -> None:
    client = make()
    client.call(1)
    client.engine.shutdown()
    told = client.take()
    assert [found.payload[:4] for found in told if found.kind == Kind.GOAWAY] == [struct.pack(">I", 2**31 - 1)]
    ping = next(found for found in told if found.kind == Kind.PING)
    assert len(client.call(3)) == 1  # was on its way
    client.feed(frame(Kind.PING, Flag.END_STREAM, 0, ping.payload))
    assert [found.payload[:4] for found in client.take() if found.kind == Kind.GOAWAY] == [struct.pack(">I", 3)]
    assert not client.engine.closed
    client.engine.reply(1, b"one")
    client.engine.reply(3, b"three")
    assert client.answer(3)[0] == framed(b"three")
    assert client.engine.closed


def goaway(error: int = 0) -> bytes:
    return frame(Kind.GOAWAY, 0, 0, struct.pack(">II", 0, error))


def test_a_client_that_says_that_it_goes_is_still_answered(make: Callable[..., Client]) -> None:
    client = make()
    client.call(1)
    client.feed(client.open(3))
    assert client.feed(goaway()) == []
    assert not client.engine.closed
    assert client.feed(client.data(3, framed(b"late"), ended=True)) == [(3, PATH, b"late", False, False, None, None)]
    assert client.engine.reply(1, b"one")
    assert client.answer(1)[0] == framed(b"one")
    assert not client.engine.closed
    assert client.engine.reply(3, b"x" * 900)
    assert client.answer(3)[0] == framed(b"x" * 900)
    assert client.engine.closed


def test_an_answer_waits_for_the_window_of_a_client_that_goes(make: Callable[..., Client]) -> None:
    client = make(settings=struct.pack(">HI", 4, 100))
    client.call(1)
    client.engine.reply(1, b"x" * 195)
    first, _ = client.answer(1)
    client.feed(goaway())
    assert not client.engine.closed
    client.feed(frame(Kind.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000)))
    rest, _ = client.answer(1)
    assert first + rest == framed(b"x" * 195)
    assert client.engine.closed


def test_a_client_that_has_failed_is_answered_nothing(make: Callable[..., Client]) -> None:
    client = make()
    client.call(1)
    client.feed(goaway(error=2))
    client.engine.reply(1, b"one")
    client.take()
    assert client.engine.closed


def test_what_is_no_http2_ends_the_connection(make: Callable[..., Client]) -> None:
    client = make()
    assert client.feed(frame(Kind.DATA, 0, 1, b"")) == []
    assert "GOAWAY" in kinds(client.take())
    assert client.engine.closed
    assert client.feed(b"more") == []
    assert not client.engine.reply(1, b"")


def test_headers_have_a_limit(make: Callable[..., Client]) -> None:
    client = make(replace(LIMITS, header_bytes=1000))
    extra = [(f"x-{number}", "y" * 100) for number in range(20)]
    assert client.call(1, extra=extra) == []
    client.take()
    assert client.engine.idle


@pytest.mark.parametrize(("text", "seconds"), [("1S", 1.0), ("2M", 120.0), ("1", None), ("123456789n", None)])
def test_timeouts_have_a_unit(text: str, seconds: float | None) -> None:
    assert timeout_s(text) == seconds


def test_texts_travel_as_ascii() -> None:
    assert encoded("50 % of <é>\n") == "50 %25 of <%C3%A9>%0A"
    assert len(encoded("x" * 5000)) < 1100


@pytest.mark.parametrize(
    "block",
    [
        head(PATH, content_type="text/plain"),
        head(PATH, method="GET"),
        head(PATH, [("grpc-timeout", "soon")]),
        head(PATH, [("connection", "close")]),
    ],
    ids=["content-type", "method", "timeout", "header"],
)
def test_what_is_refused_and_cancelled_at_once_harms_no_other_call(make: Callable[..., Client], block: bytes) -> None:
    client = make()
    reset = frame(Kind.RST_STREAM, 0, 1, struct.pack(">I", 8))
    client.feed(frame(Kind.HEADERS, Flag.END_HEADERS, 1, block), reset)
    client.take()
    assert client.call(3) == [(3, PATH, b"ask", False, False, None, None)]
    assert client.engine.reply(3, b"answer")
    assert client.answer(3)[0] == framed(b"answer")
