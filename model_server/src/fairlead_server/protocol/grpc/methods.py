"""The methods of ``inference.GRPCInferenceService``, whatever server they are called through: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from fairlead_server.errors import DeadlinePassed, InvalidRequest, NotReady, RequestError
from fairlead_server.exposure.experiment import joined
from fairlead_server.exposure.routes import Headers
from fairlead_server.metrics import Stage, StageTimer
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol import metadata, statistics
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.engine import Metadata
from fairlead_server.protocol.grpc.forms import InferForms
from fairlead_server.protocol.grpc.index import control_messages, index_messages, statistics_messages
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.service import Served, Service

SERVICE: Final = "inference.GRPCInferenceService"
INFER: Final = f"/{SERVICE}/ModelInfer"
PROTOCOL: Final = "v2-grpc"
_NO_HEADERS: Final[Headers] = {}

Method = Callable[[bytes], bytes]
"""Answers at once; raises RequestError."""
SlowMethod = Callable[[bytes], Awaitable[bytes]]


class Reply(Protocol):
    """Where one inference's answer goes."""

    @property
    def over(self) -> str | None:
        """Code with which the call has ended already, without its answer; None while it is wanted."""

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


@dataclass(frozen=True, slots=True)
class _Inference:
    """One inference between its decoding and its answer."""

    served: Served
    call: InferCall
    timer: StageTimer
    headers: Headers
    reply: Reply


class InferenceMethods:
    """The methods, answered from the service."""

    def __init__(self, service: Service) -> None:
        """Answer from ``service``."""
        self._service = service
        self._index_request, self._index_response = index_messages()
        self._statistics_request, self._statistics_response = statistics_messages()
        self._load_request, self._load_response, self._unload_request, self._unload_response = control_messages()
        self._forms: dict[str, tuple[Served, InferForms]] = {}
        self.quick: dict[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "RepositoryIndex": self._repository_index,
            "ModelStatistics": self._model_statistics,
        }
        """By name of the method."""
        self.slow: dict[str, SlowMethod] = {
            "RepositoryModelLoad": self._repository_load,
            "RepositoryModelUnload": self._repository_unload,
        }
        """Likewise; those whose answer takes time."""

    def infer(self, raw: bytes, sent: Metadata | None, deadline_s: float | None, reply: Reply) -> None:
        """Answer ``ModelInfer``; ``reply`` is told once, now or in a later callback of the event loop.

        Args:
            raw: The request.
            sent: Its metadata; None if no experiment is named there.
            deadline_s: When the client gives up, by the event loop's time.
            reply: Where the answer goes.
        """
        headers = _NO_HEADERS if sent is None else joined(sent)
        try:
            served = self._service.served_as(*asked(raw))
        except Exception as error:  # noqa: BLE001 -- the top of a request, here and below
            self._refuse(error, reply)
            return
        timer = served.predictor.metrics.timer()
        try:
            forms = self._forms_of(served)
            call = forms.decode(raw)
            timer.lap(Stage.DECODE)
            request = call.request
            if deadline_s is not None or served.predictor.may_take_long(request):
                request = replace(request, deadline_s=deadline_s, gone=lambda: reply.over is not None)
            inference = _Inference(served, call, timer, headers, reply)
            served.predictor.submit(request, timer, partial(self._inferred, inference))
        except Exception as error:  # noqa: BLE001
            served.exposures.failed(headers, error, timer.elapsed_us)
            self._refuse(error, reply, served)

    def _inferred(self, inference: _Inference, outcome: PredictResponse | RequestError) -> None:
        served, timer, headers, reply = inference.served, inference.timer, inference.headers, inference.reply
        if reply.over == DeadlinePassed.grpc_code:
            outcome = DeadlinePassed("the answer came too late")
        if isinstance(outcome, RequestError):
            served.exposures.failed(headers, outcome, timer.elapsed_us)
            self._refuse(outcome, reply, served)
            return
        try:
            encoded = self._forms_of(served).encode(inference.call, outcome)
        except Exception as error:  # noqa: BLE001
            served.exposures.failed(headers, error, timer.elapsed_us)
            self._refuse(error, reply, served)
            return
        timer.lap(Stage.ENCODE)
        token = served.exposures.answered(headers, outcome, timer.elapsed_us)
        code = "OK" if reply.answer(encoded, token) else reply.over or "CANCELLED"
        served.predictor.metrics.count_request(PROTOCOL, code)

    def _refuse(self, error: Exception, reply: Reply, served: Served | None = None) -> None:
        failure = self._service.failure(error, PROTOCOL)
        metrics = self._service.metrics if served is None else served.predictor.metrics
        metrics.count_request(PROTOCOL, reply.over or failure.grpc_code)
        reply.fail(failure)

    def _forms_of(self, served: Served) -> InferForms:
        """Return the forms of a model's messages; a model that was loaded again has others."""
        known = self._forms.get(served.schema.model)
        if known is None or known[0] is not served:
            known = self._forms[served.schema.model] = (served, InferForms(served.schema))
        return known[1]

    def _server_live(self, raw: bytes) -> bytes:
        codec.parse(pb.ServerLiveRequest, raw)
        return _encoded(pb.ServerLiveResponse(live=True))

    def _server_ready(self, raw: bytes) -> bytes:
        codec.parse(pb.ServerReadyRequest, raw)
        return _encoded(pb.ServerReadyResponse(ready=self._service.not_ready_reason is None))

    def _server_metadata(self, raw: bytes) -> bytes:
        codec.parse(pb.ServerMetadataRequest, raw)
        return _encoded(pb.ServerMetadataResponse(**metadata.of_server()))

    def _model_ready(self, raw: bytes) -> bytes:
        request = codec.parse(pb.ModelReadyRequest, raw)
        try:
            self._service.require_ready(self._service.served_as(request.name, request.version))
        except NotReady:
            return _encoded(pb.ModelReadyResponse(ready=False))
        return _encoded(pb.ModelReadyResponse(ready=True))

    def _model_metadata(self, raw: bytes) -> bytes:
        request = codec.parse(pb.ModelMetadataRequest, raw)
        shown = self._service.metadata_of(self._service.served_as(request.name, request.version))
        answer = pb.ModelMetadataResponse(name=shown["name"], versions=shown["versions"], platform=shown["platform"])
        for tensors, described in ((answer.inputs, shown["inputs"]), (answer.outputs, shown["outputs"])):
            for tensor in described:
                tensors.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        return _encoded(answer)

    def _repository_index(self, raw: bytes) -> bytes:
        request = codec.parse(self._index_request, raw)
        return _encoded(self._index_response(models=self._service.index(only_ready=request.ready)))

    def _model_statistics(self, raw: bytes) -> bytes:
        request = codec.parse(self._statistics_request, raw)
        told = statistics.of_models(self._service.asked(request.name, request.version))
        return _encoded(self._statistics_response(**told))

    async def _repository_load(self, raw: bytes) -> bytes:
        request = codec.parse(self._load_request, raw)
        if request.parameters:
            raise InvalidRequest("load parameters are not served; the repository says how a model is served")
        await self._service.control.load(request.model_name)
        return _encoded(self._load_response())

    async def _repository_unload(self, raw: bytes) -> bytes:
        request = codec.parse(self._unload_request, raw)
        await self._service.control.unload(request.model_name)
        return _encoded(self._unload_response())


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


_MODEL_NAME: Final = 0x0A
_MODEL_VERSION: Final = 0x12
_ONE_BYTE: Final = 0x80


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
