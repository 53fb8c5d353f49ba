"""The V2 gRPC service on grpc.aio, from raw bytes, so that a malformed message is the client's mistake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from fairlead.feedback.token import PREDICTION_HEADER
from fairlead.route import EXPERIMENT_HEADER
from fairlead_server.errors import InvalidRequest, NotReady, PortTaken
from fairlead_server.exposure.experiment import joined
from fairlead_server.metrics import Stage
from fairlead_server.protocol import metadata
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.index import index_messages
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.service import Service

SERVICE = "inference.GRPCInferenceService"
_PROTOCOL = "v2-grpc"
_Method = Callable[[bytes, Any], Awaitable[bytes]]


def make_server(service: Service, host: str, port: int, max_message_bytes: int) -> tuple[grpc.aio.Server, int]:
    """Make the server, bound and not yet started.

    Args:
        service: What requests are answered from.
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose.
        max_message_bytes: Largest request.

    Returns:
        The server and its port.

    Raises:
        PortTaken: Another program listens there.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Two servers on one port would share its connections without either noticing.
            ("grpc.so_reuseport", 0),
        ]
    )
    methods = InferenceMethods(service)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods.handlers()),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise PortTaken(f"cannot listen on {address}; choose another with --grpc-port")
    return server, bound


class GrpcioServer:
    """grpcio's own server as one of the process' ways in."""

    def __init__(self, service: Service, host: str, port: int, max_message_bytes: int) -> None:
        """Make the server, bound and not yet started; see :func:`make_server`.

        Raises:
            PortTaken: Another program listens there.
        """
        self._server, self.port = make_server(service, host, port, max_message_bytes)

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    def retire(self) -> None:
        """Wait for :meth:`drain`: grpcio tells peers to go only when it takes no more."""

    async def drain(self, deadline_s: float) -> None:
        """Take no more calls, answer those in flight, and cut off what is not answered in time."""
        await self._server.stop(grace=deadline_s)


class InferenceMethods:
    """The methods of ``inference.GRPCInferenceService``: message bytes in, message bytes out."""

    def __init__(self, service: Service) -> None:
        """Answer from ``service``."""
        self._service = service
        self._index_request, self._index_response = index_messages()

    def handlers(self) -> dict[str, Any]:
        """Return grpc's handler of each method, by name."""
        methods: dict[str, _Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._refuse_loading,
            "RepositoryModelUnload": self._refuse_loading,
        }
        return {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(method, counted=name == "ModelInfer"))
            for name, method in methods.items()
        }

    def _guarded(self, method: _Method, *, counted: bool) -> _Method:
        async def answer(raw: bytes, context: Any) -> bytes:
            try:
                encoded = await method(raw, context)
            except Exception as error:  # the top of a request: a client never sees a traceback
                failure = self._service.failure(error, _PROTOCOL)
                if counted:
                    self._service.metrics.count_request(_PROTOCOL, failure.grpc_code)
                await context.abort(getattr(grpc.StatusCode, failure.grpc_code), str(failure))
                raise  # abort() has raised already
            if counted:
                self._service.metrics.count_request(_PROTOCOL, "OK")
            return encoded

        return answer

    async def _server_live(self, raw: bytes, _: Any) -> bytes:
        codec.parse(pb.ServerLiveRequest, raw)
        return _encoded(pb.ServerLiveResponse(live=True))

    async def _server_ready(self, raw: bytes, _: Any) -> bytes:
        codec.parse(pb.ServerReadyRequest, raw)
        return _encoded(pb.ServerReadyResponse(ready=self._service.not_ready_reason is None))

    async def _server_metadata(self, raw: bytes, _: Any) -> bytes:
        codec.parse(pb.ServerMetadataRequest, raw)
        return _encoded(pb.ServerMetadataResponse(**metadata.of_server()))

    async def _model_ready(self, raw: bytes, _: Any) -> bytes:
        request = codec.parse(pb.ModelReadyRequest, raw)
        try:
            self._service.served_as(request.name, request.version)
        except NotReady:
            return _encoded(pb.ModelReadyResponse(ready=False))
        return _encoded(pb.ModelReadyResponse(ready=self._service.not_ready_reason is None))

    async def _model_metadata(self, raw: bytes, _: Any) -> bytes:
        request = codec.parse(pb.ModelMetadataRequest, raw)
        shown = self._service.served_as(request.name, request.version).metadata(self._service.not_ready_reason)
        answer = pb.ModelMetadataResponse(name=shown["name"], versions=shown["versions"], platform=shown["platform"])
        for tensors, described in ((answer.inputs, shown["inputs"]), (answer.outputs, shown["outputs"])):
            for tensor in described:
                tensors.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        return _encoded(answer)

    async def _model_infer(self, raw: bytes, context: Any) -> bytes:
        served = self._service.served()
        timer = served.predictor.metrics.timer()
        try:
            call = codec.decode(raw, served.schema)
            timer.lap(Stage.DECODE)
            response = await served.predictor.predict(call.request, timer)
            encoded = codec.encode(call, response, served.schema)
        except Exception as error:
            served.exposures.failed(_headers(context), error, timer.elapsed_us)
            raise
        timer.lap(Stage.ENCODE)
        token = served.exposures.answered(_headers(context), response, timer.elapsed_us)
        if token is not None:
            named = ((PREDICTION_HEADER, token),)
            context.set_trailing_metadata(named)
            await context.send_initial_metadata(named)
        return encoded

    async def _repository_index(self, raw: bytes, _: Any) -> bytes:
        request = codec.parse(self._index_request, raw)
        return _encoded(self._index_response(models=self._service.index(only_ready=request.ready)))

    async def _refuse_loading(self, _raw: bytes, _: Any) -> bytes:
        raise InvalidRequest(
            "models are not loaded or unloaded by clients; a server serves the one it was started with"
        )


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _headers(context: Any) -> dict[str, str]:
    """Return the metadata, but only where an experiment is named: most requests bring none."""
    found = context.invocation_metadata() or ()
    if not any(name == EXPERIMENT_HEADER for name, _ in found):
        return {}
    # grpc has decoded the bytes as UTF-8; the law is over bytes.
    return joined((name, value.encode().decode("latin-1")) for name, value in found if isinstance(value, str))
