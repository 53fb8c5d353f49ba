"""Load from outside: wrk for HTTP/1.1, h2load for gRPC, both pinned to the CPU that the server is not on."""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import LOAD_CPU
from bench.questions import GRPC_METHOD, Headers

WRK_SCRIPT = """
local requests, last = {}, 0
function init()
  local file = io.open(os.getenv("REQUESTS"), "rb")
  while true do
    local size = file:read("*l")
    if not size then break end
    requests[#requests + 1] = file:read(tonumber(size))
  end
  file:close()
end
function request()
  last = last % #requests + 1
  return requests[last]
end
function done(summary, latency)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("RESULT %d %d %d %d %d\\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors))
end
"""
_SMALLEST_ANSWER_BYTES = 20
"""Bytes of a ModelInferResponse with both outputs are more; an answer that is an error has none."""


class LoadFailed(Exception):
    """A load program did not say what it did; the message is its last line."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was asked and answered."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    errors: int
    cpu_s: float = 0.0
    """CPU seconds of the load program itself."""


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Write raw HTTP/1.1 requests as wrk's script and the open-loop load read them."""
    path.write_bytes(b"".join(b"%d\n" % len(request) + request for request in requests))


def wrk(requests: Path, port: int, *, connections: int, seconds: float) -> Load:
    """Send requests from a file, one after the other, over each of ``connections``, for whole ``seconds``.

    Raises:
        LoadFailed: wrk did not end well.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT)
        script.flush()
        options = ["-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "10s", "-s", script.name]
        text, cpu_s = _run(["wrk", *options, f"http://127.0.0.1:{port}/"], {"REQUESTS": str(requests)})
    return parse_wrk(text, cpu_s)


def parse_wrk(text: str, cpu_s: float) -> Load:
    """Read what the script printed at its end.

    Raises:
        LoadFailed: It printed nothing of the kind.
    """
    found = re.search(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", text, re.MULTILINE)
    if found is None:
        raise LoadFailed(_last_line(text))
    requests, duration_us, p50_us, p99_us, errors = map(int, found.groups())
    return Load(requests, duration_us / 1e6, p50_us, p99_us, errors, cpu_s)


def h2load(message: Path, port: int, headers: Headers, *, connections: int, streams: int, seconds: float) -> Load:
    """Call ModelInfer with one framed message over and over, ``streams`` at once on each of ``connections``.

    Raises:
        LoadFailed: h2load did not end well.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        named = {"content-type": "application/grpc", "te": "trailers", **headers}
        options = [option for name, value in named.items() for option in ("-H", f"{name}: {value}")]
        options += [f"-D{round(seconds)}", "-t1", f"-c{connections}", f"-m{streams}", f"--log-file={log}"]
        text, cpu_s = _run(["h2load", *options, f"-d{message}", f"http://127.0.0.1:{port}{GRPC_METHOD}"], {})
        rows = log.read_text().splitlines() if log.exists() else []
    return parse_h2load(text, rows, cpu_s)


def parse_h2load(text: str, rows: Sequence[str], cpu_s: float) -> Load:
    """Read h2load's report, and its log with one line per request: start, status, microseconds.

    A gRPC error comes with HTTP status 200, so answers are told by their bytes too.

    Raises:
        LoadFailed: It reported nothing.
    """
    finished = re.search(r"^finished in ([\d.]+)(m?s)", text, re.MULTILINE)
    counted = re.search(r"^requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded", text, re.MULTILINE)
    traffic = re.search(r"^traffic: .* \((\d+)\) data$", text, re.MULTILINE)
    waits = [int(row.split("\t")[2]) for row in rows if row.count("\t") == 2]  # noqa: PLR2004 -- three columns
    if finished is None or counted is None or traffic is None:
        raise LoadFailed(_last_line(text))
    done, succeeded = int(counted[2]), int(counted[3])
    seconds = float(finished[1]) * (0.001 if finished[2] == "ms" else 1)
    wrong = done if int(traffic[1]) < done * _SMALLEST_ANSWER_BYTES else 0
    hundredths = statistics.quantiles(waits, n=100) if len(waits) > 1 else [0.0] * 99
    return Load(done, seconds, hundredths[49], hundredths[98], max(done - succeeded, wrong), cpu_s)


def _run(command: Sequence[str], environment: dict[str, str]) -> tuple[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    pinned = ["taskset", "-c", str(LOAD_CPU), *command]
    ended = subprocess.run(
        pinned,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
