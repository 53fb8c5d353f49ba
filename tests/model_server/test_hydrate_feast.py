"""What the server hydrates is what Feast's own ``get_online_features`` gives, where that is right."""

import random
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureService, FeatureView, Field, FileSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

from fairlead.policy import Action, FeatureState, Hydration
from fairlead_server.errors import InferenceFailed
from support.models import contract_of
from support.predictors import HOUR, NOON, contract_for, keys_of, running, seen
from support.servers import redis_server
from support.store import FeatureRepo, definitions, make_repo

ON_DEMAND = ["departure:evening", "departure:distance_km"]


@pytest.fixture(params=["sqlite", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureRepo]:
    if request.param == "sqlite":
        yield make_repo(tmp_path / "repo")
        return
    with redis_server(tmp_path) as server:
        yield make_repo(tmp_path / "repo", online_store=server.online_store)


def _maybe(draw: random.Random, value: Any) -> Any:
    return None if draw.random() < 0.2 else value


def _write_random_rows(repo: FeatureRepo, draw: random.Random) -> None:
    origins, dests, tails = ["EWR", "JFK", "LGA"], ["IAH", "MIA", "ATL"], [f"N{i}" for i in range(20)]
    for origin in origins:
        weather = {"temp": draw.uniform(-10, 100), "wind": _maybe(draw, draw.uniform(0, 50))}
        repo.write("origin_weather", {"origin": origin}, weather, NOON - draw.random() * 5 * HOUR)
        for dest in draw.sample(dests, 2):
            delay = {"mean_delay": draw.gauss(0, 30)}
            repo.write("pair_performance", {"origin": origin, "dest": dest}, delay, NOON - draw.random() * 9 * HOUR)
    for tail in draw.sample(tails, 15):
        flown = {"mean_delay": _maybe(draw, draw.gauss(0, 30)), "flights": draw.randrange(9)}
        repo.write("tail_performance", {"tailnum": tail}, flown, NOON - draw.random() * 20 * HOUR)
        plane = {"seats": _maybe(draw, draw.randrange(400)), "maker": "B\u00f6ing", "jet": _maybe(draw, True)}
        repo.write("plane", {"tailnum": tail}, plane, NOON - 9000 * HOUR)


def _random_row(draw: random.Random) -> dict[str, Any]:
    return keys_of(
        origin=draw.choice(["EWR", "JFK", "LGA", "SWF"]),
        dest=draw.choice(["IAH", "MIA", "ATL"]),
        tailnum=f"N{draw.randrange(22)}",
        hour=draw.randrange(24),
        weekday=draw.randrange(7),
        distance=draw.uniform(80, 5000),
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_values_that_are_present_or_used_stale_are_feasts(repo: FeatureRepo, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 -- rows of a test are no secret
    _write_random_rows(repo, draw)
    rows = [_random_row(draw) for _ in range(60)]
    service = repo.store.get_feature_service("small")
    feasts = repo.store.get_online_features(service, rows, full_feature_names=True).to_dict()
    use_stale = Hydration(deadline_s=1, on_stale=Action.USE)
    async with running(repo.path, contract_for(repo), tmp_path, hydration=use_stale) as rig:
        answer = await rig.ask(*rows)
        compared = 0
        assert answer.states is not None
        for feature, states in answer.states.items():
            for i, state in enumerate(states):
                if state in (FeatureState.PRESENT, FeatureState.STALE):
                    assert seen(answer, feature, i) == feasts[feature][i]
                    compared += 1
                else:
                    assert feasts[feature][i] is None
        assert compared > 200


async def test_on_demand_features_are_feasts(repo: FeatureRepo, tmp_path: Path) -> None:
    """Feast 0.67 loses python-mode outputs under full feature names, so it is asked for short ones."""
    draw = random.Random(4)  # noqa: S311 -- rows of a test are no secret
    rows = [_random_row(draw) for _ in range(60)]
    asked = [{name: row[name] for name in ("hour", "weekday", "distance")} for row in rows]
    feasts = repo.store.get_online_features(ON_DEMAND, asked).to_dict()
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        answer = await rig.ask(*rows)
        assert answer.outputs["seen_departure__evening"].tolist() == feasts["evening"]
        assert answer.outputs["seen_departure__distance_km"].tolist() == feasts["distance_km"]


def _apply_aliased(repo: FeatureRepo) -> None:
    """Add a service that has the weather twice, under two names and keys, and a view without entities."""
    objects = definitions(repo.path)
    weather = objects[3]
    fleet = FeatureView(
        name="fleet",
        entities=[],
        schema=[Field(name="flying", dtype=Int64)],
        source=FileSource(name="fleet_source", path=str(repo.path / "fleet.parquet"), timestamp_field="at"),
    )
    at_dest = weather.with_name("dest_weather").with_join_key_map({"origin": "dest"})
    repo.store.apply([*objects[:-1], fleet, FeatureService(name="both", features=[weather, at_dest, fleet])])


async def test_a_view_is_read_under_an_alias_and_without_entities(repo: FeatureRepo, tmp_path: Path) -> None:
    _apply_aliased(repo)
    repo.write("origin_weather", {"origin": "EWR"}, {"temp": 1.0, "wind": 2.0}, NOON)
    repo.write("origin_weather", {"origin": "IAH"}, {"temp": 3.0, "wind": 4.0}, NOON)
    repo.write("fleet", {"__dummy_id": ""}, {"flying": 5}, NOON)
    async with running(repo.path, contract_of(repo.describe("both")), tmp_path) as rig:
        request = {name: np.array([key], np.object_) for name, key in (("origin", "EWR"), ("dest", "IAH"))}
        hydrated = await rig.hydrator.hydrate(request, 1)
        assert {name: column.tolist() for name, column in hydrated.columns.items()} == {
            "origin_weather__temp": [1.0],
            "origin_weather__wind": [2.0],
            "dest_weather__temp": [3.0],
            "dest_weather__wind": [4.0],
            "fleet__flying": [5],
        }


def _apply_on_demand(repo: FeatureRepo, function: Any, mode: str, *, singleton: bool = False) -> None:
    objects = definitions(repo.path)
    asked = objects[-2].source_request_sources["asked"]
    view = on_demand_feature_view(
        sources=[asked],
        schema=[Field(name="far", dtype=Float64), Field(name="label", dtype=String)],
        mode=mode,
        singleton=singleton,
    )(function)
    repo.store.apply([*objects[:-1], view, FeatureService(name="small", features=[view])])


async def test_a_singleton_on_demand_view_is_called_per_row(tmp_path: Path) -> None:
    def trip(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"far": inputs["distance"] * 2, "label": f"{inputs['hour']:02d}h"}

    repo = make_repo(tmp_path / "repo")
    _apply_on_demand(repo, trip, "python", singleton=True)
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        request = {"hour": np.array([5, 17]), "weekday": np.array([1, 2]), "distance": np.array([1.0, 2.0])}
        hydrated = await rig.hydrator.hydrate(request, 2)
        assert hydrated.columns["trip__far"].tolist() == [2.0, 4.0]
        assert hydrated.columns["trip__label"].tolist() == ["05h", "17h"]


def _python(inputs: dict[str, Any]) -> dict[str, Any]:
    far = [None if distance < 0 else distance * 2 for distance in inputs["distance"]]
    return {"far": far, "label": [None if hour == 0 else f"{hour:02d}h" for hour in inputs["hour"]]}


def _singleton(inputs: dict[str, Any]) -> dict[str, Any]:
    hour, distance = inputs["hour"], inputs["distance"]
    return {"far": None if distance < 0 else distance * 2, "label": None if hour == 0 else f"{hour:02d}h"}


def _pandas(inputs: pd.DataFrame) -> pd.DataFrame:
    far = inputs["distance"].where(inputs["distance"] >= 0) * 2
    label = inputs["hour"].map(lambda hour: None if hour == 0 else f"{hour:02d}h")
    return pd.DataFrame({"far": far, "label": label})


@pytest.mark.parametrize(
    ("function", "mode", "singleton", "reader"),
    [
        (_python, "python", False, "python"),
        (_singleton, "python", True, "python"),
        (_pandas, "pandas", False, "feast"),
    ],
)
async def test_a_null_of_an_on_demand_view_is_one_cells_in_every_mode(
    tmp_path: Path, function: Any, mode: str, reader: str, *, singleton: bool
) -> None:
    repo = make_repo(tmp_path / "repo")
    trip = FunctionType(function.__code__, globals(), "trip")  # which names the view
    _apply_on_demand(repo, trip, mode, singleton=singleton)
    hours, distances = [5, 0, 17, 0], [1.0, -1.0, -2.0, 4.0]
    asked = [{"hour": h, "distance": d, "weekday": 1} for h, d in zip(hours, distances, strict=True)]
    parts = [[row] for row in asked] if singleton else [asked]  # of several rows Feast computes the first alone
    feast = [repo.store.get_online_features(["trip:far", "trip:label"], part).to_dict() for part in parts]
    feasts = {name: [value for of_part in feast for value in of_part[name]] for name in ("far", "label")}
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        request = {"hour": np.array(hours), "weekday": np.array([1] * 4), "distance": np.array(distances)}
        hydrated = await rig.hydrator.hydrate(request, 4)
        far, label = (hydrated.columns[f"trip__{name}"].tolist() for name in ("far", "label"))
        assert [None if np.isnan(value) else value for value in far] == feasts["far"] == [2.0, None, None, 8.0]
        assert label == ["05h", "unknown", "17h", "unknown"]
        assert feasts["label"] == ["05h", None, "17h", None]
        assert rig.count("fairlead_feature_reader", view="trip", reader=reader) == 1


@pytest.mark.parametrize("broken", ["raises", "short", "text"])
async def test_a_failing_on_demand_view_fails_the_request_naming_the_view(tmp_path: Path, broken: str) -> None:
    def trip(inputs: dict[str, Any]) -> dict[str, Any]:
        rows = len(inputs["hour"])
        far: list[Any] = [1.0] * rows
        if inputs["hour"][0] == 11:
            raise ValueError("private")
        if inputs["hour"][0] == 12:
            far = far[1:]
        if inputs["hour"][0] == 13:
            far = ["far"] * rows
        return {"far": far, "label": ["x"] * rows}

    repo = make_repo(tmp_path / "repo")
    _apply_on_demand(repo, trip, "python")
    hour = {"raises": 11, "short": 12, "text": 13}[broken]
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        request = {"hour": np.array([hour]), "weekday": np.array([1]), "distance": np.array([1.0])}
        with pytest.raises(InferenceFailed, match="on-demand view trip failed with ValueError on") as failed:
            await rig.hydrator.hydrate(request, 1)
        assert "private" not in str(failed.value)
