"""What the server answers with a fault of its own is an error of the arm's unit; a client's mistake is nobody's."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from prometheus_client import CollectorRegistry

from fairlead.assignment import Layout, assign
from fairlead.clock import SystemClock
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.messages import Failure
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.feedback.token import PREDICTION_HEADER, read
from fairlead.policy import Action, Hydration
from fairlead.route import EXPERIMENT_HEADER, UNIT_HEADER, ExperimentRoute
from fairlead.serving import FeedbackReport
from fairlead_server.errors import DeadlinePassed, Overloaded, RequestError
from fairlead_server.exposure.experiment import ExperimentReader
from fairlead_server.exposure.exposures import Exposures
from fairlead_server.exposure.keys import FILE_NAME, RouteKeys
from fairlead_server.exposure.tally import Sums, Tally
from fairlead_server.exposure.told import ToldFeedback
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol.grpc.grpcio import make_server
from fairlead_server.protocol.rest import Limits, RestApplication
from fairlead_server.protocol.service import Served, Service
from support.predictors import Rig, running
from support.server_process import FULL_ROW, ROUTE_KEY, ROW, Material

V1 = "/v1/models/arrival-delay:predict"
SALT = "flights/arrival-delay/e1"
LAYOUT = Layout.of("logistic", {"boosted": 5000})
ROOT = KeyRing((SigningKey("k1", bytes(16)),), bytes(16))
RING = ROOT.of("flights/arrival-delay")
UNIT = next(unit for unit in (f"u{n}" for n in range(99)) if assign(unit, SALT, LAYOUT) == "logistic")
DIGEST = RING.unit(UNIT.encode(), SALT)


@pytest.fixture
async def rig(material: Material, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(material.repo.path, material.contract, tmp_path, revision="logistic-1") as started:
        yield started


@pytest.fixture
def tally() -> Tally:
    return Tally(most_sums=100, most_known_units=100)


def exposures_of(rig: Rig, tally: Tally, folder: Path) -> Exposures:
    """What a server of this revision judges by that is told of feedback."""
    keys = {"keys": [{"id": ROUTE_KEY.id, "secret": ROUTE_KEY.secret.hex()}]}
    (folder / FILE_NAME).write_text(json.dumps(keys))
    (folder / FEEDBACK_FILE).write_text(
        Feedback("http://127.0.0.1:1", RING, covariates={SALT: "plane__seats"}).dumped()
    )
    metrics = rig.predictor.metrics
    return Exposures(
        reader=ExperimentReader(RouteKeys(folder), rig.predictor.revision, metrics),
        feedback=ToldFeedback(folder).current,
        tally=tally,
        output="probability_late",
        clock=SystemClock(),
        metrics=metrics,
        nonce=os.urandom,
    )


def headers(rig: Rig, **fields: Any) -> dict[str, str]:
    route = ExperimentRoute(SALT, 0, rig.predictor.revision, "logistic", LAYOUT, f"header:{UNIT_HEADER}")
    return {EXPERIMENT_HEADER: replace(route, **fields).sign(ROUTE_KEY), UNIT_HEADER: UNIT}


def service_of(predictor: Predictor, exposures: Exposures) -> Service:
    service = Service("arrival-delay", "logistic", ServerMetrics(CollectorRegistry()))
    service.serve(Served.of(predictor, exposures, FeedbackReport))
    return service


def rest(service: Service, rig: Rig) -> httpx.AsyncClient:
    async def nothing(*_: Any) -> None:
        raise AssertionError("KServe's application was asked")

    application: Any = RestApplication(service, rig.metrics, Limits(2**20, 5.0), nothing)
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://server")


def broken(rig: Rig) -> Predictor:
    lost: Any = SimpleNamespace(signature=rig.predictor.signature)  # which cannot be run
    return replace(rig.predictor, session=lost)


def units_of(tally: Tally) -> dict[bytes, Sums]:
    arms = tally.take().arms
    return arms[0].units if arms else {}


async def test_a_fault_of_ours_is_an_error_of_the_unit_and_has_no_token(rig: Rig, tally: Tally, tmp_path: Path) -> None:
    exposures = exposures_of(rig, tally, tmp_path)
    async with rest(service_of(broken(rig), exposures), rig) as client:
        answer = await client.post(V1, json={"instances": [FULL_ROW]}, headers=headers(rig))
    assert answer.status_code == 500
    assert PREDICTION_HEADER not in answer.headers
    (arm,) = tally.take().arms
    sums = arm.units[DIGEST]
    assert (sums.requests, sums.errors) == (1, 1)
    assert sums.failures == {Failure.MODEL: 1}
    assert sums.latency_us > 0
    assert arm.firsts[DIGEST].covariate is None
    assert rig.count("fairlead_exposed_failures_total", error="InferenceFailed") == 1
    assert rig.count("fairlead_exposures_total", outcome="exposed") == 0, "answered requests alone"


async def test_a_fault_of_ours_over_grpc_is_one_too(rig: Rig, tally: Tally, tmp_path: Path) -> None:
    server, port = make_server(service_of(broken(rig), exposures_of(rig, tally, tmp_path)), "127.0.0.1", 0, 2**20)
    await server.start()
    message = pb.ModelInferRequest(model_name="arrival-delay")
    for name, value in FULL_ROW.items():
        added = message.inputs.add(name=name, datatype="BYTES" if isinstance(value, str) else "FP64", shape=[1])
        match value:
            case str():
                added.contents.bytes_contents.append(value.encode())
            case bool():
                added.datatype = "BOOL"
                added.contents.bool_contents.append(value)
            case int():
                added.datatype = "INT64"
                added.contents.int64_contents.append(value)
            case _:
                added.contents.fp64_contents.append(value)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError, match="INTERNAL"):
            await infer(message.SerializeToString(), metadata=tuple(headers(rig).items()))
    await server.stop(0)
    assert units_of(tally)[DIGEST].errors == 1


def test_every_error_of_ours_says_who_failed_and_no_mistake_of_a_client_does() -> None:
    told = {kind: kind.failure is not None for kind in RequestError.__subclasses__()}
    # A server that has no time for a request, or not enough, is no mistake of the client's.
    ours = {Overloaded, DeadlinePassed}
    assert told == {kind: kind.http_status >= 500 or kind in ours for kind in told}


@pytest.mark.parametrize(
    ("body", "status"), [({"instances": [{}]}, 400), ({"instances": "x"}, 400), ({"instances": [ROW] * 10_001}, 413)]
)
async def test_a_clients_mistake_is_not_the_arms(
    rig: Rig, tally: Tally, tmp_path: Path, body: dict[str, Any], status: int
) -> None:
    async with rest(service_of(rig.predictor, exposures_of(rig, tally, tmp_path)), rig) as client:
        assert (await client.post(V1, json=body, headers=headers(rig))).status_code == status
    assert tally.take().is_empty


async def test_a_rejected_feature_is_a_request_of_the_arm_without_an_error(
    material: Material, tally: Tally, tmp_path: Path
) -> None:
    hydration = Hydration(deadline_s=1, on_missing=Action.REJECT)
    async with running(
        material.repo.path, material.contract, tmp_path, hydration=hydration, revision="logistic-1"
    ) as rig:
        async with rest(service_of(rig.predictor, exposures_of(rig, tally, tmp_path)), rig) as client:
            row = ROW | {"tailnum": "unheard-of"}
            answer = await client.post(V1, json={"instances": [row]}, headers=headers(rig))
        assert answer.status_code == 422
        assert PREDICTION_HEADER not in answer.headers
    sums = units_of(tally)[DIGEST]
    assert (sums.requests, sums.errors) == (1, 0)


@pytest.mark.parametrize(
    ("features", "covariate"),
    [
        ({"plane__seats": np.array([180, 2], np.int64)}, 180.0),
        ({"plane__seats": np.array([True])}, 1.0),
        ({"plane__seats": np.array([40.5], np.float32)}, 40.5),
        ({"plane__seats": np.array([np.nan], np.float32)}, None),
        ({"plane__seats": np.array(["BOEING"], np.object_)}, None),
        ({"plane__jet": np.array([1.0], np.float32)}, None),
    ],
)
async def test_the_covariate_is_the_features_value_in_the_first_row(
    rig: Rig, tally: Tally, tmp_path: Path, features: dict[str, Any], covariate: float | None
) -> None:
    exposures = exposures_of(rig, tally, tmp_path)
    outputs = {"probability_late": np.array([0.5], np.float32)}
    response = PredictResponse(outputs, None, degraded=True, features=features)
    assert exposures.answered(headers(rig), response, 7) is not None
    (arm,) = tally.take().arms
    assert [first.covariate for first in arm.firsts.values()] == [covariate]
    assert arm.units[DIGEST].degraded == 1


async def test_outputs_are_rounded_to_float32_and_too_large_ones_are_infinite(
    rig: Rig, tally: Tally, tmp_path: Path
) -> None:
    exposures = exposures_of(rig, tally, tmp_path)
    outputs = {"probability_late": np.array([0.1, 1e300], np.float64)}
    token = exposures.answered(headers(rig), PredictResponse(outputs, None, degraded=False), 7)
    assert token is not None
    assert read(token.decode(), ROOT).outputs == (float(np.float32(0.1)), float("inf"))


async def test_an_arm_that_the_ledger_would_not_take_is_neither_tallied_nor_answered_with_a_token(
    rig: Rig, tally: Tally, tmp_path: Path
) -> None:
    exposures = exposures_of(rig, tally, tmp_path)
    response = PredictResponse({"probability_late": np.array([0.5], np.float32)}, None, degraded=False)
    odd = Layout.of("Logistic!", {"boosted": 0})
    assert exposures.answered(headers(rig, variant="Logistic!", layout=odd), response, 7) is None
    assert tally.take().is_empty
    assert rig.count("fairlead_exposures_total", outcome="exposed") == 1
