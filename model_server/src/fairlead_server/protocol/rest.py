"""V1 and V2 over REST, as an ASGI application in front of KServe's.

KServe's own handlers answer clients' mistakes with 500 and 422 and take no request without a content type, so every
route of the protocols is answered here. What only KServe has (its OpenAPI page) falls through.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from fairlead.feedback.token import PREDICTION_HEADER
from fairlead_server.errors import (
    BodyTimeout,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    RequestError,
    RequestTooLarge,
    UnknownRoute,
    UnsupportedEncoding,
)
from fairlead_server.exposure.experiment import RawHeaders
from fairlead_server.metrics import Stage, StageTimer
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.protocol import document, metadata, statistics, v1, v2
from fairlead_server.protocol.others import Others
from fairlead_server.protocol.paths import Resource, Target, resolve
from fairlead_server.protocol.schema import Schema
from fairlead_server.protocol.service import Served, Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]

_KSERVE_PATHS = frozenset({"/docs", "/openapi.json"})
PROTOCOLS = {Resource.V1_PREDICT: "v1-rest", Resource.INFER: "v2-rest"}
"""What predictions are counted under."""
TIMEOUT_HEADER = b"x-envoy-expected-rq-timeout-ms"
"""Header in which Envoy says after how many milliseconds it gives up."""
_LENGTH_HEADER = v2.LENGTH_HEADER.encode()
_PREDICTION_HEADER = PREDICTION_HEADER.encode()
_OF_ALL = frozenset({Resource.METRICS, Resource.MODEL})
"""What is told of all processes of a server, by whichever is asked."""
_ALIVE: Mapping[Resource, dict[str, Any]] = {Resource.ALIVE: {"status": "alive"}, Resource.LIVE: {"live": True}}
_JSON = (b"content-type", b"application/json")
_TIMEOUT_DIGITS = 12
_OCTETS = (b"content-type", b"application/octet-stream")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take."""

    body_bytes: int
    body_deadline_s: float
    head_deadline_s: float = 10.0
    """From the first byte of a request until its headers are there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)


class ClientGone(Exception):
    """The client went away before its request was complete; nobody is there to be answered."""


def refusal(error: RequestError) -> Answer:
    """Return the one shape of every refusal: ``{"error": "<message>"}``."""
    more: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, MethodNotAllowed):
        more = ((b"allow", error.allowed.encode()),)
    elif isinstance(error, Overloaded):
        more = ((b"retry-after", b"%d" % math.ceil(error.retry_after_s)),)
    return Answer(error.http_status, orjson.dumps({"error": str(error)}), (_JSON, *more))


def octets(json_length: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of an answer in which bytes follow the JSON."""
    return (_OCTETS, (_LENGTH_HEADER, b"%d" % json_length))


def with_token(answer: Answer, token: bytes | None) -> Answer:
    """Return an answer with the prediction's token in a header, if there is one."""
    return answer if token is None else replace(answer, headers=(*answer.headers, (_PREDICTION_HEADER, token)))


def encode_v1(response: PredictResponse, schema: Schema) -> tuple[bytes, int | None]:
    """Write an answer of V1, which has no bytes after its JSON; see ``v2.encode``."""
    return v1.encode(response, schema), None


def deadline_of(timeout: bytes | None, now_s: float) -> float | None:
    """Return when a client gives up that says so in ``TIMEOUT_HEADER``; None if it does not."""
    if timeout is None or not timeout.isdigit() or len(timeout) > _TIMEOUT_DIGITS or not int(timeout):
        return None
    return now_s + int(timeout) / 1000


def by_deadline(request: PredictRequest, deadline_s: float | None) -> PredictRequest:
    """Return a request that nobody wants answered after ``deadline_s``."""
    return request if deadline_s is None else replace(request, deadline_s=deadline_s)


def slow_head(limits: Limits) -> BodyTimeout:
    """Return the refusal of a request whose headers have not arrived in time."""
    return BodyTimeout(f"the headers did not arrive within {limits.head_deadline_s:g} s")


def slow_body(limits: Limits) -> BodyTimeout:
    """Return the refusal of a request whose body has not arrived in time."""
    return BodyTimeout(f"the body did not arrive within {limits.body_deadline_s:g} s")


class RestApplication:
    """Answers the protocols' routes."""

    def __init__(
        self,
        service: Service,
        registry: CollectorRegistry,
        limits: Limits,
        kserve: Application,
        others: Others | None = None,
    ) -> None:
        """Make the application.

        Args:
            service: What requests are answered from.
            registry: What ``/metrics`` shows.
            limits: What one request may take.
            kserve: KServe's application, for what is not served here.
            others: The other processes of this server, if there are any.
        """
        self._others = others
        self._service = service
        self._registry = registry
        self._limits = limits
        self._kserve = kserve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (ASGI)."""
        if scope["type"] != "http":
            return
        target = resolve(scope["path"])
        if target is None and scope["path"] in _KSERVE_PATHS and scope["method"] in {"GET", "HEAD"}:
            await self._kserve(scope, receive, send)
            return
        protocol = None if target is None else PROTOCOLS.get(target.resource)
        try:
            answer = await self._answer(target, scope, receive)
        except ClientGone:
            if target is not None and protocol is not None:
                self._service.metrics_of(target.model).count_request(protocol, "499")
            return
        except Exception as error:  # noqa: BLE001 -- the top of a request: a client never sees a traceback
            answer = refusal(self._service.failure(error, protocol or "rest"))
        if target is not None and protocol is not None:
            self._service.metrics_of(target.model).count_request(protocol, str(answer.status))
        await _send(send, answer)

    async def _answer(self, target: Target | None, scope: Scope, receive: Receive) -> Answer:
        if target is None:
            raise UnknownRoute(f"nothing is served at {scope['path'][:200]!r}; see /v2")
        methods = target.resource.methods
        if scope["method"] not in methods:
            raise MethodNotAllowed(", ".join(methods))
        headers: Headers = dict(scope["headers"])
        if self._others is not None and target.resource in _OF_ALL:
            await self._others.refresh()
        if target.resource is Resource.METRICS:
            return self._metrics(headers)
        if methods[0] == "GET":
            return _json(await self._read(target))
        body = await self._body(headers, receive)
        match target.resource:
            case Resource.V1_PREDICT:
                return await self._predict_v1(target, scope, body)
            case Resource.INFER:
                return await self._infer_v2(target, scope, body)
            case Resource.INDEX:
                content = document.parse(body) if body.strip() else {}
                return _json(self._service.index(only_ready=document.flag(content, "ready")))
            case Resource.LOAD | Resource.UNLOAD:
                return await self._control(target, body)
        self._service.served_as(target.model)
        raise InvalidRequest(f"model {target.model!r} has no explainer; ask :predict")

    async def _control(self, target: Target, body: bytes) -> Answer:
        """Load or unload a model."""
        loads = target.resource is Resource.LOAD
        if body.strip() and document.parameters(document.parse(body)) and loads:
            raise InvalidRequest("load parameters are not served; the repository says how a model is served")
        control = self._service.control
        await (control.load if loads else control.unload)(target.model)
        return Answer(200, b"{}")

    def _metrics(self, headers: Headers) -> Answer:
        encode, content_type = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))
        return Answer(200, encode(self._others or self._registry), ((b"content-type", content_type.encode()),))

    async def _read(self, target: Target) -> dict[str, Any]:
        service = self._service
        match target.resource:
            case Resource.ALIVE | Resource.LIVE:
                return _ALIVE[target.resource]
            case Resource.READY:
                service.require_ready()
                return {"ready": True}
            case Resource.V1_MODELS | Resource.MODELS:
                return {"models": service.names()}
            case Resource.SERVER:
                return metadata.of_server()
            case Resource.STATISTICS:
                return await statistics.told(service, target.model, target.version)
        return self._read_model(target)

    def _read_model(self, target: Target) -> dict[str, Any]:
        service = self._service
        served = service.served_as(target.model, target.version)
        if target.resource is Resource.MODEL:
            shown = service.metadata_of(served)
            return shown if self._others is None else self._others.told(shown, served.schema.version)
        service.require_ready(served)
        return {"name": target.model, "ready": True}

    async def _predict_v1(self, target: Target, scope: Scope, body: bytes) -> Answer:
        served = self._service.served_as(target.model)
        deadline_s = _deadline(scope)

        async def answer(timer: StageTimer) -> tuple[Answer, PredictResponse]:
            request = v1.decode(body, served.schema)
            timer.lap(Stage.DECODE)
            response = await served.predictor.predict(by_deadline(request, deadline_s), timer)
            return Answer(200, v1.encode(response, served.schema)), response

        return await _exposed(served, scope["headers"], answer)

    async def _infer_v2(self, target: Target, scope: Scope, body: bytes) -> Answer:
        served = self._service.served_as(target.model, target.version)
        length = dict(scope["headers"]).get(_LENGTH_HEADER)
        deadline_s = _deadline(scope)

        async def answer(timer: StageTimer) -> tuple[Answer, PredictResponse]:
            call = v2.decode(body, None if length is None else length.decode("latin-1"), served.schema)
            timer.lap(Stage.DECODE)
            response = await served.predictor.predict(by_deadline(call.request, deadline_s), timer)
            content, json_length = v2.encode(call, response, served.schema)
            if json_length is None:
                return Answer(200, content), response
            return Answer(200, content, octets(json_length)), response

        return await _exposed(served, scope["headers"], answer)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in {b"identity", b""}:
            raise UnsupportedEncoding(
                f"content-encoding {encoding.decode('latin-1')[:32]!r} is not read; send it plain"
            )
        limit = self._limits.body_bytes
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and (len(announced) > 15 or int(announced) > limit):  # noqa: PLR2004 -- no huge int
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._limits.body_deadline_s):
                return await _read_body(receive, limit)
        except TimeoutError:
            raise slow_body(self._limits) from None


async def _read_body(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {limit} bytes; send fewer rows, or raise --max-body-bytes")


async def _exposed(
    served: Served,
    headers: Sequence[tuple[bytes, bytes]],
    answer: Callable[[StageTimer], Awaitable[tuple[Answer, PredictResponse]]],
) -> Answer:
    """Predict, judge the request by its headers, and add the prediction's token to the answer."""
    timer = served.predictor.metrics.timer()
    try:
        found, response = await answer(timer)
    except Exception as error:
        served.exposures.failed(RawHeaders(headers), error, timer.elapsed_us)
        raise
    timer.lap(Stage.ENCODE)
    return with_token(found, served.exposures.answered(RawHeaders(headers), response, timer.elapsed_us))


def _deadline(scope: Scope) -> float | None:
    return deadline_of(dict(scope["headers"]).get(TIMEOUT_HEADER), asyncio.get_running_loop().time())


def _json(content: Any) -> Answer:
    return Answer(200, orjson.dumps(content))


async def _send(send: Send, answer: Answer) -> None:
    length = (b"content-length", str(len(answer.body)).encode())
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, length]})
    await send({"type": "http.response.body", "body": answer.body})
