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
from time import perf_counter
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from fairlead.route import EXPERIMENT_HEADER
from fairlead_server.errors import RequestError
from fairlead_server.exposure.experiment import RawHeaders
from fairlead_server.exposure.routes import Headers
from fairlead_server.protocol import v2
from fairlead_server.protocol.heads import reader
from fairlead_server.protocol.http import KEEP_ALIVE_S, HttpProtocol
from fairlead_server.protocol.paths import Target, resolve
from fairlead_server.protocol.replies import FormedRequest, Route, Strict
from fairlead_server.protocol.rest import (
    PROTOCOLS,
    TIMEOUT_HEADER,
    Answer,
    Limits,
    deadline_of,
    refusal,
    slow_body,
    slow_head,
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
_QUIET_LOOKS: Final = 5
_LOOK_S: Final = KEEP_ALIVE_S / _QUIET_LOOKS
"""A connection is looked at so often; when nothing has happened in as many looks, it is closed."""


class Outgoing:
    """Answers on their way: at once, or while a run's requests are told of it, after the last of them.

    A client that sleeps is woken by the first answer it gets, at the server's cost; answers that follow at once find
    it awake.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self._holds = False

    def write(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Write an answer."""
        if self._holds:
            self._held.append((transport, answer))
        else:
            transport.write(answer)

    def hold(self) -> None:
        """Keep what is written until :meth:`release`."""
        self._holds = True

    def release(self) -> None:
        """Write what was kept."""
        self._holds = False
        held, self._held = self._held, []
        for transport, answer in held:
            transport.write(answer)


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
        self.read = reader()
        """Reads a request that came whole and plain; None if only the parser can."""
        self._routes: dict[bytes, Route] = {}
        service.on_change(self.forget)
        self.headers: Sequence[tuple[bytes, bytes]] | None = None
        """Those that every answer has, as they were when the following were written; see :meth:`renew`."""
        self.shared = b""
        self.closes = False
        """Whether an answer ends its connection."""
        self.json_start = b""
        """Start of an answer with a prediction."""
        self.outgoing = Outgoing()

    def forget(self) -> None:
        """Forget the paths that were asked, and the forms of their requests."""
        self._routes.clear()

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
        return route if served is route.served else self._made(url, target, served)

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
        return self._made(url, target, served)

    def _made(self, url: bytes, target: Target, served: Served) -> Route:
        route = self._routes[url] = Route(target, served, self.service)
        route.batch.answers = self.outgoing
        return route

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
        self._head_deadline: asyncio.TimerHandle | None = None
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
        lane = self._lane
        if lane.read is not None and self._is_between and self._is_free():
            plain = lane.read(data)
            if plain is not None:
                url, body, json_length, timeout, headers = plain
                route = lane.route(url)
                if route is not None and len(body) <= lane.limits.body_bytes:
                    self._ask(route, body, json_length, timeout, headers)
                    return
        super().data_received(data)
        if self._route is not None and self._body_deadline is None:
            self._wait_for_body()
        if self._is_in_head or self._head_deadline is not None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was being read."""
        if self._watch is not None:
            self._watch.cancel()
        self._forget_head()
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
        self._is_between = False
        self._is_in_head = True
        if self._head_deadline is not None:
            self._forget_head()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_plain = True
        self._is_kept = self._is_experiment = False
        self._json_length = self._timeout = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        name = name.lower()
        value = value.rstrip(b" \t")
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
        self._ask(route, body, self._json_length, self._timeout, headers)

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

    def _wait_for_head(self) -> None:
        """Bound the time in which the rest of a request's head must come."""
        if not self._is_in_head:
            self._forget_head()
        elif self._head_deadline is None:
            self._head_deadline = self.loop.call_later(self._lane.limits.head_deadline_s, self._refuse_slow_head)

    def _forget_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _refuse_slow_head(self) -> None:
        """Answer, and end the connection; one that waits for answers is left until it has them."""
        self._head_deadline = None
        if not self._is_free():
            self._wait_for_head()
        elif not self.transport.is_closing():
            self._ends = True
            self.write_answer(refusal(slow_head(self._lane.limits)))

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
        headers: Headers | None,
    ) -> None:
        """Have a request answered; ``headers`` are None if no experiment is named in them."""
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
        if reading is None or not route.ready:
            Strict(self, route, headers).begin(body, json_length, deadline_s)
            return
        one = FormedRequest()
        one.asker = self
        one.path = route
        one.headers = headers
        one.start_s = start_s
        one.gone = self.transport.is_closing
        one.form, rows, count = reading
        one.begin(rows, count, deadline_s)

    def write_prediction(self, body: bytes, token: bytes | None) -> None:
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
            lane.outgoing.write(transport, b"%bcontent-length: %d\r\n\r\n%b" % (lane.json_start, len(body), body))
        else:
            named = (lane.json_start, token, len(body), body)
            lane.outgoing.write(transport, b"%bx-prediction-id: %b\r\ncontent-length: %d\r\n\r\n%b" % named)

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
