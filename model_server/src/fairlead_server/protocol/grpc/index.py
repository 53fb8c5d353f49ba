"""Triton's messages that KServe's protocol file leaves out: repository index and control, statistics.

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


def statistics_messages() -> tuple[type[Any], type[Any]]:
    """Return the classes ``ModelStatisticsRequest`` and ``ModelStatisticsResponse``."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_statistics_file())
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.ModelStatistics{name}"))
        for name in ("Request", "Response")
    )
    return request, response


def _statistics_file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="model_statistics.proto", package="inference", syntax="proto3")

    def message(name: str, /, **fields: tuple[int, int | str]) -> None:
        made = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            if isinstance(kind, int):
                _add(made, field, number, kind)
            else:
                _add(made, field, number, _FIELD.TYPE_MESSAGE).type_name = f".inference.{kind}"
        for field in made.field:
            if field.name in {"batch_stats", "model_stats"}:
                field.label = _FIELD.LABEL_REPEATED

    number, duration = _FIELD.TYPE_UINT64, "StatisticDuration"
    message("StatisticDuration", count=(1, number), ns=(2, number))
    parts = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    message("InferStatistics", **{part: (place, duration) for place, part in enumerate(parts, start=1)})
    message(
        "InferBatchStatistics",
        batch_size=(1, number),
        compute_input=(2, duration),
        compute_infer=(3, duration),
        compute_output=(4, duration),
    )
    message("ModelStatisticsRequest", name=(1, _FIELD.TYPE_STRING), version=(2, _FIELD.TYPE_STRING))
    message(
        "ModelStatistics",
        name=(1, _FIELD.TYPE_STRING),
        version=(2, _FIELD.TYPE_STRING),
        last_inference=(3, number),
        inference_count=(4, number),
        execution_count=(5, number),
        inference_stats=(6, "InferStatistics"),
        batch_stats=(7, "InferBatchStatistics"),
    )
    message("ModelStatisticsResponse", model_stats=(1, "ModelStatistics"))
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
