"""The process: start, readiness, signals, exit codes, concurrency, experiments, metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from fairlead.assignment import Layout, assign
from fairlead.route import EXPERIMENT_HEADER, UNIT_HEADER, ExperimentRoute
from fairlead.serving import ExperimentCounts, RegistryReport, ServerReport
from fairlead_server.protocol.grpc.codec import CONTENTS_OF
from support import raw_grpc
from support.server_process import FULL_ROW, ROUTE_KEY, ROW, Material, ServerProcess, server_process
from support.servers import free_port
from support.waiting import until

DATATYPES = {str: "BYTES", int: "INT64", float: "FP64"}
V1 = "/v1/models/arrival-delay:predict"
LAYOUT = Layout.of("logistic", {"boosted": 5000})


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    command = [sys.executable, "-m", "fairlead_server", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def experiment(variant: str = "logistic", revision: str = "logistic-1") -> str:
    return ExperimentRoute("ns/arrival-delay/e1", 0, revision, variant, LAYOUT, f"header:{UNIT_HEADER}").sign(ROUTE_KEY)


def unit_in(arm: str, prefix: str = "u") -> str:
    units = (f"{prefix}{n}" for n in range(1000))
    return next(unit for unit in units if assign(unit, "ns/arrival-delay/e1", LAYOUT) == arm)


def test_help_shows_an_example_and_the_exit_codes() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert "python -m fairlead_server --model build/flights/models/logistic.onnx" in shown.stdout
    assert "4 a port is taken" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--model"),
        (["--http-port", "70000"], "no port"),
        (["--grpc-port", "x"], "no port"),
        (["--model-digest", "abc"], "no digest"),
        (["--hydration", '{"deadline": 1}'], "deadline"),
        (["--hydration", "x"], "JSON"),
        (["--clock", "sundial"], "no clock"),
        (["--startup-deadline", "-1"], "no time"),
        (["--drain-deadline", "nan"], "no time"),
        (["--max-body-bytes", "0"], "no size"),
        (["--registry-refresh", "-1"], "no time"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_arguments_end_it_with_2_and_a_clear_message(arguments: list[str], text: str) -> None:
    model = ["--model", "m.onnx", "--feature-store", "."] if arguments else []
    ended = run(*model, *arguments)
    assert ended.returncode == 2
    assert text in ended.stderr.splitlines()[-1]


def test_a_bad_model_clock_or_digest_ends_it_with_3_and_one_clear_line(material: Material, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    store = ["--feature-store", str(material.repo.path)]
    ports = ["--http-port", "0", "--grpc-port", "0"]
    for arguments, text in (
        (["--model", str(tmp_path / "none.onnx"), *store], "none.onnx"),
        (["--model", str(tmp_path / "text.onnx"), *store], "text.onnx"),
        ([*material.arguments, "--model-digest", f"sha256:{'0' * 64}"], "sha256"),
        (["--model", str(material.model), *store, "--clock", f"replay:{tmp_path / 'none'}"], "--clock"),
    ):
        log = tmp_path / "termination-log"
        ended = run(*arguments, *ports, FAIRLEAD_TERMINATION_LOG=str(log))
        assert ended.returncode == 3, ended.stderr
        assert f"fairlead_server: {log.read_text()}" == ended.stderr.splitlines()[-1]
        message = ended.stderr.splitlines()[-1]
        assert message.startswith("fairlead_server: ")
        assert text in message
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port"])
def test_a_taken_port_ends_it_with_4_naming_the_flag(material: Material, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"--http-port": "0", "--grpc-port": "0"} | {flag: str(taken.getsockname()[1])}
        ended = run(*material.arguments, *(word for pair in ports.items() for word in pair))
    assert ended.returncode == 4, ended.stderr
    assert flag in ended.stderr.splitlines()[-1]


def test_while_the_store_is_waited_for_it_listens_and_says_not_ready(material: Material, tmp_path: Path) -> None:
    away = tmp_path / "feature_store.yaml"
    text = (material.repo.path / "feature_store.yaml").read_text()
    online = f"online_store: {{type: redis, connection_string: '127.0.0.1:{free_port()}'}}"
    text = re.sub(r"online_store:\n(  .*\n)+", f"{online}\n", text)
    away.write_text(text.replace("registry.db", str(material.repo.path / "registry.db")))
    arguments = ["--model", str(material.model), "--feature-store", str(away), "--startup-deadline", "2"]
    with server_process(tmp_path, [*arguments, "--model-name", "arrival-delay"]) as server:
        server.wait_listening()
        for path in ("/v2/health/ready", "/v2/models/arrival-delay/ready", "/v2/models/arrival-delay"):
            answer = httpx.get(server.url + path, timeout=10)
            assert answer.status_code == 503, answer.text
            assert list(answer.json()) == ["error"]
        assert httpx.get(f"{server.url}/v2/health/live", timeout=10).json() == {"live": True}
        assert httpx.post(server.url + V1, json={"instances": [ROW]}, timeout=10).status_code == 503
        assert server.count("fairlead_requests_total", protocol="v1-rest", code="503") == 1
        index = httpx.post(f"{server.url}/v2/repository/index", timeout=10).json()
        assert index[0]["state"] == "UNAVAILABLE"
        with grpc.insecure_channel(server.grpc_address) as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=10)
        assert not pb.ServerReadyResponse.FromString(ready).ready
        server.wait_ready()
        metadata = httpx.get(f"{server.url}/v2/models/arrival-delay", timeout=10).json()
        assert metadata["parameters"]["degraded"] is True
        answer = httpx.post(server.url + V1, json={"instances": [ROW], "parameters": {"report_states": True}})
        assert answer.json()["parameters"]["degraded"] is True
        assert server.stop() == 0


def test_a_signal_during_the_start_ends_it_with_0(material: Material, tmp_path: Path) -> None:
    with server_process(tmp_path, material.arguments) as server:
        server.wait_listening()
        assert server.stop() == 0


def test_metadata_tells_the_inputs_apart_and_carries_digests(server: ServerProcess, material: Material) -> None:
    shown = httpx.get(f"{server.url}/v2/models/arrival-delay").json()
    contract = material.contract
    roles = {tensor["name"]: tensor["parameters"]["role"] for tensor in shown["inputs"]}
    assert {name for name, role in roles.items() if role == "entity"} == {e.join_key for e in contract.entities}
    assert {name for name, role in roles.items() if role == "request"} == {r.name for r in contract.request_features}
    assert {name for name, role in roles.items() if role == "feature"} == set(contract.tensor_inputs)
    assert shown["outputs"][0]["parameters"] == {"meaning": "probability"}
    report = ServerReport.from_metadata(shown)
    assert report.model_copy(update={"requests": ExperimentCounts(), "registry": RegistryReport()}) == ServerReport(
        model_digest=material.digest,
        contract_digest=contract.digest,
        contract_fingerprint=contract.fingerprint,
        feature_service=contract.feature_service,
        variant="logistic",
        revision="logistic-1",
        ready=True,
        degraded=False,
    )
    assert report.registry.fingerprint == contract.fingerprint
    assert report.registry.fits
    assert httpx.get(f"{server.url}/v2/models/arrival-delay/versions/1").json() == shown


def test_lists_and_server_metadata(server: ServerProcess) -> None:
    def get(path: str) -> Any:
        return httpx.get(server.url + path, timeout=60).json()  # a page of KServe has to be imported first

    assert get("/v1/models") == get("/v2/models") == {"models": ["arrival-delay"]}
    assert get("/v1/models/arrival-delay") == {"name": "arrival-delay", "ready": True}
    assert get("/v2/models/arrival-delay/versions/1/ready") == {"name": "arrival-delay", "ready": True}
    assert get("/v2")["name"] == "fairlead"
    assert get("/v2/health/live") == {"live": True}
    assert get("/") == {"status": "alive"}
    assert httpx.head(f"{server.url}/v2/health/ready").status_code == 200
    assert get("/openapi.json")["info"]["title"] == "KServe ModelServer"
    index = httpx.post(f"{server.url}/v2/repository/index", json={"ready": True}).json()
    assert index == [{"name": "arrival-delay", "version": "1", "state": "READY"}]


def test_metrics_are_prometheus_text(server: ServerProcess) -> None:
    httpx.post(server.url + V1, json={"instances": [ROW]})
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for stage in ("decode", "hydrate", "infer", "encode"):
        assert server.count("fairlead_stage_seconds_count", variant="logistic", stage=stage) >= 1


async def test_200_requests_at_once_get_each_their_own_answer(server: ServerProcess) -> None:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits) as client:

        async def ask(number: int) -> None:
            rows = [FULL_ROW | {"plane__seats": number, "plane__maker": f"m{number}"}] * (1 + number % 3)
            answer = await client.post(V1, json={"instances": rows})
            assert answer.status_code == 200
            predictions = answer.json()["predictions"]
            assert len(predictions) == len(rows)
            assert {p["seen_plane__seats"] for p in predictions} == {number}
            assert {p["seen_plane__maker"] for p in predictions} == {f"m{number}"}

        await asyncio.gather(*(ask(number) for number in range(200)))


async def test_hydrated_and_full_requests_at_once(server: ServerProcess) -> None:
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits) as client:

        async def ask(row: dict[str, Any]) -> tuple[int, Any]:
            answer = await client.post(V1, json={"instances": [row]})
            return answer.status_code, answer.json()["predictions"][0]["seen_plane__maker"]

        answers = await asyncio.gather(*(ask(ROW if number % 2 else FULL_ROW) for number in range(200)))
    assert set(answers) == {(200, "BOEING")}


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    def request(hour: int) -> bytes:
        body = json.dumps({"instances": [ROW | {"hour": hour}]}).encode()
        return b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (V1.encode(), len(body), body)

    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.sendall(b"".join(request(hour) for hour in (5, 18, 5)))
        received = b""
        while received.count(b"seen_departure__evening") < 3:
            received += connection.recv(65536)
    assert re.findall(rb'"seen_departure__evening":(\d)', received) == [b"0", b"1", b"0"]


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        (dict, "none"),
        (lambda: {UNIT_HEADER: "u1"}, "none"),
        (lambda: {EXPERIMENT_HEADER: experiment(), UNIT_HEADER: unit_in("logistic")}, "exposed"),
        (lambda: {EXPERIMENT_HEADER: experiment(), UNIT_HEADER: unit_in("boosted")}, "mismatch"),
        (lambda: {EXPERIMENT_HEADER: experiment(revision="logistic-0"), UNIT_HEADER: "u1"}, "shadow"),
        (lambda: {EXPERIMENT_HEADER: experiment()[:-4] + "AAAA", UNIT_HEADER: "u1"}, "unverified"),
        (lambda: {EXPERIMENT_HEADER: "v1.k1.é.x".encode().decode("latin-1"), UNIT_HEADER: "u1"}, "unverified"),
    ],
)
async def test_experiment_headers_are_judged_on_every_protocol(
    server: ServerProcess, headers: Callable[[], dict[str, str]], outcome: str
) -> None:
    before = server.count("fairlead_exposures_total", outcome=outcome)
    sent = {name.encode(): value.encode("latin-1") for name, value in headers().items()}
    async with httpx.AsyncClient() as client:
        assert (await client.post(server.url + V1, json={"instances": [ROW]}, headers=sent)).status_code == 200
    if all(value.isascii() for value in headers().values()):
        await infer_over_grpc(server, list(headers().items()))
        before += 1
    assert server.count("fairlead_exposures_total", outcome=outcome) == before + 1


@pytest.mark.parametrize(
    "headers",
    [
        lambda: [(EXPERIMENT_HEADER, experiment()), (EXPERIMENT_HEADER, experiment())],
        lambda: [(EXPERIMENT_HEADER, experiment()), (EXPERIMENT_HEADER, "v1.k1.forged.x")],
        lambda: [(EXPERIMENT_HEADER, "v1.k1.forged.x"), (EXPERIMENT_HEADER, experiment())],
        lambda: [(EXPERIMENT_HEADER, f"{experiment()},{experiment()}")],
        lambda: [(EXPERIMENT_HEADER, experiment()), (UNIT_HEADER, unit_in("logistic"))],
        lambda: [(EXPERIMENT_HEADER, experiment()), (UNIT_HEADER, unit_in("boosted"))],
    ],
)
async def test_a_header_or_a_unit_given_twice_exposes_nobody_and_is_counted_as_rejected(
    server: ServerProcess, headers: Callable[[], list[tuple[str, str]]]
) -> None:
    """Every case has the right unit once, so that the header's second copy, or the unit's, decides."""
    before = report_of(server).requests
    sent = [*headers(), (UNIT_HEADER, unit_in("logistic"))]
    async with httpx.AsyncClient() as client:
        assert (await client.post(server.url + V1, json={"instances": [ROW]}, headers=sent)).status_code == 200
        tensors = [{"name": n, "datatype": DATATYPES[type(v)], "shape": [1], "data": [v]} for n, v in ROW.items()]
        url = f"{server.url}/v2/models/arrival-delay/infer"
        assert (await client.post(url, json={"inputs": tensors}, headers=sent)).status_code == 200
    await infer_over_grpc(server, sent)
    after = report_of(server).requests
    assert after == before.model_copy(update={"rejected": before.rejected + 3})


@pytest.mark.parametrize(
    ("metadata", "outcome"),
    [
        (lambda: [(EXPERIMENT_HEADER.encode(), b"v1.k1.\xff\xfe.x")], "unverified"),
        (lambda: [(EXPERIMENT_HEADER.encode(), "v1.k1.é.x".encode())], "unverified"),
        (lambda: [(EXPERIMENT_HEADER.encode(), experiment().encode()), (UNIT_HEADER.encode(), b"a")] * 2, "unverified"),
        (lambda: [(EXPERIMENT_HEADER.encode(), experiment().encode()), (UNIT_HEADER.encode(), b"a,b")], "unverified"),
        (
            lambda: [
                (EXPERIMENT_HEADER.encode(), experiment().encode()),
                (UNIT_HEADER.encode(), unit_in("logistic", "é").encode()),
            ],
            "exposed",
        ),
    ],
)
def test_metadata_beyond_ascii_is_judged_by_its_bytes_and_never_logged(
    server: ServerProcess, metadata: Callable[[], list[tuple[bytes, bytes]]], outcome: str
) -> None:
    before = server.count("fairlead_exposures_total", outcome=outcome)
    method = "/inference.GRPCInferenceService/ModelInfer"
    assert raw_grpc.call(server.grpc_port, method, hydrated_message().SerializeToString(), metadata())
    assert server.count("fairlead_exposures_total", outcome=outcome) == before + 1
    assert "Invalid encoding" not in server.log


async def test_the_report_counts_what_headers_came_to(server: ServerProcess) -> None:
    before = report_of(server).requests
    right, other = (UNIT_HEADER, unit_in("logistic")), (UNIT_HEADER, unit_in("boosted"))
    for headers in (
        [right],
        [right, (EXPERIMENT_HEADER, experiment())],
        [other, (EXPERIMENT_HEADER, experiment())],
        [right, (EXPERIMENT_HEADER, experiment(revision="logistic-0"))],
        [right, (EXPERIMENT_HEADER, "forged")],
    ):
        await infer_over_grpc(server, headers)
    after = report_of(server).requests
    assert after.exposed - before.exposed == 1
    assert after.mismatched - before.mismatched == 1
    assert after.shadow - before.shadow == 1
    assert after.rejected - before.rejected == 1
    assert after.with_header - before.with_header == 4


def hydrated_message() -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="arrival-delay")
    for name, value in ROW.items():
        tensor = message.inputs.add(name=name, datatype=DATATYPES[type(value)], shape=[1])
        sent = value.encode() if isinstance(value, str) else value
        getattr(tensor.contents, CONTENTS_OF[tensor.datatype]).append(sent)
    return message


def report_of(server: ServerProcess) -> ServerReport:
    return ServerReport.from_metadata(httpx.get(f"{server.url}/v2/models/arrival-delay").json())


async def infer_over_grpc(server: ServerProcess, metadata: list[tuple[str, str]]) -> None:
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        await method(hydrated_message().SerializeToString(), metadata=tuple(metadata), timeout=10)


def test_a_refused_request_exposes_nobody(server: ServerProcess) -> None:
    before = server.count("fairlead_exposures_total", outcome="exposed")
    headers = {EXPERIMENT_HEADER: experiment(), UNIT_HEADER: unit_in("logistic")}
    assert httpx.post(server.url + V1, json={"instances": []}, headers=headers).status_code == 400
    assert server.count("fairlead_exposures_total", outcome="exposed") == before


async def test_sigterm_lets_requests_in_flight_end_and_waits_for_no_other(material: Material, tmp_path: Path) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    head = f"POST {V1} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with server_process(tmp_path, [*material.arguments, "--drain-deadline", "2"]) as server:
        await asyncio.to_thread(server.wait_ready)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        _, stuck = await asyncio.open_connection("127.0.0.1", server.http_port)
        for connection in (writer, stuck):
            connection.write(head + body[:10])
            await connection.drain()
        await asyncio.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: "stopping" in server.log)
        writer.write(body[10:])
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        started_s = time.monotonic()
        assert await asyncio.to_thread(server.wait_ended) == 0
        assert time.monotonic() - started_s < 6
        assert "stopped" in server.log
        writer.close()
        stuck.close()


async def test_a_body_that_never_comes_is_refused_with_408(server: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    writer.write(f"POST {V1} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
    writer.close()


def test_logs_are_one_line_per_event(server: ServerProcess) -> None:
    lines = server.log.splitlines()
    assert all(re.match(r"time=\S+Z level=\w+ \w+", line) for line in lines), server.log
    assert sum("loaded model=arrival-delay" in line for line in lines) == 1
