"""Predictions over REST, answered from the HTTP parser's callbacks: no ASGI cycle, no task, no scope.

A request for ``:predict`` or ``infer`` is read here, its rows wait for the turn's joint run, and its answer is
written from there. Everything else, and everything that is not plain (chunked or compressed bodies, ``expect``,
HTTP/1.0, requests that arrive while another of the connection is unanswered, clients that do not read), goes to the
ordinary application, for which uvicorn's scope is built only then. Both answer alike: what the lane does not
recognise is read by the application's own decoders, and every refusal has the application's shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from fairlead.route import EXPERIMENT_HEADER
from fairlead_server.errors import InferenceFailed, RequestError
from fairlead_server.exposure.experiment import Outcome, RawHeaders
from fairlead_server.metrics import Stage, StageTimer
from fairlead_server.predict.batch import Columns, Waiting
from fairlead_server.predict.joint import Part
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol import v1, v2
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.forms import Form, Forms
from fairlead_server.protocol.http import KEEP_ALIVE_S, HttpProtocol
from fairlead_server.protocol.paths import Resource, Target, resolve
from fairlead_server.protocol.rest import (
    PROTOCOLS,
    TIMEOUT_HEADER,
    Answer,
    Limits,
    by_deadline,
    deadline_of,
    encode_v1,
    octets,
    refusal,
    slow_body,
    with_token,
)
from fairlead_server.protocol.service import Served, Service

_LENGTH_HEADER: Final = v2.LENGTH_HEADER.encode()
_EXPERIMENT_HEADER: Final = EXPERIMENT_HEADER.encode()
_MARKED: Final = frozenset(
    {
        b"connection",
        b"content-encoding",
        b"expect",
        b"transfer-encoding",
        b"upgrade",
        _LENGTH_HEADER,
        _EXPERIMENT_HEADER,
        TIMEOUT_HEADER,
    }
)
"""Headers that the lane looks at."""
_MOST_PATHS: Final = 1024
_MOST_HEADS: Final = 4096
_MOST_SEEN: Final = 16_384
_LONGEST_HEAD: Final = 2048
_QUIET_LOOKS: Final = 5
_LOOK_S: Final = KEEP_ALIVE_S / _QUIET_LOOKS
"""A connection is looked at so often; when nothing has happened in as many looks, it is closed."""


class Route:
    """A path of predictions, what it is answered from, and the counters that move with each request."""

    __slots__ = (
        "answered",
        "batch",
        "decode",
        "encode",
        "exposures",
        "forms",
        "is_v1",
        "protocol",
        "served",
        "target",
        "unexposed",
    )

    def __init__(self, target: Target, served: Served) -> None:
        """Answer ``target`` from ``served``."""
        metrics = served.predictor.metrics
        self.target = target
        self.served = served
        self.is_v1 = target.resource is Resource.V1_PREDICT
        self.protocol = PROTOCOLS[target.resource]
        self.forms = Forms(served.schema)
        self.batch = served.predictor.batch
        self.exposures = served.exposures
        self.answered = metrics.requests(self.protocol, "200")
        self.unexposed = metrics.exposed(Outcome.NONE)
        self.decode = metrics.durations(Stage.DECODE)
        self.encode = metrics.durations(Stage.ENCODE)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request that came before, byte by byte, as the parser read it."""

    url: bytes
    length: int
    """Size of the body."""
    json_length: bytes | None
    timeout: bytes | None
    headers: RawHeaders | None
    """None if no experiment is named in them."""


class Lane:
    """What all connections of the process share; used on the event loop's thread alone."""

    def __init__(self, service: Service, limits: Limits) -> None:
        """Make it.

        Args:
            service: What requests are answered from.
            limits: What one request may take.
        """
        self.service = service
        self.limits = limits
        self.heads: dict[bytes, Head] = {}
        """Heads that came more than once, by their bytes."""
        self._seen: set[int] = set()
        """Hashes of heads that came once."""
        self._routes: dict[bytes, Route] = {}
        service.on_change(self._routes.clear)
        self.headers: Sequence[tuple[bytes, bytes]] | None = None
        """Those that every answer has, as they were when the following were written; see :meth:`renew`."""
        self.shared = b""
        self.closes = False
        """Whether an answer ends its connection."""
        self.json_start = b""
        """Start of an answer with a prediction."""

    def route(self, url: bytes) -> Route | None:
        """Return the route of a request line's target, as sent; None if the application should answer."""
        route = self._routes.get(url)
        if route is None:
            return self._found(url)
        target = route.target
        try:
            served = self.service.served_as(target.model, target.version)
        except RequestError:
            return None
        if served is not route.served:
            route = self._routes[url] = Route(target, served)
        return route

    def _found(self, url: bytes) -> Route | None:
        if not url.startswith(b"/v") or not url.isascii() or any(mark in url for mark in (b"%", b"?", b"#")):
            return None
        target = resolve(url.decode())
        if target is None or target.resource not in PROTOCOLS:
            return None
        try:
            served = self.service.served_as(target.model, target.version)
        except RequestError:
            return None
        if len(self._routes) >= _MOST_PATHS:
            self._routes.clear()
        route = self._routes[url] = Route(target, served)
        return route

    def learn(self, raw: bytes, head: Head) -> None:
        """Take note of a head that the parser has read; one that comes again need not be read again."""
        if len(raw) > _LONGEST_HEAD:
            return
        place = hash(raw)
        if place not in self._seen:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(place)
            return
        if len(self.heads) >= _MOST_HEADS:
            self.heads.clear()
        self.heads[raw] = head

    def renew(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Write the headers that every answer has from now on."""
        self.headers = headers
        self.shared = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.closes = any(name == b"connection" and b"close" in value.lower() for name, value in headers)
        self.json_start = b"%b%bcontent-type: application/json\r\n" % (STATUS_LINE[200], self.shared)


class LaneProtocol(HttpProtocol):
    """One connection."""

    def __init__(self, lane: Lane, config: uvicorn.Config, state: ServerState, lost: Callable[[], None]) -> None:
        """Make the protocol of one connection.

        Args:
            lane: What all connections share.
            config: Of uvicorn's protocol.
            state: What all connections share with uvicorn's protocol.
            lost: Called when the connection has ended.
        """
        super().__init__(config, state, lost)
        self._lane = lane
        self._data = b""
        """What is being parsed."""
        self._is_whole = False
        """Whether it started with a request, and has had no other."""
        self._is_between = True
        """Whether the parser has read whole requests, and nothing of the next."""
        self._route: Route | None = None
        """Of the request that is being read in the lane."""
        self._body = b""
        self._more: list[bytes] = []
        self._size_bytes = 0
        self._is_asked = False
        """Whether a request waits for its answer in the lane."""
        self._is_refused = False
        """Whether what is being read has been answered already."""
        self._ends = False
        """Whether the next answer is the last."""
        self._is_plain = True
        self._is_kept = False
        self._json_length: bytes | None = None
        self._timeout: bytes | None = None
        self._is_experiment = False
        self._is_heard = False
        self._is_in_head = False
        self._quiet_looks = 0
        self._watch: asyncio.TimerHandle | None = None
        self._body_deadline: asyncio.TimerHandle | None = None

    @property
    def service(self) -> Service:
        """What requests are answered from."""
        return self._lane.service

    # What the transport says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start to watch the connection."""
        super().connection_made(transport)
        self._watch = self.loop.call_later(_LOOK_S, self._look)

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        self._is_heard = True
        if self._is_between and self._is_free():
            end = data.find(b"\r\n\r\n") + 4
            head = self._lane.heads.get(data[:end])
            if head is not None and len(data) - end == head.length:
                route = self._lane.route(head.url)
                if route is not None:
                    self._ask(route, data[end:], head.json_length, head.timeout, head.headers)
                    return
            self._data = data
            self._is_whole = True
        super().data_received(data)
        self._data = b""
        if self._route is not None and self._body_deadline is None:
            self._wait_for_body()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was being read."""
        if self._watch is not None:
            self._watch.cancel()
        route = self._read_no_more()
        if route is not None:
            self._lane.service.metrics_of(route.target.model).count_request(route.protocol, "499")
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection once what was asked is answered."""
        if self._is_asked or self._route is not None:
            self._ends = True
        else:
            super().shutdown()

    def _unset_keepalive_if_required(self) -> None:
        """Do nothing: idle connections are found by :meth:`_look`, without a timer for each request."""

    def _look(self) -> None:
        """Close a connection that is idle for long, or whose next request's head takes as long to arrive."""
        self._watch = None
        if self.transport.is_closing():
            return
        is_reading = self._is_heard and not self._is_in_head
        if is_reading or self._route is not None or not self._is_free():
            self._quiet_looks = 0
        else:
            self._quiet_looks += 1
        self._is_heard = False
        if self._quiet_looks >= _QUIET_LOOKS:
            self.transport.close()
        else:
            self._watch = self.loop.call_later(_LOOK_S, self._look)

    def _is_free(self) -> bool:
        """Whether everything is answered that was asked, and the client reads the answers."""
        cycle = self.cycle
        return not self._is_asked and (cycle is None or cycle.response_complete) and not self.flow.write_paused

    # What the parser says.

    def on_message_begin(self) -> None:
        """Start a request."""
        self._is_whole = self._is_whole and self._is_between
        self._is_between = False
        self._is_in_head = True
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_plain = True
        self._is_kept = self._is_experiment = False
        self._json_length = self._timeout = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        name = name.lower()
        self.headers.append((name, value))
        if name in _MARKED:
            self._mark(name, value)

    def _mark(self, name: bytes, value: bytes) -> None:
        if name == _EXPERIMENT_HEADER:
            self._is_experiment = True
        elif name == _LENGTH_HEADER:
            self._json_length = value
        elif name == TIMEOUT_HEADER:
            self._timeout = value
        elif name == b"connection" and value.lower() == b"keep-alive":
            self._is_kept = True
        elif name != b"content-encoding" or value.strip().lower() not in {b"identity", b""}:
            self._is_plain = False
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Take the request, or leave it to the application."""
        self._is_in_head = False
        route = self._lane.route(self.url) if self._is_plain and self._is_free() else None
        parser = self.parser
        if (
            route is None
            or self._is_refused
            or parser.get_method() != b"POST"
            or not parser.should_keep_alive()
            or (self._is_kept and parser.get_http_version() == "1.0")
        ):
            self._leave()
            return
        self._route = route
        self._body = b""

    def _leave(self) -> None:
        """Give the request that is being read to the application."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._ends:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Read a part of a body."""
        if self._route is None:
            if not self._is_refused:
                super().on_body(body)
        elif not self._body:
            self._body = body
            self._size_bytes = len(body)
        else:
            self._more.append(body)
            self._size_bytes += len(body)
            if self._size_bytes > self._lane.limits.body_bytes:
                self._leave_with_body()

    def on_message_complete(self) -> None:
        """Answer what was read."""
        self._is_between = True
        route = self._route
        if route is None:
            if not self._is_refused:
                super().on_message_complete()
            self._is_refused = False
            return
        body = b"".join([self._body, *self._more]) if self._more else self._body
        if len(body) > self._lane.limits.body_bytes:
            self._leave_with_body()
            super().on_message_complete()
            return
        self._read_no_more()
        headers = RawHeaders(self.headers) if self._is_experiment else None
        if self._is_whole:
            self._learn(len(body), headers)
        self._ask(route, body, self._json_length, self._timeout, headers)

    def _learn(self, length: int, headers: RawHeaders | None) -> None:
        data = self._data
        end = len(data) - length
        if data.find(b"\r\n\r\n") + 4 == end and data.startswith(b"POST "):
            self._lane.learn(data[:end], Head(self.url, length, self._json_length, self._timeout, headers))

    def _leave_with_body(self) -> None:
        """Give the request to the application, with what there is of its body."""
        body = b"".join([self._body, *self._more])
        self._read_no_more()
        self._leave()
        if body:
            super().on_body(body)

    def _read_no_more(self) -> Route | None:
        """Forget what is being read; return its route."""
        route, self._route = self._route, None
        self._body = b""
        if self._more:
            self._more.clear()
        if self._body_deadline is not None:
            self._body_deadline.cancel()
            self._body_deadline = None
        return route

    def _wait_for_body(self) -> None:
        """Bound the time in which the rest of a body must come; leave a body that is announced to be too large."""
        announced = next((value for name, value in self.headers if name == b"content-length"), b"0")
        limits = self._lane.limits
        if int(announced) > limits.body_bytes:
            self._leave_with_body()
        else:
            self._body_deadline = self.loop.call_later(limits.body_deadline_s, self._refuse_slow_body)

    def _refuse_slow_body(self) -> None:
        route = self._read_no_more()
        if route is not None:
            self._is_refused = True
            error = slow_body(self._lane.limits)
            self._lane.service.metrics_of(route.target.model).count_request(route.protocol, str(error.http_status))
            self.write_answer(refusal(error))

    # What is answered.

    def _ask(
        self,
        route: Route,
        body: bytes,
        json_length: bytes | None,
        timeout: bytes | None,
        headers: RawHeaders | None,
    ) -> None:
        """Have a request answered."""
        self._is_asked = True
        deadline_s = None if timeout is None else deadline_of(timeout, self.loop.time())
        start_s = perf_counter()
        forms = route.forms
        if route.is_v1:
            reading = forms.read_v1(body)
        elif json_length is None:
            reading = forms.read_v2(body)
        else:
            reading = forms.read_binary(body, json_length)
        if reading is None:
            _Strict(self, self._lane.service, route, headers).begin(body, json_length, deadline_s)
            return
        one = _Formed()
        one.connection = self
        one.route = route
        one.headers = headers
        one.start_s = start_s
        one.form, one.columns, one.rows = reading
        one.deadline_s = deadline_s
        one.gone = self.transport.is_closing
        route.decode.add(perf_counter() - start_s)
        route.batch.enqueue(one)

    def write_prediction(self, body: bytes, token: str | None) -> None:
        """Answer what was asked with a prediction in JSON."""
        lane, transport = self._lane, self.transport
        if self.server_state.default_headers is not lane.headers:
            lane.renew(self.server_state.default_headers)
        if self._ends or lane.closes or self.pipeline:
            self.write_answer(with_token(Answer(200, body), token))
            return
        self._is_asked = False
        if transport.is_closing():
            return
        if token is None:
            transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (lane.json_start, len(body), body))
        else:
            named = (lane.json_start, token.encode(), len(body), body)
            transport.write(b"%bx-prediction-id: %b\r\ncontent-length: %d\r\n\r\n%b" % named)

    def write_answer(self, answer: Answer) -> None:
        """Answer what was asked."""
        lane, transport = self._lane, self.transport
        self._is_asked = False
        if transport.is_closing():
            return
        if self.server_state.default_headers is not lane.headers:
            lane.renew(self.server_state.default_headers)
        named = b"".join([b"%b: %b\r\n" % header for header in answer.headers])
        length = b"content-length: %d\r\n" % len(answer.body)
        ending = b"connection: close\r\n" if self._ends and not lane.closes else b""
        transport.write(
            b"".join([STATUS_LINE[answer.status], lane.shared, named, length, ending, b"\r\n", answer.body])
        )
        if self._ends or lane.closes:
            transport.close()
        elif self.pipeline:
            self.flow.resume_reading()
            super()._start_asgi_task(*self.pipeline.pop())

    def on_response_complete(self) -> None:
        """Go on after an answer of the application; :meth:`_look` ends the connection, and no timer of uvicorn's."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_asked:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            super()._start_asgi_task(cycle, app)


class _Formed(Waiting):
    """A request of a known form, and its answer."""

    __slots__ = ("connection", "form", "headers", "route", "start_s")

    connection: LaneProtocol
    route: Route
    headers: RawHeaders | None
    """None if no experiment is named in them."""
    form: Form
    start_s: float

    def done(self, outcome: Columns | RequestError) -> None:
        """Answer."""
        route = self.route
        if type(outcome) is not Part:
            error = outcome if isinstance(outcome, RequestError) else InferenceFailed("rows were not run as rows")
            self._fail(error)
            return
        try:
            body, json_length = self.form.answer(outcome)
            joint = outcome.joint
            now_s = perf_counter()
            route.encode.add(now_s - joint.mark_s)
            joint.mark_s = now_s
            if self.headers is None:
                route.unexposed.value += 1
                token = None
            else:
                response = PredictResponse(outcome, None, degraded=False, features=self.columns)
                token = route.exposures.answered(self.headers, response, int((now_s - self.start_s) * 1e6))
        except Exception as error:  # noqa: BLE001 -- the top of a request: a client never sees a traceback
            self._fail(error)
            return
        route.answered.value += 1
        if json_length is None:
            self.connection.write_prediction(body, token)
        else:
            self.connection.write_answer(with_token(Answer(200, body, octets(json_length)), token))

    def _fail(self, error: Exception) -> None:
        elapsed_us = int((perf_counter() - self.start_s) * 1e6)
        self.connection.write_answer(_failed(self.connection.service, self.route, self.headers, error, elapsed_us))


class _Strict:
    """A request that is read as the application reads it, and its answer."""

    __slots__ = ("_connection", "_encode", "_headers", "_route", "_service", "_timer")

    def __init__(self, connection: LaneProtocol, service: Service, route: Route, headers: RawHeaders | None) -> None:
        """Answer on ``connection``; ``headers`` are None if no experiment is named in them."""
        self._connection = connection
        self._service = service
        self._route = route
        self._headers = headers
        self._timer: StageTimer = route.served.predictor.metrics.timer()

    def begin(self, body: bytes, json_length: bytes | None, deadline_s: float | None) -> None:
        """Read the body, and have its rows run."""
        served = self._route.served
        call: InferCall | None = None
        try:
            if self._route.is_v1:
                request = v1.decode(body, served.schema)
                self._encode = partial(encode_v1, schema=served.schema)
            else:
                call = v2.decode(body, None if json_length is None else json_length.decode("latin-1"), served.schema)
                request = call.request
                self._encode = partial(v2.encode, call, schema=served.schema)
            self._timer.lap(Stage.DECODE)
            served.predictor.submit(by_deadline(request, deadline_s), self._timer, self._answer)
        except Exception as error:  # noqa: BLE001 -- the top of a request: a client never sees a traceback
            self._fail(error)
            return
        self._route.forms.learn(body, json_length, call)

    def _answer(self, outcome: PredictResponse | RequestError) -> None:
        if isinstance(outcome, RequestError):
            self._fail(outcome)
            return
        timer, exposures = self._timer, self._route.exposures
        try:
            body, json_length = self._encode(outcome)
            timer.lap(Stage.ENCODE)
            if self._headers is None:
                exposures.count_unexposed()
                token = None
            else:
                token = exposures.answered(self._headers, outcome, timer.elapsed_us)
        except Exception as error:  # noqa: BLE001 -- as above
            self._fail(error)
            return
        self._route.answered.value += 1
        answer = Answer(200, body) if json_length is None else Answer(200, body, octets(json_length))
        self._connection.write_answer(with_token(answer, token))

    def _fail(self, error: Exception) -> None:
        answer = _failed(self._service, self._route, self._headers, error, self._timer.elapsed_us)
        self._connection.write_answer(answer)


def _failed(service: Service, route: Route, headers: RawHeaders | None, error: Exception, elapsed_us: int) -> Answer:
    """Count a request that gets no prediction, and return its answer."""
    route.exposures.failed({} if headers is None else headers, error, elapsed_us)
    answer = refusal(service.failure(error, route.protocol))
    service.metrics_of(route.target.model).count_request(route.protocol, str(answer.status))
    return answer
