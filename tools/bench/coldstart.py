"""How long a server takes until it is ready, and what memory it has then: ``python tools/bench/coldstart.py [rounds]``.

Without a feature store (a plain ONNX model) and with one (the flights model, if `make train` has been run), in turns,
from the start of the process until ``/v2/health/ready`` says 200. Writes medians to ``build/bench/coldstart.json``:
``plain_s``, ``plain_cpu_s``, ``plain_rss_mib``, and the same with ``store``. Files are in the system's cache.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import onnx
from bench.paths import BUILD, ROOT
from onnx import TensorProto, helper

_ROUNDS = 5
_READY_WITHIN_S = 60.0
_PAUSE_S = 0.01
_MODEL = ROOT / "build/flights/models/boosted.onnx"
_STORE = ROOT / "feature_repo"


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write what was found."""
    rounds = int(arguments[0]) if arguments else _ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        _write_model(plain)
        cases = {"plain": ["--model", str(plain)]}
        if _MODEL.exists() and (_STORE / "data/online_store.db").exists():
            cases["store"] = ["--model", str(_MODEL), "--feature-store", str(_STORE)]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, given in cases.items():
                found[name].append(_start(given))
    told = {
        f"{name}_{what}": round(statistics.median(one[what] for one in starts), 2)
        for name, starts in found.items()
        for what in starts[0]
    }
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "coldstart.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    return 0


def _write_model(path: Path) -> None:
    """Write a graph that gives back its ten numbers with the other sign."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 10]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negation", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _start(given: Sequence[str]) -> dict[str, float]:
    http_port, grpc_port = _free_port(), _free_port()
    ports = ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    started_s = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "fairlead_server", *ports, *given], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        while not _is_ready(http_port):
            if server.poll() is not None or time.perf_counter() - started_s > _READY_WITHIN_S:
                raise SystemExit(f"the server did not become ready: {' '.join(given)}")
            time.sleep(_PAUSE_S)
        ready_s = time.perf_counter() - started_s
        return {"s": ready_s, "cpu_s": _cpu_s(server.pid), "rss_mib": _rss_mib(server.pid)}
    finally:
        server.terminate()
        server.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=10) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 -- OK
    except (urllib.error.URLError, ConnectionError):
        return False


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
