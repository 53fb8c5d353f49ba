"""The prediction log: what is in it, what is left out, what is lost when, and what a killed process leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.clock import to_us
from fairlead.contract import Contract
from fairlead.policy import Action, Hydration
from fairlead.prediction_log import CONTRACT_KEY, FORMAT, FORMAT_KEY, HYDRATION_KEY
from fairlead_server.errors import FeatureRejected
from fairlead_server.prediction_log.folder import LogFolder
from fairlead_server.prediction_log.sample import Sample
from fairlead_server.prediction_log.settings import LogSettings
from support.predictors import HOUR, NOON, Rig, contract_for, running
from support.servers import redis_server
from support.store import FeatureRepo, make_repo
from support.waiting import until_so

MODEL = "arrival-delay"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> FeatureRepo:
    repo = make_repo(tmp_path_factory.mktemp("repo"))
    repo.write("origin_weather", {"origin": "EWR"}, {"temp": 40.5, "wind": None}, NOON - HOUR)
    repo.write("origin_weather", {"origin": "JFK"}, {"temp": 1.0, "wind": 2.0}, NOON - 5 * HOUR)
    repo.write("plane", {"tailnum": "N14228"}, {"seats": 12, "maker": "BOEING"}, NOON - 2 * HOUR)
    return repo


def files_of(folder: Path) -> list[Path]:
    return sorted((folder / MODEL).glob("*.parquet"))


def logged(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in files_of(folder)])


async def asked(repo: FeatureRepo, folder: Path, log: LogSettings, *requests: list[dict[str, str]]) -> None:
    """Ask a server that logs, and stop it."""
    async with running(repo.path, contract_for(repo), folder, prediction_log=log) as rig:
        await asyncio.gather(*(rig.ask(*rows) for rows in requests))


async def test_a_row_has_what_was_asked_found_seen_and_answered(repo: FeatureRepo, tmp_path: Path) -> None:
    await asked(repo, tmp_path, LogSettings(folder=tmp_path / "log", sample=1), [{"origin": "EWR"}, {"origin": "JFK"}])
    table = logged(tmp_path / "log")
    ewr, jfk = table.to_pylist()
    assert (ewr["key.origin"], jfk["key.origin"], jfk["key.hour"]) == ("EWR", "JFK", 5)
    assert ewr["served_at"] == jfk["served_at"] == NOON
    assert (ewr["model"], ewr["variant"], ewr["version"], ewr["revision"]) == (MODEL, "logistic", "1", "")
    assert (ewr["feature.origin_weather__temp"], ewr["state.origin_weather__temp"]) == (40.5, "PRESENT")
    assert ewr["feature.origin_weather__wind"] != ewr["feature.origin_weather__wind"]
    assert ewr["state.origin_weather__wind"] == "NULL"
    assert ewr["event_time.origin_weather"] == NOON - HOUR
    assert jfk["state.origin_weather__temp"] == "STALE"
    assert jfk["event_time.origin_weather"] == NOON - 5 * HOUR
    assert (ewr["state.plane__jet"], ewr["feature.plane__maker"]) == ("NEVER_WRITTEN", "BOEING")
    assert (ewr["state.tail_performance__flights"], ewr["event_time.tail_performance"]) == ("NOT_FOUND", None)
    assert ewr["feature.departure__distance_km"] == pytest.approx(1400 * 1.609344)
    assert ewr["output.seen_plane__seats"] == 12
    assert "state.departure__evening" not in ewr


async def test_a_file_says_which_contract_and_policies_its_rows_were_served_by(
    repo: FeatureRepo, tmp_path: Path
) -> None:
    await asked(repo, tmp_path, LogSettings(folder=tmp_path / "log", sample=1), [{}])
    (path,) = files_of(tmp_path / "log")
    metadata = pq.read_schema(path).metadata
    assert metadata[FORMAT_KEY] == FORMAT.encode()
    assert Contract.model_validate_json(metadata[CONTRACT_KEY]) == contract_for(repo)
    assert Hydration.model_validate_json(metadata[HYDRATION_KEY]) == Hydration(deadline_s=1)


async def test_requests_that_shared_a_read_are_logged_each_with_its_own(repo: FeatureRepo, tmp_path: Path) -> None:
    origins = ["EWR", "JFK", "EWR", "LGA"]
    await asked(repo, tmp_path, LogSettings(folder=tmp_path / "log", sample=1), *([{"origin": one}] for one in origins))
    rows = sorted(logged(tmp_path / "log").to_pylist(), key=lambda row: str(row["key.origin"]))
    assert [row["key.origin"] for row in rows] == sorted(origins)
    assert [row["event_time.origin_weather"] for row in rows] == [NOON - HOUR] * 2 + [NOON - 5 * HOUR, None]


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_what_is_logged_is_what_the_model_saw_however_requests_came_together(tmp_path: Path, store: str) -> None:
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path)) if store == "redis" else None
        repo = make_repo(tmp_path / "repo", online_store=redis.online_store if redis else None)
        planes = [f"N{n}" for n in range(40)]
        for n, tailnum in enumerate(planes):
            values = {"seats": n, "maker": f"maker {n}", "jet": None if n % 7 == 0 else n % 2 == 0}
            repo.write("plane", {"tailnum": tailnum}, values, NOON - n * HOUR)
            repo.write("tail_performance", {"tailnum": tailnum}, {"mean_delay": n / 3, "flights": n}, NOON - n * HOUR)
        log = LogSettings(folder=tmp_path / "log", sample=1)
        async with running(repo.path, contract_for(repo), tmp_path, prediction_log=log) as rig:
            for together in (1, 5, 40):
                asked = [planes[start : start + 1 + start % 3] for start in range(together)]
                await asyncio.gather(*(rig.ask(*({"tailnum": one} for one in some)) for some in asked))
        rows = logged(tmp_path / "log").to_pylist()
    assert len(rows) == 1 + 9 + 78
    for row in rows:
        n = int(row["key.tailnum"][1:])
        seen = {name: row[f"output.seen_{name}"] for name in contract_for(repo).tensor_inputs}
        assert seen == pytest.approx({name: row[f"feature.{name}"] for name in seen}, nan_ok=True), n
        assert (row["feature.plane__seats"], row["event_time.plane"]) == (n, NOON - n * HOUR)
        assert row["state.plane__jet"] == ("NULL" if n % 7 == 0 else "PRESENT")
        assert row["state.tail_performance__flights"] == ("PRESENT" if n <= 12 else "STALE")


async def test_keys_and_request_features_can_be_left_out(repo: FeatureRepo, tmp_path: Path) -> None:
    await asked(repo, tmp_path, LogSettings(folder=tmp_path / "log", sample=1, with_keys=False), [{}])
    assert not [name for name in logged(tmp_path / "log").column_names if name.startswith("key.")]


async def test_a_request_that_is_rejected_is_not_logged(repo: FeatureRepo, tmp_path: Path) -> None:
    log = LogSettings(folder=tmp_path / "log", sample=1)
    hydration = Hydration(deadline_s=1, on_missing=Action.REJECT)
    async with running(repo.path, contract_for(repo), tmp_path, hydration=hydration, prediction_log=log) as rig:
        with pytest.raises(FeatureRejected):
            await rig.ask({"origin": "LGA"})
    assert not files_of(tmp_path / "log")


async def test_rows_beyond_what_may_wait_are_dropped_and_counted(repo: FeatureRepo, tmp_path: Path) -> None:
    log = LogSettings(folder=tmp_path / "log", sample=1, most_waiting_rows=3)
    async with running(repo.path, contract_for(repo), tmp_path, prediction_log=log) as rig:
        await asyncio.gather(*(rig.ask({}, {}) for _ in range(3)))
        assert count(rig, "dropped") == 4
        await rig.predictor.close()
        assert count(rig, "written") == 2


async def test_a_folder_that_cannot_be_written_costs_no_answer(repo: FeatureRepo, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("no folder")
    log = LogSettings(folder=tmp_path / "log", sample=1)
    async with running(repo.path, contract_for(repo), tmp_path, prediction_log=log) as rig:
        await rig.ask({})
        await rig.predictor.close()
        assert (count(rig, "failed"), count(rig, "written")) == (1, 0)


def count(rig: Rig, outcome: str) -> float:
    return rig.count("fairlead_prediction_log_rows_total", outcome=outcome)


@pytest.mark.parametrize(("rate", "expected"), [(1.0, 20_000), (0.5, 10_000), (0.01, 200)])
def test_a_sample_takes_its_share(rate: float, expected: int) -> None:
    sample = Sample(rate, np.random.default_rng(7).random)
    taken = sum(sample.takes() for _ in range(20_000))
    assert taken == pytest.approx(expected, abs=5 * (expected * (1 - rate)) ** 0.5)


def test_a_sample_without_chance_takes_the_first() -> None:
    assert Sample(0.25, lambda: 0.0).takes()


def batches(rows: int = 1) -> list[pa.RecordBatch]:
    return [pa.record_batch({"row": pa.array(range(rows))})]


def test_the_oldest_files_go_when_the_log_is_too_large_whoever_wrote_them(tmp_path: Path) -> None:
    ours, others = LogFolder(tmp_path, "ours", 10**6, "a"), LogFolder(tmp_path, "others", 10**6, "b")
    ours.write(batches(), to_us(NOON))
    others.write(batches(), to_us(NOON - HOUR))
    left_behind = tmp_path / "others" / "20131101T100000.000000Z-c-0.parquet.part"
    left_behind.write_bytes(b"killed in the middle")
    size = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    removed = LogFolder(tmp_path, "ours", size, "d").write(batches(), to_us(NOON + HOUR))
    assert removed == 2
    assert sorted(path.name[:11] for path in tmp_path.glob("*/*")) == ["20131101T12", "20131101T13"]


@pytest.mark.parametrize("model", ["arrival-delay", "../elsewhere", "a/b", "..", ".hidden", "späte Züge"])
def test_each_model_has_one_folder_whatever_it_is_called(tmp_path: Path, model: str) -> None:
    LogFolder(tmp_path / "log", model, 10**6, "a").write(batches(), to_us(NOON))
    (written,) = tmp_path.rglob("*.parquet")
    assert written.parent.parent == tmp_path / "log"
    assert not written.parent.name.startswith(".")


def test_the_newest_file_stays_however_small_the_log(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path, "ours", 1, "a")
    assert [folder.write(batches(), to_us(NOON + n * HOUR)) for n in range(3)] == [0, 1, 1]


WRITES_FOR_EVER = """
import sys
from pathlib import Path
import pyarrow as pa
from fairlead_server.prediction_log.folder import LogFolder
folder = LogFolder(Path(sys.argv[1]), "arrival-delay", 10**9, "killed")
rows = [pa.record_batch({"row": pa.array(range(20_000))})]
for us in range(10**9):
    folder.write(rows, us)
"""


def test_a_killed_process_leaves_whole_files_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path)]) as writer:
        until_so(lambda: len(files_of(tmp_path)) > 5 or writer.poll() is not None)
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert {pq.read_table(path).num_rows for path in files_of(tmp_path)} == {20_000}
