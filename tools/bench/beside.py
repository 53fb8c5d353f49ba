"""A model of 200 ms beside one of 50 us, in one server on one core.

``python tools/bench/beside.py [seconds] [rounds]``

Asks the short one at a steady rate, alone and while four clients ask the long one as fast as it answers, in turns,
and writes ``build/bench/beside.json``: the short one's p99 alone, beside, and by how much the one is above the other
(``above_ms``, the median of the rounds). Every answer is checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import uvloop
from bench.paths import BUILD, ROOT
from onnx import TensorProto, helper

_WIDTH = 16
_LONG_S = 0.2
_RATE = 200.0
"""Requests a second for the short model, spread over the connections."""
_CONNECTIONS = 4
_LONG_CONNECTIONS = 4
_SERVER_CPU, _LOAD_CPU = 0, 1
_READY_WITHIN_S = 60.0
_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class _Found:
    """What one round came to."""

    p99_ms: float
    p50_ms: float
    long_answers: int


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write what was found."""
    seconds = float(arguments[0]) if arguments else 4.0
    rounds = int(arguments[1]) if len(arguments) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        _write_models(Path(folder))
        server = _start(Path(folder))
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                told = runner.run(_measure(_port(server), seconds, rounds))
        finally:
            server.terminate()
            server.wait()
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "beside.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))
    return 0


def _write_models(folder: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", _WIDTH]) for name in ("x", "y"))
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [], [_FACTOR])
    _write(
        folder / "short.onnx",
        helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "g", [x], [y], [factor]),
    )
    rounds = 16 * 1000
    while True:
        _write(folder / "long.onnx", _looping(rounds, [x], [y]))
        took_s = _time(folder / "long.onnx")
        if 0.8 * _LONG_S < took_s < 1.3 * _LONG_S:
            return
        rounds = 16 * max(1, round(rounds * _LONG_S / took_s / 16))


def _looping(rounds: int, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.GraphProto:
    """Return a graph that turns columns ``rounds`` times by a matrix; after a multiple of 16 all is as it was."""
    turn = np.roll(np.eye(_WIDTH, dtype=np.float32), 1, axis=1)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["before", "turn"], ["after"]), helper.make_node("Identity", ["going"], ["goes"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["n", _WIDTH]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["n", _WIDTH]),
        ],
    )
    constants = [
        helper.make_tensor("turn", TensorProto.FLOAT, [_WIDTH, _WIDTH], turn.tobytes(), raw=True),
        helper.make_tensor("rounds", TensorProto.INT64, [], [rounds]),
        helper.make_tensor("always", TensorProto.BOOL, [], [True]),
    ]
    loop = helper.make_node("Loop", ["rounds", "always", "x"], ["y"], body=body)
    return helper.make_graph([loop], "g", inputs, outputs, constants)


def _write(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def _time(path: Path) -> float:
    """Return the processor time of one run."""
    import onnxruntime  # noqa: PLC0415 -- half a second that --help need not take

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = np.ones((1, _WIDTH), np.float32)
    session.run(None, {"x": x})
    start_s = time.process_time()
    session.run(None, {"x": x})
    return time.process_time() - start_s


def _start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fairlead_server", "--model-repository", str(folder)]
    command += ["--http-port", "0", "--grpc-port", "0", "--queue-deadline", "30"]
    pinned = ["taskset", "-c", str(_SERVER_CPU), *command] if (os.cpu_count() or 1) > 1 else command
    return subprocess.Popen(pinned, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def _port(server: subprocess.Popen[str]) -> int:
    """Return the REST port; what the server says afterwards is thrown away."""
    if server.stderr is None:
        raise SystemExit("the server says nothing")
    line = next((line for line in server.stderr if "http_port=" in line), None)
    if line is None:
        raise SystemExit("the server did not start")
    port = int(line.partition("http_port=")[2].split()[0])
    threading.Thread(target=server.stderr.read, daemon=True).start()
    return port


async def _measure(port: int, seconds: float, rounds: int) -> dict[str, float]:
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {_LOAD_CPU})
    await _await_ready(port)
    found: dict[bool, list[_Found]] = {False: [], True: []}
    await _round(port, 1.0, beside=True)
    for _ in range(rounds):
        for beside in (False, True):
            found[beside].append(await _round(port, seconds, beside=beside))
    pairs = list(zip(found[False], found[True], strict=True))
    return {
        "alone_p50_ms": round(statistics.median(one.p50_ms for one in found[False]), 3),
        "alone_p99_ms": round(statistics.median(one.p99_ms for one in found[False]), 3),
        "beside_p50_ms": round(statistics.median(one.p50_ms for one in found[True]), 3),
        "beside_p99_ms": round(statistics.median(one.p99_ms for one in found[True]), 3),
        "above_ms": round(statistics.median(beside.p99_ms - alone.p99_ms for alone, beside in pairs), 3),
        "long_answers_per_s": round(sum(one.long_answers for one in found[True]) / (rounds * seconds), 2),
    }


async def _round(port: int, seconds: float, *, beside: bool) -> _Found:
    end_s = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        short = [group.create_task(_ask_steadily(port, end_s)) for _ in range(_CONNECTIONS)]
        long = [group.create_task(_ask_at_once(port, end_s)) for _ in range(_LONG_CONNECTIONS if beside else 0)]
    times_ms = sorted(1e3 * one for task in short for one in task.result())
    p50_ms, p99_ms = (times_ms[int(share * len(times_ms))] for share in (0.5, 0.99))
    return _Found(p99_ms, p50_ms, sum(task.result() for task in long))


async def _ask_steadily(port: int, end_s: float) -> list[float]:
    """Ask the short model by the clock; latency counts from when a request was due."""
    client = await _Client.open(port, "short", _FACTOR)
    times_s: list[float] = []
    pause_s = _CONNECTIONS / _RATE
    due_s = time.perf_counter() + pause_s * np.random.default_rng().random()
    while due_s < end_s:
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        sent_s = time.perf_counter()
        await client.ask()
        # A timer that rings late is the load's own fault; a request that waited for the one before it is not.
        times_s.append(time.perf_counter() - sent_s)
        due_s = max(due_s + pause_s, sent_s)
    client.close()
    return times_s


async def _ask_at_once(port: int, end_s: float) -> int:
    client = await _Client.open(port, "long", 1.0)
    answers = 0
    while time.perf_counter() < end_s:
        await client.ask()
        answers += 1
    client.close()
    return answers


class _Client:
    """A kept connection that asks one model the same again and again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, model: str, factor: float) -> None:
        values = [float(value) for value in range(1, _WIDTH + 1)]
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, _WIDTH], "data": values}
        body = json.dumps({"inputs": [tensor]}).encode()
        head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._wanted = [factor * value for value in values]
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int, model: str, factor: float) -> _Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port), model, factor)

    async def ask(self) -> None:
        """Ask, and check the answer."""
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or json.loads(body)["outputs"][0]["data"] != self._wanted:
            raise SystemExit(f"wrong answer: {head.splitlines()[0]!r} {body[:200]!r}")

    def close(self) -> None:
        self._writer.close()


async def _await_ready(port: int) -> None:
    end_s = time.perf_counter() + _READY_WITHIN_S
    while time.perf_counter() < end_s:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if b" 200 " in answer.splitlines()[0]:
            return
        await asyncio.sleep(0.2)
    raise SystemExit("the server was not ready in time")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
