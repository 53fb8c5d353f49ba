"""``ModelInfer``: by the forms of messages that were seen before, and strictly for all others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Final, Protocol

from fairlead_server.errors import DeadlinePassed, InvalidRequest, RequestError
from fairlead_server.exposure.routes import Headers
from fairlead_server.metrics import Stage, StageTimer
from fairlead_server.predict.joint import Packed, Part
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.formed import Formed, Path
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.forms import InferForm, InferForms
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.service import Served, Service

PROTOCOL: Final = "v2-grpc"
_MODEL_NAME: Final = 0x0A
_MODEL_VERSION: Final = 0x12
_ONE_BYTE: Final = 0x80


class Reply(Protocol):
    """Where one inference's answer goes."""

    @property
    def over(self) -> str | None:
        """Code with which the call has ended already, without its answer; None while it is wanted."""

    def gone(self) -> bool:
        """Return whether the call has ended already."""

    def answer(self, message: bytes, token: str | None) -> bool:
        """Send the answer.

        Args:
            message: Encoded.
            token: For the client, if the request was exposed.

        Returns:
            Whether it will reach the client, as far as is known.
        """

    def fail(self, error: RequestError) -> None:
        """Send a refusal."""


class Inference:
    """Answers ``ModelInfer`` from the service."""

    def __init__(self, service: Service) -> None:
        """Know no form yet."""
        self._service = service
        self._known: dict[tuple[str, str], tuple[_Path, InferForms]] = {}
        self._forms: dict[int, tuple[_Path, InferForm]] = {}
        """By length of the message, the last that was learnt."""
        service.on_change(self._forget)

    def infer(self, raw: bytes, headers: Headers | None, deadline_s: float | None, reply: Reply) -> None:
        """Answer one call; ``reply`` is told once, now or in a later callback of the event loop.

        Args:
            raw: The request.
            headers: Its metadata; None if no experiment is named there.
            deadline_s: When the client gives up, by the event loop's time.
            reply: Where the answer goes.
        """
        start_s = perf_counter()
        found = self._forms.get(len(raw))
        if found is not None and raw.startswith(found[1].before):
            one = _FormedCall()
            one.path, one.form = found
            one.reply = reply
            one.headers = headers
            one.start_s = start_s
            one.gone = reply.gone
            one.begin(Packed(one.form.layout, raw[len(one.form.before) :]), one.form.rows, deadline_s)
            return
        self._infer_strictly(raw, headers, deadline_s, reply)

    def _infer_strictly(self, raw: bytes, headers: Headers | None, deadline_s: float | None, reply: Reply) -> None:
        try:
            name, version = asked(raw)
            path, forms = self._found(name, version)
        except Exception as error:  # noqa: BLE001 -- the top of a request, here and below
            refuse(self._service, error, reply)
            return
        timer = path.served.predictor.metrics.timer()
        strict = _Strict(self._service, path, timer, headers, reply)
        try:
            call = codec.decode(raw, path.served.schema)
            timer.lap(Stage.DECODE)
            request = call.request
            if deadline_s is not None or path.served.predictor.may_take_long(request):
                request = replace(request, deadline_s=deadline_s, gone=reply.gone)
            path.served.predictor.submit(request, timer, partial(strict.answer, call))
        except Exception as error:  # noqa: BLE001
            strict.refuse(error)
            return
        form = forms.learnt(raw, call)
        if form is not None:
            self._forms[len(raw)] = (path, form)

    def _found(self, name: str, version: str) -> tuple[_Path, InferForms]:
        found = self._known.get((name, version))
        if found is None:
            served = self._service.served_as(name, version)
            found = self._known[name, version] = (_Path(served, self._service), InferForms(served.schema))
        return found

    def _forget(self) -> None:
        self._known.clear()
        self._forms.clear()


class _Path(Path):
    """One model asked over gRPC."""

    __slots__ = ("service",)

    def __init__(self, served: Served, service: Service) -> None:
        super().__init__(served, PROTOCOL)
        self.service = service


class _FormedCall(Formed):
    """A call of a known form, and its answer."""

    __slots__ = ("form", "reply")

    path: _Path
    form: InferForm
    reply: Reply

    def answer(self, part: Part) -> None:
        """Answer."""
        reply = self.reply
        if reply.over == DeadlinePassed.grpc_code:
            self.refuse(DeadlinePassed("the answer came too late"))
            return
        message = self.form.answer(part)
        token = self.token(part)
        if reply.answer(message, None if token is None else token.decode()):
            self.path.answered.value += 1
        else:
            self.path.served.predictor.metrics.count_request(PROTOCOL, reply.over or "CANCELLED")

    def refuse(self, error: Exception) -> None:
        """Answer."""
        served = self.path.served
        served.exposures.failed({} if self.headers is None else self.headers, error, self.elapsed_us)
        refuse(self.path.service, error, self.reply, served)


@dataclass(frozen=True, slots=True)
class _Strict:
    """A call of any form, and its answer."""

    service: Service
    path: _Path
    timer: StageTimer
    headers: Headers | None
    reply: Reply

    def answer(self, call: InferCall, outcome: PredictResponse | RequestError) -> None:
        """Answer."""
        served, timer, reply = self.path.served, self.timer, self.reply
        if reply.over == DeadlinePassed.grpc_code:
            outcome = DeadlinePassed("the answer came too late")
        if isinstance(outcome, RequestError):
            self.refuse(outcome)
            return
        try:
            encoded = codec.encode(call, outcome, served.schema)
        except Exception as error:  # noqa: BLE001 -- the top of a request
            self.refuse(error)
            return
        timer.lap(Stage.ENCODE)
        token = served.exposures.answered({} if self.headers is None else self.headers, outcome, timer.elapsed_us)
        code = "OK" if reply.answer(encoded, None if token is None else token.decode()) else reply.over or "CANCELLED"
        served.predictor.metrics.count_request(PROTOCOL, code)

    def refuse(self, error: Exception) -> None:
        """Answer."""
        served = self.path.served
        served.exposures.failed({} if self.headers is None else self.headers, error, self.timer.elapsed_us)
        refuse(self.service, error, self.reply, served)


def refuse(service: Service, error: Exception, reply: Reply, served: Served | None = None) -> None:
    """Count a call that gets no prediction, and answer it."""
    failure = service.failure(error, PROTOCOL)
    metrics = service.metrics if served is None else served.predictor.metrics
    metrics.count_request(PROTOCOL, reply.over or failure.grpc_code)
    reply.fail(failure)


def asked(raw: bytes) -> tuple[str, str]:
    """Return the model and version that a ``ModelInferRequest`` asks for, without reading all of it where possible.

    Raises:
        InvalidRequest: It is malformed.
    """
    # Every implementation writes fields in their order: model_name = 1, model_version = 2, short texts.
    start = 2
    if len(raw) > start and raw[0] == _MODEL_NAME and raw[1] < _ONE_BYTE:
        end = start + raw[1]
        try:
            name = raw[start:end].decode()
            if end >= len(raw) or raw[end] > _MODEL_VERSION:
                return name, ""
            if raw[end] == _MODEL_VERSION and end + 1 < len(raw) and raw[end + 1] < _ONE_BYTE:
                return name, raw[end + 2 : end + 2 + raw[end + 1]].decode()
        except UnicodeDecodeError:
            raise InvalidRequest("the message is not a valid ModelInferRequest") from None
    message = codec.parse(pb.ModelInferRequest, raw)
    return message.model_name, message.model_version
