"""Several processes that serve as one: balance, sums, a killed worker, a killed parent, the end."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from support.server_process import ServerProcess, server_process

INFER = "/v2/models/plain/infer"
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
CONNECTIONS = 16


def workers_of(server: ServerProcess) -> list[int]:
    """Return the running workers' process ids, in no order."""
    parent = server.process.pid
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has."""
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


def answered(server: ServerProcess) -> float:
    """Return how many predictions the workers say that they have answered."""
    return server.count("fairlead_requests_total", model="plain", protocol="v2-rest", code="200")


class Load:
    """Clients that ask again and again, each over its own connection, until they are stopped."""

    def __init__(self, server: ServerProcess, clients: int) -> None:
        self._url = server.url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            with httpx.Client(base_url=self._url, timeout=20) as client:
                try:
                    while not self._stop.is_set():
                        status = client.post(INFER, json=REQUEST).status_code
                        with self._lock:
                            self.answers += status == 200
                            self.failures += [] if status == 200 else [str(status)]
                except httpx.HTTPError as error:
                    with self._lock:
                        self.failures.append(type(error).__name__)
                    if isinstance(error, httpx.ConnectError):
                        return


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negation", tensors[:1], tensors[1:])
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def server(plain: Path) -> Iterator[ServerProcess]:
    with server_process(plain.parent, ["--model", str(plain), "--workers", "2", "--drain-delay", "1"]) as started:
        started.wait_ready()
        yield started


def test_connections_are_spread_evenly_and_counted_as_one_servers(server: ServerProcess) -> None:
    before = answered(server)
    had = {pid: sockets_of(pid) for pid in workers_of(server)}
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=20)) for _ in range(CONNECTIONS)]
        for client in clients:
            assert client.post(INFER, json=REQUEST).json()["outputs"][0]["data"] == [-1.0, -2.0]
        got = {pid: sockets_of(pid) - had[pid] for pid in had}
        assert len(got) == 2
        assert all(0.4 * CONNECTIONS <= count <= 0.6 * CONNECTIONS for count in got.values()), got
        totals = {client.get("/metrics").text.count("\n") for client in clients}
        assert len(totals) == 1
        assert answered(server) == before + CONNECTIONS
        reports = [client.get("/v2/models/plain").json()["parameters"] for client in clients]
        assert all(report["ready"] for report in reports)
        told = [client.get("/v2/models/plain/stats").json()["model_stats"][0] for client in clients]
        assert {one["inference_count"] for one in told} == {before + CONNECTIONS}


def test_a_killed_worker_loses_its_own_requests_alone_and_its_counts_stay(server: ServerProcess) -> None:
    victim, other = workers_of(server)
    with Load(server, 8) as load:
        server.wait_until(lambda: load.answers > 100)
        before = answered(server)
        os.kill(victim, signal.SIGKILL)
        counts = [before, *(answered(server) for _ in range(20))]
        server.wait_until(lambda: len(workers_of(server)) == 2 and victim not in workers_of(server), 60)
        lost = list(load.failures)
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
    assert counts == sorted(counts)
    assert len(lost) <= 8, lost
    assert other in workers_of(server)
    assert "worker ended" in server.log


def test_workers_are_replaced_one_after_another_without_a_lost_request(server: ServerProcess) -> None:
    old = set(workers_of(server))
    server.wait_until(lambda: server.log.count("loaded model=plain") >= 3, 60)
    with Load(server, 4) as load:
        server.wait_until(lambda: load.answers > 20)
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: len(workers_of(server)) == 2 and not old & set(workers_of(server)), 120)
    assert not load.failures


def test_the_end_answers_what_is_in_flight(plain: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(plain), "--workers", "2", "--drain-delay", "1", "--drain-deadline", "20"]
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    head = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (INFER.encode(), len(body))
    with server_process(tmp_path, arguments) as server, ExitStack() as stack:
        server.wait_ready()
        begun = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=20)) for _ in range(4)
        ]
        for connection in begun:
            connection.sendall(head + body[:10])
        workers = workers_of(server)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: server.log.count("stopping deadline_s") == 2)
        late = httpx.get(f"{server.url}/v2/health/ready", timeout=20)
        assert late.status_code == 503
        assert late.headers["connection"] == "close"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda connection: connection.sendall(body[10:]), begun))
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in begun)
        assert server.wait_ended() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_model_that_cannot_be_served_ends_all_with_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with server_process(tmp_path, ["--model", str(tmp_path / "text.onnx"), "--workers", "2"]) as server:
        assert server.wait_ended(60) == 3
        assert sum(line.startswith("fairlead_server: ") for line in server.log.splitlines()) == 1
        assert "text.onnx" in server.log


def test_workers_end_when_their_parent_is_killed(server: ServerProcess) -> None:
    workers = workers_of(server)
    stopped = server.log.count("stopped")
    server.process.kill()
    server.process.wait()
    pause = threading.Event()
    for _ in range(1200):
        if not any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
            break
        pause.wait(0.05)
    assert server.log.count("stopped") == stopped + 2
