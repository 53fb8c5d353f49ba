"""``grpc.health.v1``: whether requests should be sent here, for all models (``""``), the service, or one model."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fairlead_server.errors import NotReady, RequestError, UnknownModel
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.methods import SERVICE
from fairlead_server.protocol.service import Service

HEALTH: Final = "grpc.health.v1.Health"
CHECK: Final = f"/{HEALTH}/Check"
WATCH: Final = f"/{HEALTH}/Watch"
_FIELD = descriptor_pb2.FieldDescriptorProto
_STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class HealthMethods:
    """The health service; what :meth:`watched` returns is to be asked again and again."""

    def __init__(self, service: Service) -> None:
        """Answer from ``service``."""
        self._service = service
        pool = descriptor_pool.DescriptorPool()
        pool.Add(health_file())
        self._request, self._response = (
            message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.HealthCheck{name}"))
            for name in ("Request", "Response")
        )
        self._encoded = {
            status: self._response(status=number).SerializeToString() for number, status in enumerate(_STATUSES)
        }

    def check(self, raw: bytes) -> bytes:
        """Answer ``Check``.

        Raises:
            UnknownModel: Nothing of that name is served here.
            InvalidRequest: The message is malformed.
        """
        encoded: bytes = self._encoded[self._status(self.name_in(raw))]
        return encoded

    def name_in(self, raw: bytes) -> str:
        """Return the name that a request asks for.

        Raises:
            InvalidRequest: The message is malformed.
        """
        name: str = codec.parse(self._request, raw).service
        return name

    def watched(self, name: str) -> bytes:
        """Return the status that ``Watch`` answers now."""
        try:
            status = self._status(name)
        except UnknownModel:
            status = "SERVICE_UNKNOWN"
        encoded: bytes = self._encoded[status]
        return encoded

    def _status(self, name: str) -> str:
        try:
            self._service.require_ready(None if name in {"", SERVICE} else self._service.served_as(name))
        except NotReady:
            return "NOT_SERVING"
        except UnknownModel:
            raise
        except RequestError:
            return "NOT_SERVING"
        return "SERVING"


def health_file() -> Any:
    """Return the description of ``grpc/health/v1/health.proto``."""
    package = "grpc.health.v1"
    file = descriptor_pb2.FileDescriptorProto(name="grpc/health/v1/health.proto", package=package, syntax="proto3")
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    statuses = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(_STATUSES):
        statuses.value.add(name=name, number=number)
    status = response.field.add(name="status", number=1, type=_FIELD.TYPE_ENUM, label=_FIELD.LABEL_OPTIONAL)
    status.type_name = f".{package}.HealthCheckResponse.ServingStatus"
    service = file.service.add(name="Health")
    for name, streams in (("Check", False), ("Watch", True)):
        method = service.method.add(name=name, server_streaming=streams)
        method.input_type = f".{package}.HealthCheckRequest"
        method.output_type = f".{package}.HealthCheckResponse"
    return file
