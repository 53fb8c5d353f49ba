"""KServe's own clients, REST and gRPC, against a running server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from support.models import expected_probability
from support.server_process import FULL_ROW, ROW, Material, ServerProcess

_DATATYPES = {str: "BYTES", int: "INT64", float: "FP64", bool: "BOOL"}
_DTYPES = {"BYTES": np.object_, "INT64": np.int64, "FP64": np.float64, "BOOL": np.bool_}


def infer_request(row: dict[str, Any], *, binary: bool, rows: int = 2, **fields: Any) -> InferRequest:
    inputs = []
    for name, value in row.items():
        datatype = _DATATYPES[type(value)]
        tensor = InferInput(name, [rows, 1], datatype)
        tensor.set_data_from_numpy(np.array([[value]] * rows, _DTYPES[datatype]), binary_data=binary)
        inputs.append(tensor)
    return InferRequest("arrival-delay", inputs, **fields)


def probability(material: Material) -> float:
    return float(expected_probability(material.contract, {k: np.array([v]) for k, v in FULL_ROW.items()})[0])


@pytest.fixture
def rest() -> InferenceRESTClient:
    return InferenceRESTClient(RESTConfig(protocol="v2"))


async def test_health_over_rest(server: ServerProcess, rest: InferenceRESTClient) -> None:
    assert await rest.is_server_live(server.url)
    assert await rest.is_server_ready(server.url)
    assert await rest.is_model_ready(server.url, "arrival-delay")


async def test_v1_predicts_and_is_ready(server: ServerProcess, material: Material) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_server_live(server.url)
    assert await client.is_model_ready(server.url, "arrival-delay")
    answer = await client.infer(server.url, {"instances": [FULL_ROW]}, model_name="arrival-delay")
    assert answer["predictions"][0]["probability_late"] == pytest.approx(probability(material), abs=1e-6)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("row", [ROW, FULL_ROW], ids=["hydrated", "full"])
async def test_v2_over_rest(
    server: ServerProcess, material: Material, rest: InferenceRESTClient, row: dict[str, Any], binary: bool
) -> None:
    outputs = [RequestedOutput("probability_late", parameters={"binary_data": binary})]
    request = infer_request(row, binary=binary, request_id="r1", request_outputs=outputs)
    answer = await rest.infer(server.url, request, model_name="arrival-delay")
    assert [output.name for output in answer.outputs] == ["probability_late"]
    assert answer.outputs[0].as_numpy().shape == (2,)
    assert answer.id == "r1"
    if row is FULL_ROW:
        assert answer.outputs[0].as_numpy() == pytest.approx(probability(material), abs=1e-6)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("row", [ROW, FULL_ROW], ids=["hydrated", "full"])
async def test_v2_over_grpc(server: ServerProcess, material: Material, row: dict[str, Any], binary: bool) -> None:
    async with InferenceGRPCClient(server.grpc_address, retries=0) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("arrival-delay")
        answer = await client.infer(infer_request(row, binary=binary))
    found = {output.name: output for output in answer.outputs}
    assert set(found) == {output.name for output in material.contract.outputs}
    assert answer.model_version == "1"
    if row is FULL_ROW:
        assert found["probability_late"].as_numpy() == pytest.approx(probability(material), abs=1e-6)
        assert list(found["seen_plane__maker"].as_numpy().reshape(-1)) == [b"BOEING", b"BOEING"]
