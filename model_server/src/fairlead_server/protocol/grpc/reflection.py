"""gRPC server reflection, v1 and v1alpha: which services there are, for grpcurl and others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.health import health_file
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.grpc.status import NUMBER_OF

_PACKAGES: Final = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
PATHS: Final = tuple(f"/{package}.ServerReflection/ServerReflectionInfo" for package in _PACKAGES)
_FIELD = descriptor_pb2.FieldDescriptorProto


class Reflection:
    """Answers one kind of message, in both versions alike: they differ in their package alone."""

    def __init__(self) -> None:
        """Describe the services of this server."""
        files = [_of_service(), health_file(), *map(_reflection_file, _PACKAGES)]
        self._pool = descriptor_pool.DescriptorPool()
        for file in files:
            self._pool.Add(file)
        self._services = sorted(f"{file.package}.{service.name}" for file in files for service in file.service)
        self._request, self._response = (
            message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"{_PACKAGES[0]}.ServerReflection{name}"))
            for name in ("Request", "Response")
        )

    def answer(self, raw: bytes) -> bytes:
        """Answer one message.

        Raises:
            InvalidRequest: It is malformed.
        """
        request = codec.parse(self._request, raw)
        response = self._response(valid_host=request.host, original_request=request)
        asked = request.WhichOneof("message_request")
        if asked == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
            return _encoded(response)
        try:
            found = self._file(request, asked)
        except KeyError:
            return _refused(response, "NOT_FOUND", f"{getattr(request, asked)} is not here")
        if found is None:
            return _refused(response, "INVALID_ARGUMENT" if asked is None else "NOT_FOUND", "no such extension")
        response.file_descriptor_response.file_descriptor_proto.append(found.serialized_pb)
        return _encoded(response)

    def _file(self, request: Any, asked: str | None) -> Any:
        if asked == "file_by_filename":
            return self._pool.FindFileByName(request.file_by_filename)
        if asked == "file_containing_symbol":
            return self._pool.FindFileContainingSymbol(request.file_containing_symbol)
        return None


def _refused(response: Any, code: str, text: str) -> bytes:
    response.error_response.error_code = NUMBER_OF[code]
    response.error_response.error_message = text
    return _encoded(response)


def _of_service() -> Any:
    file = descriptor_pb2.FileDescriptorProto()
    file.ParseFromString(pb.DESCRIPTOR.serialized_pb)
    return file


def _reflection_file(package: str) -> Any:
    name = f"{package.replace('.', '/')}/reflection.proto"
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    text, number, octets = _FIELD.TYPE_STRING, _FIELD.TYPE_INT32, _FIELD.TYPE_BYTES
    request = file.message_type.add(name="ServerReflectionRequest")
    _add(request, (("host", 1, text),))
    request.oneof_decl.add(name="message_request")
    choices = (
        ("file_by_filename", 3, text),
        ("file_containing_symbol", 4, text),
        ("file_containing_extension", 5, f".{package}.ExtensionRequest"),
        ("all_extension_numbers_of_type", 6, text),
        ("list_services", 7, text),
    )
    for field in _add(request, choices):
        field.oneof_index = 0
    _add(
        file.message_type.add(name="ExtensionRequest"), (("containing_type", 1, text), ("extension_number", 2, number))
    )
    response = file.message_type.add(name="ServerReflectionResponse")
    _add(response, (("valid_host", 1, text), ("original_request", 2, f".{package}.ServerReflectionRequest")))
    response.oneof_decl.add(name="message_response")
    answers = (
        ("file_descriptor_response", 4, f".{package}.FileDescriptorResponse"),
        ("all_extension_numbers_response", 5, f".{package}.ExtensionNumberResponse"),
        ("list_services_response", 6, f".{package}.ListServiceResponse"),
        ("error_response", 7, f".{package}.ErrorResponse"),
    )
    for field in _add(response, answers):
        field.oneof_index = 0
    files = file.message_type.add(name="FileDescriptorResponse")
    _add(files, (("file_descriptor_proto", 1, octets),))[0].label = _FIELD.LABEL_REPEATED
    numbers = file.message_type.add(name="ExtensionNumberResponse")
    _add(numbers, (("base_type_name", 1, text), ("extension_number", 2, number)))[1].label = _FIELD.LABEL_REPEATED
    services = file.message_type.add(name="ListServiceResponse")
    _add(services, (("service", 1, f".{package}.ServiceResponse"),))[0].label = _FIELD.LABEL_REPEATED
    _add(file.message_type.add(name="ServiceResponse"), (("name", 1, text),))
    _add(file.message_type.add(name="ErrorResponse"), (("error_code", 1, number), ("error_message", 2, text)))
    method = file.service.add(name="ServerReflection").method.add(name="ServerReflectionInfo")
    method.input_type, method.output_type = (
        f".{package}.ServerReflectionRequest",
        f".{package}.ServerReflectionResponse",
    )
    method.client_streaming = method.server_streaming = True
    return file


def _add(message: Any, fields: Iterable[tuple[str, int, Any]]) -> list[Any]:
    added = []
    for name, number, kind in fields:
        field = message.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
        if isinstance(kind, str):
            field.type, field.type_name = _FIELD.TYPE_MESSAGE, kind
        else:
            field.type = kind
        added.append(field)
    return added


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
