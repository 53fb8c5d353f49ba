"""Served rows beside Feast's point-in-time join: nothing differs without reason, and each reason has its name."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureService

from fairlead.features.service import describe
from fairlead.policy import Action, Hydration
from fairlead.skew.cause import Cause
from fairlead.skew.errors import SkewError
from fairlead.skew.log import Choice, LoggedModel, read_log
from fairlead.skew.measure import measure
from fairlead.skew.report import FeatureSkew, ModelSkew
from fairlead_server.predict.request import PredictRequest
from fairlead_server.prediction_log.settings import LogSettings
from support.models import contract_of
from support.predictors import HOUR, NOON, Rig, running
from support.skew_world import SkewRepo, make_skew_repo

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class World:
    """A repository, and a server that logs everything."""

    repo: SkewRepo
    rig: Rig
    folder: Path

    async def ask(self, *rows: Mapping[str, Any], at: datetime = NOON) -> None:
        """Have rows predicted: EWR to IAH by N1 at five, unless they say else."""
        self.rig.set_time(at)
        usual = {"origin": "EWR", "to": "IAH", "tailnum": "N1", "hour": 5}
        whole = [{**usual, **row} for row in rows]
        inputs = {name: np.array([row[name] for row in whole], object) for name in usual if name != "hour"}
        hours = np.array([row["hour"] for row in whole], np.int64)
        request = PredictRequest(inputs | {"hour": hours}, len(rows))
        await self.rig.predictor.predict(request, self.rig.predictor.metrics.timer())

    async def compared(self, tolerance: float = 1e-6, **choice: Any) -> ModelSkew:
        """Stop the server, save the offline store, and compare."""
        await self.rig.predictor.close()
        self.repo.save()
        (logged,) = read_log(self.folder, Choice(**choice))
        return measure(self.repo.store, logged, tolerance=tolerance, advance=lambda _: None)


@asynccontextmanager
async def world_of(folder: Path, *, offline: str = "duckdb", **hydration: Any) -> AsyncIterator[World]:
    repo = make_skew_repo(folder / "repo", offline=offline)
    log = LogSettings(folder=folder / "log", sample=1)
    settings = Hydration(deadline_s=2, **hydration)
    async with running(repo.path, repo.contract, folder, hydration=settings, prediction_log=log) as rig:
        yield World(repo, rig, folder / "log")


def fill(write: Callable[..., None]) -> None:
    """Write a row of each view, an hour old."""
    write("weather", NOON - HOUR, origin="EWR", temp=40.1, wind=3.0)
    write("planes", NOON - HOUR, tailnum="N1", seats=12, maker="BOEING")
    write("pairs", NOON - HOUR, origin="EWR", dest="IAH", delay=0.1)
    write("season", NOON - HOUR, index=0.7)


def feature(found: ModelSkew, name: str) -> FeatureSkew:
    (one,) = [one for one in found.features if one.feature == name]
    return one


def causes(found: ModelSkew) -> dict[str, dict[str, int]]:
    """Return causes by feature, of those that differ."""
    return {
        one.feature: {cause.value: amount for cause, amount in one.causes.items()}
        for one in found.features
        if one.causes
    }


@pytest.mark.parametrize("offline", ["file", "duckdb"])
async def test_nothing_differs_where_both_stores_had_the_same(tmp_path: Path, offline: str) -> None:
    async with world_of(tmp_path, offline=offline) as world:
        fill(world.repo.both)
        world.repo.both("weather", NOON - 5 * HOUR, origin="JFK", temp=1.0, wind=None)
        world.repo.both("weather", NOON - HOUR, origin="LGA", temp=None, wind=2.0)
        await world.ask({}, {"hour": 20}, {"origin": "JFK"}, {"origin": "LGA"}, {"origin": "SJU", "tailnum": "unknown"})
        await world.ask({}, at=NOON + MINUTE)
        found = await world.compared()
    assert causes(found) == {}
    assert (found.rows, found.logged, found.variants) == (6, 6, ["logistic"])
    assert feature(found, "weather__temp").compared == 6
    # One row has the keys and the time of another; of one a view is expired, and the file store leaves it out.
    assert feature(found, "request__late").compared == (4 if offline == "file" else 5)
    assert (found.first, found.last) == (NOON.isoformat(), (NOON + MINUTE).isoformat())


@pytest.mark.parametrize("offline", ["file", "duckdb"])
async def test_each_cause_is_named(tmp_path: Path, offline: str) -> None:
    async with world_of(tmp_path, offline=offline, on_stale=Action.USE) as world:
        fill(world.repo.both)
        put, push = world.repo.write, world.repo.push
        before: dict[str, Any] = {"temp": 1.0, "wind": 2.0}
        for origin in ("LATE", "LAG", "VALUES"):
            world.repo.both("weather", NOON - HOUR, origin=origin, **before)
        put("weather", NOON - MINUTE, created=NOON + HOUR, origin="LATE", temp=5.0, wind=2.0)
        put("weather", NOON - MINUTE, origin="LAG", temp=5.0, wind=2.0)
        put("weather", NOON - HOUR, origin="NEVER", **before)
        world.repo.both("weather", NOON - 5 * HOUR, origin="TTL", **before)
        push("weather", NOON - HOUR, origin="PUSHED", **before)
        push("weather", NOON - HOUR, origin="VALUES", temp=0.1, wind=2.0)
        provoked = ["late_data", "push_lag", "never_written", "ttl", "not_offline", "values_differ"]
        origins = ["LATE", "LAG", "NEVER", "TTL", "PUSHED", "VALUES"]
        await world.ask(*[{"origin": one} for times, one in enumerate(origins, 1) for _ in range(times)], {})
        found = await world.compared()
    temp = feature(found, "weather__temp")
    assert {cause.value: amount for cause, amount in temp.causes.items()} == dict(
        zip(provoked, range(1, 7), strict=True)
    )
    assert temp.share == 21 / 22
    wind = {"never_written": 3, "ttl": 4, "not_offline": 5}
    assert {cause.value: amount for cause, amount in feature(found, "weather__wind").causes.items()} == wind
    assert temp.example is not None
    assert (temp.example.served, temp.example.joined, temp.example.cause) == (1.0, 5.0, Cause.LATE_DATA)
    if offline == "file":  # which leaves out rows with an expired view, and all that is joined to them
        assert [note for note in found.notes if note.startswith("4 rows are left out by the offline store")]
        assert feature(found, "request__late").compared == 18


async def test_views_without_keys_ages_of_the_deployment_and_times_of_creation(tmp_path: Path) -> None:
    async with world_of(tmp_path, max_age_s={"pairs": 60}) as world:
        fill(world.repo.both)
        world.repo.write("season", NOON - MINUTE, index=0.8)
        world.repo.write("planes", NOON - MINUTE, created=NOON + HOUR, tailnum="N1", seats=13, maker="BOEING")
        await world.ask({})
        found = await world.compared()
    assert causes(found) == {
        "pairs__delay": {"ttl": 1},  # too old for the deployment, not for the view
        "season__index": {"push_lag": 1},
        "planes__seats": {"push_lag": 1},  # its source does not say that it came late
    }
    (note,) = found.notes
    assert note.startswith("planes: the source has no created_timestamp_column")


async def test_a_store_that_failed_is_the_cause_of_whatever_the_model_saw_instead(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        fill(world.repo.both)
        with closing(sqlite3.connect(world.repo.path / "online_store.db")) as online:
            online.execute("DROP TABLE skewed_weather")
        await world.ask({})
        found = await world.compared()
    assert causes(found) == {f"weather__{name}": {"store_error": 1} for name in ("temp", "wind")}


async def test_a_long_log_is_compared_evenly_within_a_tolerance_and_by_the_service_of_now(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        fill(world.repo.both)
        world.repo.push("weather", NOON - HOUR, origin="EWR", temp=40.1, wind=3.0003)
        for minute in range(10):
            await world.ask(*[{}] * 30, at=NOON + minute * MINUTE)
        close = await world.compared(tolerance=1e-3, rows=20)
        far = await world.compared(rows=20)
        store = world.repo.store
        views = {view.name: view for view in (*store.list_feature_views(), *store.list_on_demand_feature_views())}
        pairs = views["pairs"].with_join_key_map({"origin": "origin", "dest": "to"})
        kept = [views["request"], views["weather"], views["planes"], pairs, views["season"]]
        store.apply(FeatureService(name="skewed", features=kept))
        moved = await world.compared(rows=20)
        store.apply(FeatureService(name="skewed", features=kept[:2]))
        with pytest.raises(SkewError, match="has no planes__seats now"):
            await world.compared()
    assert (close.rows, close.logged) == (20, 300)
    assert any("20 of 300 rows were compared" in note for note in close.notes)
    assert close.last >= (NOON + 8 * MINUTE).isoformat()
    assert (causes(close), causes(far)) == ({}, {"weather__wind": {"values_differ": 20}})
    assert "feature service skewed has changed since the model was packaged" in moved.notes


@pytest.mark.parametrize("offline", ["file", "duckdb"])
def test_a_version_that_the_service_names_is_replayed(tmp_path: Path, offline: str) -> None:
    repo = make_skew_repo(tmp_path / "repo", offline=offline, versions=True)
    repo.write("planes", NOON - HOUR, tailnum="N1", seats=12, maker="BOEING")
    repo.save()
    repo.store.apply([FeatureService(name="pinned", features=["planes@v0:seats"])])
    contract = contract_of(describe(repo.store, "pinned"), echo=False)
    asked = {
        "key.tailnum": ["N1", "N2"],
        "served_at": pd.to_datetime([NOON, NOON]),
        "feature.planes@v0__seats": [12, 3],
    }
    found = {
        "state.planes@v0__seats": ["PRESENT", "PRESENT"],
        "event_time.planes@v0": pd.to_datetime([NOON - HOUR] * 2),
    }
    rows = pd.DataFrame({**asked, **found, "model": "m", "variant": ""})
    skew = measure(repo.store, LoggedModel(contract, Hydration(), rows, 2), tolerance=0, advance=lambda _: None)
    assert causes(skew) == {"planes@v0__seats": {"not_offline": 1}}
