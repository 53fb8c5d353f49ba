"""What is measured besides the rounds: latency at half of saturation, two workers, and what other programs measure."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench import machine
from bench.asking import Questions
from bench.cases import CASES, Case
from bench.load import Load, parse_wrk
from bench.native import open_load
from bench.ours import Ledger
from bench.paths import BENCH, BUILD
from bench.results import Record
from bench.servers import Given, Server
from bench.systems import SYSTEMS

_CASE = "v2-json-1x16"
_ROUNDS, _SECONDS = 5, 3
_WARM_S = 4
_PROGRAM_WITHIN_S = 180
_PROFILED = ("v2-json-1x16", "grpc-1x16")
_LIBRARIES = 9


def p99_at_half(
    servers: Mapping[str, Server], questions: Questions, records: Sequence[Record]
) -> dict[str, float] | None:
    """Return the 99th percentile at half of what saturates our server, its own and nginx's, in microseconds.

    Raises:
        LoadFailed: The load did not end well.
        NotInstalled: The load could not be built.
    """
    full = next((row.requests_per_s for row in records if (row.case, row.system) == (_CASE, "fairlead")), None)
    if full is None or not {"fairlead", "nginx-static"} <= set(servers):
        return None
    found: dict[str, list[float]] = {"fairlead": [], "nginx-static": []}
    for _ in range(_ROUNDS):
        for name, waits_us in found.items():
            waits_us.append(_awake(servers[name], questions, full / 2).p99_us)
    ours_us, nginx_us = (statistics.median(found[name]) for name in ("fairlead", "nginx-static"))
    return {"rate": round(full / 2), "fairlead_us": ours_us, "nginx_us": nginx_us}


def profile(servers: Mapping[str, Server], questions: Questions) -> dict[str, dict[str, float]] | None:
    """Return in which library our server's CPU time is spent under load, as shares by case; None without ``perf``.

    Raises:
        LoadFailed: The load did not end well.
    """
    if shutil.which("perf") is None or "fairlead" not in servers:
        return None
    server, recorded = servers["fairlead"], BUILD / "perf.data"
    found: dict[str, dict[str, float]] = {}
    for case in (case for case in CASES if case.name in _PROFILED):
        server.thaw()
        record = ["perf", "record", "--quiet", "-F", "999", "-o", str(recorded), "-p", str(server.pid)]
        with subprocess.Popen([*record, "sleep", "2"], stderr=subprocess.DEVNULL):
            questions.measure(server, case, 2)
        server.freeze()
        report = ["perf", "report", "--stdio", "--quiet", "--sort", "dso", "-i", str(recorded)]
        found[case.name] = parse_perf(subprocess.run(report, capture_output=True, text=True, check=False).stdout)
    recorded.unlink(missing_ok=True)
    return found


def parse_perf(text: str) -> dict[str, float]:
    """Read perf's report by library; return the largest shares, and what is left."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if matched := re.match(r"^\s*([\d.]+)%\s+(\S+)\s*$", line):
            name = re.split(r"\.(?:cpython|abi3|so)", matched[2])[0]
            found[name] = round(found.get(name, 0) + float(matched[1]) / 100, 4)
    largest = dict(sorted(found.items(), key=lambda of: -of[1])[:_LIBRARIES])
    return largest | {"others": round(max(0.0, 1 - sum(largest.values())), 4)} if largest else {}


def workers(questions: Questions, given: Given, ledger: Ledger) -> dict[str, Any] | None:
    """Return CPU per request of one worker and of two, and each of the two's share of the CPU time.

    Both are on the server's CPU, for the load needs the other: a worker beside it would get what it leaves.

    Raises:
        NotStarted: The server does not know workers, or did not start.
    """
    (ours,) = (one for one in SYSTEMS if one.name == one.label == "fairlead")
    case = replace(_case(), connections=64)
    servers: dict[str, Server] = {}
    try:
        for count in ("1", "2"):
            system = replace(ours, name=f"fairlead-{count}-workers", command=(*ours.command, "--workers", count))
            servers[count] = Server(system, given, ledger_url=ledger.url(system.label))
            questions.await_ready(servers[count])
            questions.measure(servers[count], case, _WARM_S)  # each worker has to see every unit once
            servers[count].freeze()
        costs: dict[str, list[float]] = {"1": [], "2": []}
        shares: list[Sequence[float]] = []
        for _ in range(_ROUNDS):
            for count, server in servers.items():
                server.thaw()
                before = _each_cpu_s(server)
                costs[count].append(questions.measure(server, case, 2).cpu_us)
                if count == "2":
                    shares.append(_two_largest(before, _each_cpu_s(server)))
                server.freeze()
        least = statistics.median(min(pair) for pair in shares)
        medians = {count: round(statistics.median(of), 2) for count, of in costs.items()}
        return {"cpu_us": medians, "shares": [round(least, 3), round(1 - least, 3)]}
    finally:
        for server in servers.values():
            server.end()


def program(name: str, *arguments: str, within_s: float = _PROGRAM_WITHIN_S) -> Any:
    """Run one of the bench's own programs; return the JSON that it writes, None if there is none in time."""
    path, written = BENCH / f"{name}.py", BUILD / f"{name}.json"
    if not path.exists():
        return None
    written.unlink(missing_ok=True)
    command = [sys.executable, str(path), *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=within_s, check=False)
    except subprocess.TimeoutExpired:
        return None
    if ended.returncode or not written.exists():
        return None
    return json.loads(written.read_text())


def _awake(server: Server, questions: Questions, rate: float) -> Load:
    server.thaw()
    try:
        told = [str(server.http_port), str(questions.file(server, _case())), "16", f"{rate:.0f}", str(_SECONDS)]
        pinned = ["taskset", "-c", str(machine.LOAD_CPU), str(open_load()), *told]
        return parse_wrk(subprocess.run(pinned, capture_output=True, text=True, check=False).stdout, 0)
    finally:
        server.freeze()


def _case() -> Case:
    return next(case for case in CASES if case.name == _CASE)


def _each_cpu_s(server: Server) -> dict[int, float]:
    return {pid: machine.own_cpu_s(pid) for pid in machine.tree(server.pid)}


def _two_largest(before: Mapping[int, float], after: Mapping[int, float]) -> Sequence[float]:
    """Return the shares of the two processes that worked most."""
    spent = sorted((after[pid] - before.get(pid, 0.0) for pid in after), reverse=True)[:2]
    return [one / max(sum(spent), 1e-9) for one in spent]
