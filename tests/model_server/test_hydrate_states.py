"""Every feature state, for every type, on a real SQLite and a real Redis store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fairlead.policy import Action, FeatureState, Hydration
from fairlead_server.errors import FeatureRejected
from support.predictors import HOUR, NOON, REJECT_ALL, contract_for, running, seen
from support.servers import redis_server
from support.store import FeatureRepo, make_repo

SECOND = timedelta(seconds=1)

VALUES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "origin_weather": ({"origin": "EWR"}, {"temp": 39.5, "wind": 0.1}),
    "tail_performance": ({"tailnum": "N14228"}, {"mean_delay": -2.25, "flights": 3}),
    "plane": ({"tailnum": "N14228"}, {"seats": 149, "maker": "BOEING", "jet": True}),
    "pair_performance": ({"origin": "EWR", "dest": "IAH"}, {"mean_delay": 7.125}),
}
"""By view: key and values."""

FEATURES = [(view, name, value) for view, (_, values) in VALUES.items() for name, value in values.items()]
DEFAULTS = {"float": math.nan, "int": -7, "bool": False, "str": "unknown"}
"""What the test contracts put in, by Python's type of the value."""

every_feature = pytest.mark.parametrize(("view", "name", "value"), FEATURES)


@pytest.fixture(params=["sqlite", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureRepo]:
    if request.param == "sqlite":
        yield make_repo(tmp_path / "repo")
        return
    with redis_server(tmp_path) as server:
        yield make_repo(tmp_path / "repo", online_store=server.online_store)


def _same(got: Any, wanted: Any) -> bool:
    return got == wanted or (isinstance(wanted, float) and math.isnan(wanted) and math.isnan(got))


async def test_a_value_is_present_up_to_its_ttl_and_given_to_the_model(repo: FeatureRepo, tmp_path: Path) -> None:
    for view, (key, values) in VALUES.items():
        repo.write(view, key, values, NOON)
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        answer = await rig.ask({})
        for view, name, value in FEATURES:
            assert answer.states is not None
            assert answer.states[f"{view}__{name}"] == (FeatureState.PRESENT,)
            assert seen(answer, f"{view}__{name}") == value
        assert not answer.degraded
        assert rig.count("fairlead_feature_states_total", view="plane", state="PRESENT") == 3


async def test_an_unknown_entity_is_not_found(repo: FeatureRepo, tmp_path: Path) -> None:
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        answer = await rig.ask({})
        assert answer.states is not None
        assert set(answer.states.values()) == {(FeatureState.NOT_FOUND,)}
        for view, name, value in FEATURES:
            assert _same(seen(answer, f"{view}__{name}"), DEFAULTS[type(value).__name__])


async def test_a_row_of_nulls_is_null(repo: FeatureRepo, tmp_path: Path) -> None:
    for view, (key, values) in VALUES.items():
        repo.write(view, key, dict.fromkeys(values), NOON)
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        answer = await rig.ask({})
        assert answer.states is not None
        assert set(answer.states.values()) == {(FeatureState.NULL,)}
        for view, name, value in FEATURES:
            assert _same(seen(answer, f"{view}__{name}"), DEFAULTS[type(value).__name__])


async def test_a_feature_that_no_write_had_is_never_written(repo: FeatureRepo, tmp_path: Path) -> None:
    for i, (view, name, _) in enumerate(FEATURES):
        key, values = VALUES[view]
        others = {other: value for other, value in values.items() if other != name}
        if others:
            tail = {"tailnum": f"N{i}"} if "tailnum" in key else {}
            origin = {"origin": f"O{i}"} if "origin" in key else {}
            repo.write(view, key | tail | origin, others, NOON)
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        for i, (view, name, _) in enumerate(FEATURES):
            if len(VALUES[view][1]) > 1:
                state = await rig.state(f"{view}__{name}", tailnum=f"N{i}", origin=f"O{i}")
                assert state is FeatureState.NEVER_WRITTEN


@pytest.mark.parametrize(("view", "ttl"), [("origin_weather", 3), ("tail_performance", 12), ("pair_performance", 6)])
async def test_a_value_is_stale_only_beyond_its_ttl(repo: FeatureRepo, tmp_path: Path, view: str, ttl: int) -> None:
    key, values = VALUES[view]
    name = next(iter(values))
    repo.write(view, key, values, NOON)
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        rig.set_time(NOON + ttl * HOUR)
        assert await rig.state(f"{view}__{name}") is FeatureState.PRESENT
        rig.set_time(NOON + ttl * HOUR + timedelta(microseconds=1))
        answer = await rig.ask({})
        assert answer.states is not None
        assert answer.states[f"{view}__{name}"] == (FeatureState.STALE,)
        assert math.isnan(seen(answer, f"{view}__{name}"))
        rig.set_time(NOON - HOUR)
        assert await rig.state(f"{view}__{name}") is FeatureState.PRESENT


async def test_a_view_without_ttl_is_never_stale_but_by_a_maximum_age(repo: FeatureRepo, tmp_path: Path) -> None:
    key, values = VALUES["plane"]
    repo.write("plane", key, values, NOON)
    contract = contract_for(repo)
    async with running(repo.path, contract, tmp_path) as rig:
        rig.set_time(NOON + 100_000 * HOUR)
        assert await rig.state("plane__seats") is FeatureState.PRESENT
    strict = Hydration(deadline_s=1, max_age_s={"plane": 60})
    async with running(repo.path, contract, tmp_path, hydration=strict) as rig:
        rig.set_time(NOON + 60 * SECOND)
        assert await rig.state("plane__seats") is FeatureState.PRESENT
        rig.set_time(NOON + 61 * SECOND)
        assert await rig.state("plane__seats") is FeatureState.STALE


async def test_a_maximum_age_makes_a_ttl_stricter_never_looser(repo: FeatureRepo, tmp_path: Path) -> None:
    key, values = VALUES["origin_weather"]
    repo.write("origin_weather", key, values, NOON)
    for max_age_s, age in ((3600.0, HOUR), (1e6, 3 * HOUR)):
        hydration = Hydration(deadline_s=1, max_age_s={"origin_weather": max_age_s})
        async with running(repo.path, contract_for(repo), tmp_path, hydration=hydration) as rig:
            rig.set_time(NOON + age)
            assert await rig.state("origin_weather__temp") is FeatureState.PRESENT
            rig.set_time(NOON + age + SECOND)
            assert await rig.state("origin_weather__temp") is FeatureState.STALE


async def test_a_stale_value_is_used_where_the_policy_says_so(repo: FeatureRepo, tmp_path: Path) -> None:
    key, values = VALUES["origin_weather"]
    repo.write("origin_weather", key, values, NOON)
    hydration = Hydration(deadline_s=1, on_stale=Action.USE)
    async with running(repo.path, contract_for(repo), tmp_path, hydration=hydration) as rig:
        rig.set_time(NOON + 4 * HOUR)
        answer = await rig.ask({})
        assert answer.states is not None
        assert answer.states["origin_weather__temp"] == (FeatureState.STALE,)
        assert seen(answer, "origin_weather__temp") == 39.5


@every_feature
async def test_reject_names_the_feature(repo: FeatureRepo, tmp_path: Path, view: str, name: str, value: Any) -> None:
    del value
    feature = f"{view}__{name}"
    contract = contract_for(repo, **{feature: {"policy": REJECT_ALL, "default": None}})
    async with running(repo.path, contract, tmp_path) as rig:
        with pytest.raises(FeatureRejected, match=f"{feature} is NOT_FOUND") as refused:
            await rig.ask({})
        assert refused.value.field == feature


async def test_defaults_are_the_contracts(repo: FeatureRepo, tmp_path: Path) -> None:
    contract = contract_for(repo, origin_weather__temp={"default": 50.5}, plane__maker={"default": "AIRBUS"})
    async with running(repo.path, contract, tmp_path) as rig:
        answer = await rig.ask({})
        assert seen(answer, "origin_weather__temp") == 50.5
        assert seen(answer, "plane__maker") == "AIRBUS"


async def test_null_gives_the_model_a_missing_value_whatever_the_default(repo: FeatureRepo, tmp_path: Path) -> None:
    policy = {"not_found": Action.NULL}
    contract = contract_for(repo, origin_weather__temp={"default": 50.5, "policy": policy})
    async with running(repo.path, contract, tmp_path) as rig:
        assert math.isnan(seen(await rig.ask({}), "origin_weather__temp"))


async def test_rows_are_answered_in_order_with_repeated_and_unknown_keys(repo: FeatureRepo, tmp_path: Path) -> None:
    for tail, seats in (("N1", 1), ("N2", 2)):
        repo.write("plane", {"tailnum": tail}, {"seats": seats, "maker": tail, "jet": True}, NOON)
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        tails = ["N2", "N1", "N?", "N2", "N2", "N1"]
        answer = await rig.ask(*({"tailnum": tail} for tail in tails))
        assert answer.outputs["seen_plane__seats"].tolist() == [2, 1, -7, 2, 2, 1]
        assert answer.states is not None
        assert [state is FeatureState.PRESENT for state in answer.states["plane__seats"]] == [t != "N?" for t in tails]
        assert rig.count("fairlead_feature_states_total", view="plane", state="PRESENT") == 15
        assert rig.count("fairlead_feature_states_total", view="plane", state="NOT_FOUND") == 3


async def test_concurrent_requests_get_their_own_rows(repo: FeatureRepo, tmp_path: Path) -> None:
    for i in range(40):
        repo.write("plane", {"tailnum": f"N{i}"}, {"seats": i, "maker": "", "jet": True}, NOON)
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        answers = await asyncio.gather(*(rig.ask({"tailnum": f"N{i % 40}"}) for i in range(200)))
        assert [seen(answer, "plane__seats") for answer in answers] == [i % 40 for i in range(200)]
        assert rig.count("fairlead_store_reads_total", outcome="ok") == 201


async def test_a_large_request_is_right_and_lets_others_run(repo: FeatureRepo, tmp_path: Path) -> None:
    for i in range(0, 3000, 500):
        repo.write("plane", {"tailnum": f"N{i}"}, {"seats": i, "maker": "BOEING", "jet": True}, NOON)
    async with running(repo.path, contract_for(repo), tmp_path, hydration=Hydration(deadline_s=10)) as rig:
        asked = asyncio.create_task(rig.ask(*({"tailnum": f"N{i}"} for i in range(3000))))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0)
            turns += 1
        answer = await asked
        assert answer.outputs["seen_plane__seats"].tolist() == [-7 if i % 500 else i for i in range(3000)]
        assert turns > 20
