"""CPU per request beside the KServe SDK, answers checked first: ``make bench``.

The same ONNX file (the flights example's boosted model) behind Fairlead's server and behind the KServe SDK, one
process each, on this machine, in one run: rounds are interleaved and medians reported. Machines are noisy, so
look at CPU per request and at ratios. Writes ``build/bench/result.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import onnxruntime as ort
from load import JSON, Call, Cost, measure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fairlead.contract import Contract

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "build/flights/models/boosted.onnx"
REPO = ROOT / "feature_repo"
RESULT = ROOT / "build/bench/result.json"
NAME = "arrival-delay"
KEYS = {"tailnum": "N14228", "origin": "EWR", "dest": "IAH", "carrier": "UA"}
SCHEDULE = {"hour": 5, "weekday": 1, "distance": 1400.0}
ROUNDS = 5
REQUESTS = 1000
CONNECTIONS = 16
READY_WITHIN_S = 60
TOLERANCE = 1e-6


def main() -> int:
    """Check answers, measure, print and write; return the exit code."""
    argparse.ArgumentParser("make bench", description=__doc__, epilog="Example: make bench").parse_args()
    console = Console()
    if not MODEL.exists():
        console.print(f"{MODEL.relative_to(ROOT)}: no such file; run `make train`")
        return 1
    with ExitStack() as stack:
        ours = stack.enter_context(_server("fairlead"))
        full = stack.enter_context(_server("full"))
        glue = stack.enter_context(_server("glue"))
        cases = {
            "V2 JSON, all tensors": {"Fairlead": (ours, _full_call), "KServe SDK": (full, _full_call)},
            "V1 JSON, hydrated": {"Fairlead": (ours, _keys_call), "KServe SDK + Feast": (glue, _keys_call)},
        }
        calls = {
            case: {who: (process, call(port)) for who, ((process, port), call) in servers.items()}
            for case, servers in cases.items()
        }
        for case, servers in calls.items():
            _check(case, {who: call for who, (_, call) in servers.items()})
        costs = asyncio.run(_rounds(calls))
    console.print(_table(costs))
    medians = {
        case: {who: asdict(_median(rounds)) for who, rounds in servers.items()} for case, servers in costs.items()
    }
    RESULT.write_text(
        json.dumps({"requests": REQUESTS, "rounds": ROUNDS, "connections": CONNECTIONS, **medians}, indent=2)
    )
    return 0


async def _rounds(calls: Mapping[str, Mapping[str, tuple[int, Call]]]) -> dict[str, dict[str, list[Cost]]]:
    costs: dict[str, dict[str, list[Cost]]] = {case: {who: [] for who in servers} for case, servers in calls.items()}
    for case, servers in calls.items():
        for pid, call in servers.values():
            await measure(call, pid, connections=CONNECTIONS, requests=REQUESTS // 5)
        for _ in track(range(ROUNDS), description=case):
            for who, (pid, call) in servers.items():
                costs[case][who].append(await measure(call, pid, connections=CONNECTIONS, requests=REQUESTS))
    return costs


def _median(rounds: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(r, name) for r in rounds) for name in Cost.__slots__))


def _table(costs: Mapping[str, Mapping[str, Sequence[Cost]]]) -> Table:
    table = Table("one row per request", "server", "CPU us", "ratio", "requests/s", "p50 ms", "p99 ms")
    for case, servers in costs.items():
        first = _median(next(iter(servers.values())))
        for who, rounds in servers.items():
            cost = _median(rounds)
            ratio = f"{cost.cpu_us / first.cpu_us:.1f}"
            table.add_row(
                case, who, f"{cost.cpu_us:.0f}", ratio, f"{cost.per_s:.0f}", f"{cost.p50_ms:.1f}", f"{cost.p99_ms:.1f}"
            )
    return table


def _check(case: str, calls: Mapping[str, Call]) -> None:
    answers = {
        who: _probability(httpx.post(call.url, content=call.body, headers=JSON).raise_for_status())
        for who, call in calls.items()
    }
    if max(answers.values()) - min(answers.values()) > TOLERANCE:
        raise SystemExit(f"{case}: the answers differ, so speed says nothing: {answers}")


def _probability(response: httpx.Response) -> float:
    answer = response.json()
    found = answer["outputs"][0]["data"][0] if "outputs" in answer else answer["predictions"][0]["probability_late"]
    return float(found)


def _full_call(port: int) -> Call:
    session = ort.InferenceSession(str(MODEL))
    contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, MODEL.name)
    inputs = [_tensor(name, dtype) for name, dtype in contract.tensor_inputs.items()]
    return Call(f"http://127.0.0.1:{port}/v2/models/{NAME}/infer", json.dumps({"inputs": inputs}).encode())


def _tensor(name: str, dtype: str) -> dict[str, Any]:
    kinds = {"float32": ("FP32", 12.5), "float64": ("FP64", 700.0), "int64": ("INT64", 5)}
    datatype, value = kinds[dtype]
    return {"name": name, "shape": [1, 1], "datatype": datatype, "data": [value]}


def _keys_call(port: int) -> Call:
    body = json.dumps({"instances": [KEYS | SCHEDULE]})
    return Call(f"http://127.0.0.1:{port}/v1/models/{NAME}:predict", body.encode())


@contextmanager
def _server(kind: str) -> Iterator[tuple[int, int]]:
    """Start a server; yield its process id and port, and end it afterwards."""
    port = _free_port()
    ours = ["-m", "fairlead_server", "--model", str(MODEL), "--feature-store", str(REPO), "--model-name", NAME]
    peer = [str(ROOT / "tools/bench/peers.py"), kind, str(MODEL), str(REPO), str(port)]
    # Feast does not enforce ttl online, so neither do we here: both use what is stored, however old.
    ours += ["--hydration", '{"on_stale": "Use", "deadline_s": 1}']
    command = [*ours, "--http-port", str(port), "--grpc-port", "0"] if kind == "fairlead" else peer
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with (RESULT.parent / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
    try:
        _await_ready(process, port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(READY_WITHIN_S * 10):
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}; see build/bench/*.log")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/v2/models/{NAME}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"a server was not ready within {READY_WITHIN_S} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
