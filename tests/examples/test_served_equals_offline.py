"""What is served equals what training would have seen at that moment, value by value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest

from fairlead.contract import Contract
from fairlead.policy import FeatureState
from flights import raw
from flights.runs import SERVICES
from flights.sources import RawFrames, source_builders, write_source
from support.flights import copied_repo
from support.replayed import World, differing, hydrated, infer, keys_of, offline, share_present
from support.server_process import server_process

SPRING = ("2013-03-09", "2013-03-10", "2013-03-11")  # clocks go forward at 07:00 UTC on the 10th
AUTUMN = ("2013-11-02", "2013-11-03", "2013-11-04")  # and back at 06:00 UTC on the 3rd
NO_WEATHER = ("2013-12-31",)
FIRST_SEEN = ("2013-01-08", "2013-01-09")

pytestmark = [pytest.mark.flights, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    """A thousand flights: both clock changes, first flights of a tail, missing weather, unknown planes."""
    every = raw.load_flights()
    day = every["asked_at"].dt.strftime("%Y-%m-%d")
    known = set(raw.load_planes()["tailnum"])
    first = every.sort_values("asked_at").drop_duplicates("tailnum")
    pools = [
        (every[day.isin(SPRING)], 380),
        (every[day.isin(AUTUMN)], 380),
        (every[day.isin(NO_WEATHER)], 100),
        (first[first["asked_at"].dt.strftime("%Y-%m-%d").isin(FIRST_SEEN)], 40),
        (every[day.isin([*SPRING, *AUTUMN]) & ~every["tailnum"].isin(known)], 100),
    ]
    drawn = [pool.sample(n, random_state=7) for pool, n in pools]
    together: pd.DataFrame = pd.concat(drawn).sort_values(["asked_at", "flight_id"]).reset_index(drop=True)
    return together


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_repo(tmp_path_factory.mktemp("flights") / "repo", online=False)


def contract_of(model: Path) -> Contract:
    metadata = {prop.key: prop.value for prop in onnx.load(model).metadata_props}
    return Contract.from_metadata(metadata, model.name)


def moments(flights: pd.DataFrame) -> Iterator[tuple[pd.Timestamp, pd.DataFrame]]:
    for _, asked in flights.groupby("asked_at", sort=True):
        yield asked["asked_at"].iloc[0], asked


@pytest.mark.parametrize("name", SERVICES)
async def test_features_hydrated_online_are_the_point_in_time_features_of_that_moment(
    name: str, flights: pd.DataFrame, repo: Path, flights_models: dict[str, Path]
) -> None:
    model = flights_models[name]
    expected = offline(repo, contract_of(model), flights)
    world = World.at(repo, flights["asked_at"].min())
    found: list[dict[str, np.ndarray]] = []
    states: dict[str, tuple[FeatureState, ...]] = {}
    async with world.predictor(model) as predictor:
        for moment, asked in moments(flights):
            world.move_to(moment)
            answer = await hydrated(predictor, asked)
            found.append(dict(answer.columns))
            states = {feature: (*states.get(feature, ()), *seen) for feature, seen in answer.states.items()}
    together = {feature: np.concatenate([columns[feature] for columns in found]) for feature in expected}
    assert len(flights) == 1000
    assert differing(together, expected) == []
    assert share_present(states) >= 0.9
    assert {FeatureState.NOT_FOUND, FeatureState.STALE} <= {s for column in states.values() for s in column}


def served(client: httpx.Client, asked: pd.DataFrame) -> list[float]:
    keys = {key: column.tolist() for key, column in keys_of(asked).items()}
    instances = [dict(zip(keys, row, strict=True)) for row in zip(*keys.values(), strict=True)]
    answer = client.post("/v1/models/arrival-delay:predict", json={"instances": instances})
    assert answer.status_code == 200, answer.text
    return [row["probability_late"] for row in answer.json()["predictions"]]


@pytest.mark.parametrize("name", SERVICES)
def test_probabilities_served_over_http_are_the_files_on_point_in_time_features(
    name: str, flights: pd.DataFrame, repo: Path, flights_models: dict[str, Path], tmp_path: Path
) -> None:
    model = flights_models[name]
    world = World.at(repo, flights["asked_at"].min())
    probabilities: list[float] = []
    arguments = ["--model", str(model), "--feature-store", str(repo), "--model-name", "arrival-delay"]
    with server_process(tmp_path, [*arguments, "--clock", f"replay:{world.clock_file}"]) as server:
        server.wait_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for moment, asked in moments(flights):
                world.move_to(moment)
                probabilities += served(client, asked)
    assert_served_is(probabilities, packaged_probabilities(model, repo, flights))


def packaged_probabilities(model: Path, repo: Path, flights: pd.DataFrame) -> np.ndarray:
    """Return what the file as it was packaged says of the point-in-time features."""
    return infer(model, offline(repo, contract_of(model), flights))


def assert_served_is(probabilities: list[float], expected: np.ndarray) -> None:
    assert np.max(np.abs(np.array(probabilities) - expected)) <= 1e-6


async def probability_in(repo: Path, model: Path, flight: pd.DataFrame) -> float:
    world = World.at(repo, flight["asked_at"].iloc[0])
    async with world.predictor(model) as predictor:
        found = await hydrated(predictor, flight)
    return float(infer(model, found.columns)[0])


def rewritten(folder: Path, landing: int, delay_min: float) -> Path:
    """Build the repository from raw data in which one flight arrived later than it did."""
    flights = raw.load_flights()
    flights.loc[landing, ["arrival_delay", "departure_delay"]] += delay_min
    flights.loc[landing, "late"] = 1.0
    repo = copied_repo(folder, online=False)
    frames = RawFrames(flights, raw.load_weather(), raw.load_planes())
    for view in ("tail_performance", "dest_performance"):
        write_source(source_builders()[view](frames), repo / "data" / f"{view}.parquet")
    return repo


async def test_only_landings_before_the_request_change_the_answer(
    tmp_path: Path, flights_models: dict[str, Path]
) -> None:
    flights = raw.load_flights()
    of_tail = flights[(flights["tailnum"] == "N725MQ") & flights["landed_at"].notna()].sort_values("asked_at")
    after_landing = of_tail["asked_at"] - of_tail["landed_at"].shift()
    asked = of_tail[after_landing.between(pd.Timedelta(minutes=30), pd.Timedelta(hours=6))].iloc[10:11]
    moment = asked["asked_at"].iloc[0]
    before = of_tail[of_tail["landed_at"] <= moment].iloc[-1]
    after = of_tail[of_tail["landed_at"] > moment].iloc[0]
    model = flights_models["boosted"]
    as_it_was = await probability_in(copied_repo(tmp_path / "was", online=False), model, asked)
    future = await probability_in(rewritten(tmp_path / "future", int(after["flight_id"]), 300), model, asked)
    past = await probability_in(rewritten(tmp_path / "past", int(before["flight_id"]), 300), model, asked)
    assert future == as_it_was
    assert abs(past - as_it_was) > 1e-3


def swapped(model: Path, path: Path, one: str, other: str) -> Path:
    """Write the model with two features' meanings exchanged inside its graph; the contract stays."""
    graph = onnx.load(model)
    exchange = {one: other, other: one}
    for node in graph.graph.node:
        node.input[:] = [exchange.get(name, name) for name in node.input]
    onnx.save(graph, path)
    return path


@pytest.mark.parametrize("name", SERVICES)
def test_swapping_two_features_in_the_file_makes_that_comparison_fail(
    name: str, flights: pd.DataFrame, repo: Path, flights_models: dict[str, Path], tmp_path: Path
) -> None:
    model = flights_models[name]
    one, other = "carrier_performance__share_late", "tail_performance__last_arrival_delay"
    wrong = swapped(model, tmp_path / "swapped.onnx", one, other)
    asked = flights[flights["asked_at"] == flights["asked_at"].mode()[0]]
    world = World.at(repo, asked["asked_at"].iloc[0])
    arguments = ["--model", str(wrong), "--feature-store", str(repo), "--model-name", "arrival-delay"]
    with server_process(tmp_path, [*arguments, "--clock", f"replay:{world.clock_file}"]) as server:
        server.wait_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            probabilities = served(client, asked)
    expected = packaged_probabilities(model, repo, asked)
    assert_served_is(infer(wrong, offline(repo, contract_of(model), asked)).tolist(), np.array(probabilities))
    with pytest.raises(AssertionError):
        assert_served_is(probabilities, expected)
