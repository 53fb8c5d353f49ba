"""Triton's ``RepositoryIndex`` messages, which KServe's protocol file leaves out.

They live in a pool of their own: a process that also loads Triton's messages would otherwise refuse the second
``inference.RepositoryIndexRequest``.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def index_messages() -> tuple[type[Any], type[Any]]:
    """Return the classes ``RepositoryIndexRequest`` and ``RepositoryIndexResponse``."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
        for name in ("RepositoryIndexRequest", "RepositoryIndexResponse")
    )
    return request, response


def control_messages() -> tuple[type[Any], type[Any], type[Any], type[Any]]:
    """Return the requests and responses of ``RepositoryModelLoad`` and ``RepositoryModelUnload``, in this order."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_control_file())
    load_request, load_response, unload_request, unload_response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.RepositoryModel{name}"))
        for name in ("LoadRequest", "LoadResponse", "UnloadRequest", "UnloadResponse")
    )
    return load_request, load_response, unload_request, unload_response


def _control_file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="repository_control.proto", package="inference", syntax="proto3")
    for what in ("Load", "Unload"):
        request = file.message_type.add(name=f"RepositoryModel{what}Request")
        _add(request, "repository_name", 1, _FIELD.TYPE_STRING)
        _add(request, "model_name", 2, _FIELD.TYPE_STRING)
        # A map of parameters, whose entries are looked at by nobody here.
        _add(request, "parameters", 3, _FIELD.TYPE_BYTES).label = _FIELD.LABEL_REPEATED
        file.message_type.add(name=f"RepositoryModel{what}Response")
    return file


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="repository_index.proto", package="inference", syntax="proto3")
    request = file.message_type.add(name="RepositoryIndexRequest")
    _add(request, "repository_name", 1, _FIELD.TYPE_STRING)
    _add(request, "ready", 2, _FIELD.TYPE_BOOL)
    response = file.message_type.add(name="RepositoryIndexResponse")
    model = response.nested_type.add(name="ModelIndex")
    for number, name in enumerate(("name", "version", "state", "reason"), start=1):
        _add(model, name, number, _FIELD.TYPE_STRING)
    models = _add(response, "models", 1, _FIELD.TYPE_MESSAGE)
    models.label = _FIELD.LABEL_REPEATED
    models.type_name = ".inference.RepositoryIndexResponse.ModelIndex"
    return file


def _add(message: Any, name: str, number: int, kind: int) -> Any:
    return message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
