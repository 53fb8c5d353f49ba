"""`fairlead skew` and the page that explains it: beside a real server process, and on logs that are none."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead import prediction_log as form
from fairlead.clock import SystemClock
from fairlead.policy import Hydration
from fairlead.skew.cause import Cause
from support.commands import Ran, here
from support.console import commands_of
from support.models import write_model
from support.server_process import ServerProcess, server_process
from support.skew_world import SkewRepo, make_skew_repo

PAGE = Path(__file__).resolve().parents[2] / "docs/concepts/skew.md"
ROW: Mapping[str, Any] = {"origin": "EWR", "to": "IAH", "tailnum": "N1", "hour": 5}
HOUR = timedelta(hours=1)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SkewRepo:
    """A feature repository and a model for it, in the working directory."""
    monkeypatch.chdir(tmp_path)
    repo = make_skew_repo(tmp_path / "feature_repo", offline="duckdb")
    write_model(tmp_path / "model.onnx", repo.contract)
    return repo


def ask(server: ServerProcess, times: int) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(times):
            client.post("/v1/models/arrival-delay:predict", json={"instances": [ROW] * 5}).raise_for_status()


def skew(*words: str) -> Ran:
    return here("skew", "prediction-log", "--feature-store", "feature_repo", *words)


def test_the_page_works_and_skew_that_is_pushed_is_found(repo: SkewRepo, tmp_path: Path) -> None:
    start, *comparing = commands_of(PAGE.read_text())
    now = datetime.fromtimestamp(SystemClock().now_us() / 1e6, UTC)
    repo.both("weather", now - HOUR, origin="EWR", temp=40.1, wind=3.0)
    repo.both("planes", now - HOUR, tailnum="N1", seats=12, maker="BOEING")
    repo.both("season", now - HOUR, index=0.7)
    repo.save()
    words = shlex.split(start.text)
    assert words[:3] == ["python", "-m", "fairlead_server"]
    with server_process(tmp_path, [*words[3:], "--prediction-log-roll", "0.1", "--variant", "boosted"]) as server:
        server.wait_ready()
        ask(server, 10)
        server.wait_until(lambda: server.count("fairlead_prediction_log_rows_total", outcome="written") == 50)
        for command in comparing:
            ran = here(*shlex.split(command.text)[1:])
            assert (ran.code, ran.err) == (0, ""), ran
        repo.push("weather", now - HOUR, origin="EWR", temp=4.5, wind=3.0)
        ask(server, 10)
        assert server.stop() == 0
    assert ET.parse(tmp_path / "skew.svg").getroot().tag.endswith("svg")  # noqa: S314 -- our own file
    found = skew()
    assert found.code == 1
    assert "1 of 7 features differ in more than 1.00% of the rows: weather__temp" in found.out
    assert "values differ" in found.out
    assert skew("--most-skew", "0.6").code == 0
    told = json.loads(skew("--json").out)
    (model,) = told["models"]
    (weather,) = [one for one in model["features"] if one["feature"] == "weather__temp"]
    assert (model["rows"], model["variants"], model["worst"]) == (100, ["boosted"], 0.5)
    assert (weather["compared"], weather["differ"], weather["causes"]["values_differ"]) == (100, 50, 50)
    assert set(weather["causes"]) == {cause.value for cause in Cause}
    assert weather["example"]["served"] == 4.5
    assert skew("--variant", "logistic").reason.startswith("error: prediction-log: has no row that was asked for")


def write_log(path: Path, repo: SkewRepo, *, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write a file of the log that has no keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    usual = {
        form.FORMAT_KEY: form.FORMAT.encode(),
        form.CONTRACT_KEY: repo.contract.to_json().encode(),
        form.HYDRATION_KEY: Hydration().model_dump_json().encode(),
    }
    schema = pa.schema([("served_at", pa.timestamp("us", "UTC"))], {**usual, **(metadata or {})})
    pq.write_table(schema.empty_table(), path)


def test_what_is_no_log_is_refused_by_name_with_what_to_do(repo: SkewRepo, tmp_path: Path) -> None:
    assert "prediction-log: is not there" in refused()
    (tmp_path / "prediction-log").mkdir()
    assert "has no .parquet file; start the server with --prediction-log" in refused()
    file = tmp_path / "prediction-log" / "arrival-delay" / "1.parquet"
    write_log(file, repo)
    assert "has no key.hour; features are replayed by their keys" in refused()
    write_log(file, repo, metadata={form.FORMAT_KEY: b"fairlead.dev/prediction-log/v2"})
    assert "is of format 'fairlead.dev/prediction-log/v2'" in refused()
    write_log(file, repo, metadata={form.CONTRACT_KEY: b"{}"})
    assert "its contract cannot be read" in refused()
    file.write_bytes(b"PAR1 and no more")
    assert "1.parquet: cannot be read as Parquet" in refused()


def refused() -> str:
    ran = skew()
    assert ran.code == 2
    return ran.reason


def test_a_feature_store_that_is_none_is_refused(tmp_path: Path) -> None:
    nothing = here("skew", str(tmp_path), "--feature-store", str(tmp_path))
    assert (nothing.code, "has no feature_store.yaml; give the feature repository" in nothing.reason) == (2, True)
    (tmp_path / "feature_store.yaml").write_text("project: 7\nprovider: nobody\n")
    odd = here("skew", str(tmp_path), "--feature-store", str(tmp_path))
    assert (odd.code, "cannot be opened" in odd.reason) == (2, True)


def test_it_explains_itself_with_an_example() -> None:
    assert "Example: fairlead skew" in here("skew", "--help").out
