"""Faults of ours, and KServe's own way in: in one process, over a real predictor."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_server.exposure.assemble import feedback_of
from fairlead_server.exposure.reporter import Pace
from fairlead_server.kserve_model import FairleadModel
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.predictor import Predictor
from fairlead_server.protocol.grpc.grpcio import make_server
from fairlead_server.protocol.rest import Limits, RestApplication
from fairlead_server.protocol.service import Served, Service
from support.predictors import Rig, running
from support.server_process import FULL_ROW, ROW, Material

V1 = "/v1/models/arrival-delay:predict"


@pytest.fixture
async def rig(material: Material, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(material.repo.path, material.contract, tmp_path) as started:
        yield started


def service_of(predictor: Predictor) -> Service:
    service = Service("arrival-delay", "logistic", ServerMetrics(CollectorRegistry()))
    exposures, reporter = feedback_of(
        predictor, SystemClock(), serving_dir=None, spool_dir=None, spool_bytes=1, pace=Pace()
    )
    service.serve(Served.of(predictor, exposures, lambda: reporter.report))
    return service


def broken(rig: Rig) -> Service:
    """A service whose model cannot be run, for a reason that nobody foresaw."""
    lost: Any = SimpleNamespace(signature=rig.predictor.signature)  # which cannot be run
    return service_of(replace(rig.predictor, session=lost))


def rest(service: Service, rig: Rig) -> httpx.AsyncClient:
    async def nothing(*_: Any) -> None:
        raise AssertionError("KServe's application was asked")

    application: Any = RestApplication(service, rig.metrics, Limits(2**20, 5.0), nothing)
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://server")


async def test_an_unforeseen_fault_is_a_500_without_details_counted_and_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        async with rest(broken(rig), rig) as client:
            answer = await client.post(V1, json={"instances": [FULL_ROW | {"plane__maker": "SECRET"}]})
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error; the server's log says more"}
    assert rig.count("fairlead_requests_total", protocol="v1-rest", code="500") == 1
    assert "error=AttributeError" in caplog.text
    assert "SECRET" not in caplog.text


async def test_an_unforeseen_fault_is_internal_over_grpc(rig: Rig) -> None:
    server, port = make_server(broken(rig), "127.0.0.1", 0, 2**20)
    await server.start()
    message = pb.ModelInferRequest(model_name="arrival-delay")
    message.inputs.add(name="hour", datatype="INT64", shape=[1]).contents.int64_contents.append(5)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(message.SerializeToString())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        for name, value in FULL_ROW.items():
            kind, field = {
                str: ("BYTES", "bytes_contents"),
                int: ("INT64", "int64_contents"),
                float: ("FP64", "fp64_contents"),
                bool: ("BOOL", "bool_contents"),
            }[type(value)]
            tensor = message.inputs.add(name=name, datatype=kind, shape=[1])
            getattr(tensor.contents, field).append(value.encode() if isinstance(value, str) else value)
        del message.inputs[0]
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await method(message.SerializeToString())
    await server.stop(None)
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert failed.value.details() == "internal error; the server's log says more"
    assert rig.count("fairlead_requests_total", protocol="v2-grpc", code="INTERNAL") == 1


async def test_a_draining_server_is_not_ready_and_still_answers(rig: Rig) -> None:
    service = service_of(rig.predictor)
    service.drain()
    async with rest(service, rig) as client:
        ready = await client.get("/v2/health/ready")
        answer = await client.post(V1, json={"instances": [ROW]})
    assert ready.status_code == 503
    assert ready.json() == {"error": "not ready: the server is stopping"}
    assert answer.status_code == 200


async def test_before_a_model_is_loaded_nothing_is_known_but_liveness(rig: Rig) -> None:
    service = Service(None, "logistic", ServerMetrics(CollectorRegistry()))
    async with rest(service, rig) as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2")).status_code == 200
        assert (await client.get("/v1/models")).json() == {"models": []}
        assert (await client.post("/v2/repository/index")).json() == []
        for path in ("/v2/health/ready", "/v2/models/x", "/v2/models/x/ready", "/v1/models/x"):
            assert (await client.get(path)).status_code == 503
        assert (await client.post(V1, json={"instances": [ROW]})).status_code == 503


async def test_kserves_own_data_plane_reaches_the_same_model(rig: Rig) -> None:
    model = FairleadModel("arrival-delay", service_of(rig.predictor))
    assert await model.healthy()
    answer = await model.predict({"instances": [ROW]})
    assert answer["predictions"][0]["seen_plane__maker"] == "BOEING"
