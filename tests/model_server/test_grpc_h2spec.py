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


@pytest.mark.parametrize("engine", ENGINES)
def test_http2_is_spoken_as_it_is_written(engine: str, tmp_path: Path) -> None:
    require_engine(engine)
    program = runpy.run_path(str(_TOOL))["program"]()
    if not program.is_file():
        pytest.skip("h2spec is not built: make setup builds it where Go is")
    report = tmp_path / "report.xml"
    with grpc_host(engine) as host:
        asked = ["--host", "127.0.0.1", "--port", str(host.port), "--path", _PATH, "--strict", "--timeout", "5"]
        said = subprocess.run(
            [program, *asked, "--junit-report", str(report)], capture_output=True, text=True, check=False
        )
    cases = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 -- of our own program
    failed: dict[str, str] = {}
    total = 0
    for suite in cases:
        for number, case in enumerate(suite.iter("testcase"), start=1):
            total += 1
            if case.find("failure") is not None or case.find("error") is not None:
                failed[f"{case.get('package')}/{number}"] = str(case.get("classname"))
    assert total > 140, said.stdout[-2000:]
    unknown = {case: what for case, what in failed.items() if case not in KNOWN[engine]}
    assert not unknown, said.stdout[-6000:]
