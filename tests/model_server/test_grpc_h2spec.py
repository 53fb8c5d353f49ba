"""h2spec, which asks about every rule of HTTP/2: what an engine does otherwise is listed, with the reason."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from support.engines import ENGINES, require_engine
from support.grpc_host import grpc_host

_TOOL = Path(__file__).parents[2] / "tools/h2spec/__main__.py"
_PATH = "/inference.GRPCInferenceService/ServerLive"
KNOWN = {
    "native": {
        "http2/8.1.2.1/3": "h2spec is no gRPC client, and is told so before its trailers come",
    },
    "python": {
        "http2/8.1.2.1/3": "h2spec is no gRPC client, and is told so before its trailers come",
    },
}
"""Cases that may fail, by engine: section and number, and why that harms nobody."""
ANSWERED = ("DATA Frame (length:52, flags:0x01", "RST_STREAM Frame (length:4, flags:0x00")
"""What h2spec saw last where its answer was faster than what it wanted to do wrong: it is no gRPC client, is told so as
soon as its headers are there, and what it sends then is of a stream that is closed."""


RUNS = 3
"""A case has failed if it fails in each of so many runs: whether an answer is faster than the next frame is chance."""


@pytest.mark.parametrize("engine", ENGINES)
def test_http2_is_spoken_as_it_is_written(engine: str, tmp_path: Path) -> None:
    require_engine(engine)
    program = runpy.run_path(str(_TOOL))["program"]()
    if not program.is_file():
        pytest.skip("h2spec is not built: make setup builds it where Go is")
    failed: dict[str, str] = {}
    for run in range(RUNS):
        found = _failures(program, engine, tmp_path / f"{run}.xml")
        failed = {
            case: what for case, what in found.items() if case not in KNOWN[engine] and (not run or case in failed)
        }
        if not failed:
            return
    assert not failed


def _failures(program: Path, engine: str, report: Path) -> dict[str, str]:
    """Return what fails in one run, by section and number."""
    with grpc_host(engine) as host:
        asked = ["--host", "127.0.0.1", "--port", str(host.port), "--path", _PATH, "--strict", "--timeout", "5"]
        said = subprocess.run(
            [program, *asked, "--junit-report", str(report)], capture_output=True, text=True, check=False
        )
    failed: dict[str, str] = {}
    total = 0
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 -- of our own program
        for number, case in enumerate(suite.iter("testcase"), start=1):
            total += 1
            fault = next((found for kind in ("failure", "error") if (found := case.find(kind)) is not None), None)
            if fault is not None and not str(fault.text).rpartition("\n")[2].startswith(ANSWERED):
                failed[f"{case.get('package')}/{number}"] = f"{case.get('classname')}: {fault.text}"
    assert total > 140, said.stdout[-2000:]
    return failed
