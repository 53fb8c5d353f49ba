"""A server process that is told of feedback: tokens that verify, and reports that add up to what was asked."""

from __future__ import annotations

import gzip
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from fairlead.assignment import Layout, assign
from fairlead.clock import ReplayClockWriter, to_us
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import Feedback
from fairlead.feedback.token import PREDICTION_HEADER, Prediction, read
from fairlead.route import EXPERIMENT_HEADER, UNIT_HEADER, ExperimentRoute
from fairlead.serving import FeedbackReport, ServerReport
from support.exposure_receiver import Receiver, receiver
from support.predictors import NOON
from support.server_process import FULL_ROW, ROUTE_KEY, ROW, Material, ServerProcess, server_process
from support.servers import free_port

V1 = "/v1/models/arrival-delay:predict"
V2 = "/v2/models/arrival-delay/infer"
SALT = "flights/arrival-delay/e1"
LAYOUT = Layout.of("logistic", {"boosted": 5000})
ROOT = KeyRing((SigningKey("k1", b"\x01" * 16),), units=b"\x02" * 16)
RING = ROOT.of("flights/arrival-delay")
UNITS = tuple(unit for unit in (f"u{n}" for n in range(400)) if assign(unit, SALT, LAYOUT) == "logistic")
FOREIGN = next(unit for unit in (f"u{n}" for n in range(400)) if assign(unit, SALT, LAYOUT) == "boosted")
WITHIN_S = 240
"""Longest wait for anything; generous, for machines that do much else."""
DATATYPES = {str: "BYTES", int: "INT64", float: "FP64"}


def route(phase: int = 0, revision: str = "logistic-1") -> str:
    return ExperimentRoute(SALT, phase, revision, "logistic", LAYOUT, f"header:{UNIT_HEADER}").sign(ROUTE_KEY)


def headers(unit: str, phase: int = 0) -> dict[str, str]:
    return {EXPERIMENT_HEADER: route(phase), UNIT_HEADER: unit}


def digest(unit: str) -> str:
    return RING.unit(unit.encode(), SALT).hex()


def tell(folder: Path, ledger: str, **fields: Any) -> None:
    fresh = folder / "feedback.json.new"
    fresh.write_text(Feedback(ledger, RING, **fields).dumped())
    fresh.replace(folder / "feedback.json")


def serving_dir(folder: Path) -> Path:
    keys = {"keys": [{"id": ROUTE_KEY.id, "secret": ROUTE_KEY.secret.hex()}]}
    (folder / "route-keys.json").write_text(json.dumps(keys))
    return folder


def arguments(material: Material, folder: Path, *more: str) -> list[str]:
    identity = ["--variant", "logistic", "--revision", "logistic-1", "--serving-dir", str(folder)]
    return [*material.arguments, *identity, "--report-interval", "0.1", *more]


def ask(server: ServerProcess, unit: str, phase: int = 0) -> httpx.Response:
    return httpx.post(server.url + V1, json={"instances": [ROW]}, headers=headers(unit, phase), timeout=WITHIN_S)


def report_of(server: ServerProcess) -> FeedbackReport:
    shown = httpx.get(f"{server.url}/v2/models/arrival-delay", timeout=WITHIN_S).json()
    return ServerReport.from_metadata(shown).feedback


@pytest.fixture(scope="module")
def ledger() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


@pytest.fixture(scope="module")
def told_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Serving directory of ``told``."""
    return serving_dir(tmp_path_factory.mktemp("told"))


@pytest.fixture(scope="module")
def told(material: Material, ledger: Receiver, told_dir: Path) -> Iterator[ServerProcess]:
    """A ready server that reports to ``ledger`` ten times a second."""
    tell(told_dir, ledger.url, api_key="server.t0psecret", covariates={SALT: "origin_weather__temp"})
    with server_process(told_dir, arguments(material, told_dir)) as started:
        started.wait_ready(WITHIN_S)
        yield started
        assert started.stop() == 0, started.log
        assert "t0psecret" not in started.log


def tensors(row: dict[str, Any], rows: int = 1) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": DATATYPES[type(value)], "shape": [rows], "data": [value] * rows}
        for name, value in row.items()
    ]


def infer_over_grpc(server: ServerProcess, metadata: list[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return initial and trailing metadata."""
    message = pb.ModelInferRequest(model_name="arrival-delay")
    for tensor in tensors(ROW):
        added = message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        match tensor["datatype"]:
            case "BYTES":
                added.contents.bytes_contents.extend(text.encode() for text in tensor["data"])
            case "INT64":
                added.contents.int64_contents.extend(tensor["data"])
            case _:
                added.contents.fp64_contents.extend(tensor["data"])
    with grpc.insecure_channel(server.grpc_address) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        _, call = infer.with_call(message.SerializeToString(), metadata=metadata, timeout=WITHIN_S)
        return dict(call.initial_metadata()), dict(call.trailing_metadata())


def test_every_protocol_answers_a_token_that_says_what_was_predicted(told: ServerProcess) -> None:
    unit = UNITS[0]
    v1 = ask(told, unit, phase=1)
    v2 = httpx.post(told.url + V2, json={"inputs": tensors(ROW)}, headers=headers(unit, 1), timeout=WITHIN_S)
    binary_outputs = {"inputs": tensors(ROW), "parameters": {"binary_data_output": True}}
    binary = httpx.post(told.url + V2, json=binary_outputs, headers=headers(unit, 1), timeout=WITHIN_S)
    initial, trailing = infer_over_grpc(told, list(headers(unit, 1).items()))

    (row,) = v1.json()["predictions"]
    tokens = [answer.headers[PREDICTION_HEADER] for answer in (v1, v2, binary)] + [trailing[PREDICTION_HEADER]]
    said = [read(token, ROOT) for token in tokens]
    assert initial[PREDICTION_HEADER] == trailing[PREDICTION_HEADER]
    assert binary.headers["content-type"] == "application/octet-stream"
    assert len({one.nonce for one in said}) == len(said)
    for one in said:
        assert one.unit.hex() == digest(unit)
        assert one.time_us == to_us(NOON)
        assert one.rows == 1
        assert one.outputs == pytest.approx((row["probability_late"],), abs=1e-7)
        assert one.context.salt == SALT
        assert (one.context.phase, one.context.variant, one.context.revision) == (1, "logistic", "logistic-1")


@pytest.mark.parametrize(("rows", "outputs"), [(16, 16), (17, 0)])
def test_a_token_carries_the_outputs_of_up_to_16_rows(told: ServerProcess, rows: int, outputs: int) -> None:
    answer = httpx.post(
        told.url + V1, json={"instances": [FULL_ROW] * rows}, headers=headers(UNITS[0], 1), timeout=WITHIN_S
    )
    said: Prediction = read(answer.headers[PREDICTION_HEADER], ROOT)
    assert (said.rows, len(said.outputs)) == (rows, outputs)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {UNIT_HEADER: UNITS[0]},
        {EXPERIMENT_HEADER: route()},
        {EXPERIMENT_HEADER: route(), UNIT_HEADER: FOREIGN},
        {EXPERIMENT_HEADER: route(revision="logistic-0"), UNIT_HEADER: UNITS[0]},
        {EXPERIMENT_HEADER: route()[:-4] + "AAAA", UNIT_HEADER: UNITS[0]},
    ],
)
def test_who_is_not_exposed_gets_no_token(told: ServerProcess, sent: dict[str, str]) -> None:
    answer = httpx.post(told.url + V1, json={"instances": [ROW]}, headers=sent, timeout=WITHIN_S)
    assert answer.status_code == 200
    assert PREDICTION_HEADER not in answer.headers
    if sent:
        initial, trailing = infer_over_grpc(told, list(sent.items()))
        assert PREDICTION_HEADER not in initial | trailing


def test_a_refused_request_gets_no_token(told: ServerProcess) -> None:
    answer = httpx.post(told.url + V1, json={"instances": [{}]}, headers=headers(UNITS[0]), timeout=WITHIN_S)
    assert answer.status_code == 400
    assert PREDICTION_HEADER not in answer.headers


def test_reports_add_up_to_what_was_asked_and_expose_each_unit_once(told: ServerProcess, ledger: Receiver) -> None:
    asked = Counter({unit: 1 + n % 3 for n, unit in enumerate(UNITS[:20])})
    mismatched = ledger.received.mismatches
    for unit in asked.elements():
        assert ask(told, unit, phase=7).status_code == 200
    httpx.post(told.url + V1, json={"instances": [ROW]}, headers=headers(FOREIGN, 7), timeout=WITHIN_S)

    def in_phase() -> Counter[str]:
        found: Counter[str] = Counter()
        for count in ledger.received.counts:
            if count.phase == 7:
                found[count.unit] += count.requests
        return found

    told.wait_until(lambda: in_phase().total() == asked.total() and ledger.received.mismatches > mismatched, WITHIN_S)
    assert in_phase() == Counter({digest(unit): number for unit, number in asked.items()})
    exposed = [one for one in ledger.received.exposures if one.phase == 7]
    assert sorted(one.unit for one in exposed) == sorted(digest(unit) for unit in asked)
    assert {one.covariate for one in exposed} == {40.5}
    assert {one.at_us for one in exposed} == {to_us(NOON)}
    assert ledger.received.authorizations == {"Bearer server.t0psecret"}
    assert all(count.latency_us > 0 for count in ledger.received.counts)
    assert told.count("fairlead_exposure_reports_total", outcome="taken") >= 1
    assert report_of(told).last_success_us == to_us(NOON)
    assert report_of(told).configured


def test_feedback_comes_and_goes_with_its_file(told: ServerProcess, ledger: Receiver, told_dir: Path) -> None:
    assert report_of(told).configured
    (told_dir / "feedback.json").unlink()
    told.wait_until(lambda: PREDICTION_HEADER not in ask(told, UNITS[0]).headers, WITHIN_S)
    assert not report_of(told).configured
    tell(told_dir, ledger.url, api_key="server.t0psecret")
    told.wait_until(lambda: PREDICTION_HEADER in ask(told, UNITS[0]).headers, WITHIN_S)


def test_what_a_ledger_missed_is_told_once_it_is_back_across_a_kill_and_clocks_that_jump(
    material: Material, tmp_path: Path
) -> None:
    """Away, breaking off after taking, failing, and the server killed meanwhile: the totals are exact."""
    folder, spool, port = serving_dir(tmp_path), tmp_path / "spool", free_port()
    tell(folder, f"http://127.0.0.1:{port}")
    command = arguments(material, folder, "--spool-dir", str(spool))
    clock = ReplayClockWriter(material.folder / "clock")
    asked: Counter[str] = Counter()

    def ask_all(server: ServerProcess, units: tuple[str, ...]) -> None:
        for unit in units:
            assert ask(server, unit).status_code == 200
            asked[digest(unit)] += 1

    with server_process(folder, command) as killed:
        killed.wait_ready(WITHIN_S)
        ask_all(killed, UNITS[:20])
        killed.wait_until(lambda: _told_in(spool) > 0, WITHIN_S)
        ask_all(killed, UNITS[:5])
        killed.wait_until(lambda: _told_in(spool) == asked.total(), WITHIN_S)
        assert killed.count("fairlead_exposure_reports_total", outcome="failed") > 0
        killed.process.send_signal(signal.SIGKILL)
        killed.wait_ended()
    try:
        with server_process(folder, command) as server:
            server.wait_ready(WITHIN_S)
            clock.set_us(to_us(NOON) - 3_600_000_000)
            ask_all(server, UNITS[10:30])
            clock.set_us(to_us(NOON) + 3_600_000_000)
            ask_all(server, UNITS[10:30])
            with receiver(port) as ledger:
                answers = iter([None, (500, b"no"), (503, b"no"), (429, b"later"), None])
                ledger.answer = lambda _: next(answers, (200, b"{}"))
                ledger.keeps = lambda status: status in (None, 200)
                server.wait_until(lambda: ledger.received.requests.total() == asked.total(), WITHIN_S)
                server.wait_until(lambda: report_of(server).waiting == 0, WITHIN_S)
                ask_all(server, UNITS[30:35])
                assert server.stop() == 0
                received = ledger.received
            assert received.requests == asked
            assert received.in_blocks == asked.total()
            assert received.deliveries > len(received.reports)
            assert (len(received.servers), received.dropped) == (2, 0)
        assert _told_in(spool) == 0
    finally:
        clock.set_us(to_us(NOON))


def _told_in(spool: Path) -> int:
    """Requests in the reports that wait."""
    reports = [json.loads(gzip.decompress(path.read_bytes())) for path in spool.glob("*.json.gz")]
    return sum(count["requests"] for report in reports for count in report.get("counts", []))
