"""The methods of ``inference.GRPCInferenceService``, whatever server they are called through: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fairlead_server.errors import InvalidRequest, NotReady
from fairlead_server.protocol import metadata, statistics
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.index import control_messages, index_messages, statistics_messages
from fairlead_server.protocol.grpc.inference import Inference
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.service import Service

SERVICE: Final = "inference.GRPCInferenceService"
INFER: Final = f"/{SERVICE}/ModelInfer"

Method = Callable[[bytes], bytes]
"""Answers at once; raises RequestError."""
SlowMethod = Callable[[bytes], Awaitable[bytes]]


class InferenceMethods:
    """The methods, answered from the service."""

    def __init__(self, service: Service) -> None:
        """Answer from ``service``."""
        self._service = service
        self._index_request, self._index_response = index_messages()
        self._statistics_request, self._statistics_response = statistics_messages()
        self._load_request, self._load_response, self._unload_request, self._unload_response = control_messages()
        self.infer = Inference(service).infer
        self.quick: dict[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "RepositoryIndex": self._repository_index,
        }
        """By name of the method."""
        self.slow: dict[str, SlowMethod] = {
            "RepositoryModelLoad": self._repository_load,
            "RepositoryModelUnload": self._repository_unload,
            "ModelStatistics": self._model_statistics,
        }
        """Likewise; those whose answer takes time."""

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

    async def _model_statistics(self, raw: bytes) -> bytes:
        request = codec.parse(self._statistics_request, raw)
        told = await statistics.told(self._service, request.name, request.version)
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


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
