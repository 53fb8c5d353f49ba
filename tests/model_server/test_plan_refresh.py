"""What changes in the registry without changing what the model is served is compiled anew and swapped in whole."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from feast import FeatureService

from fairlead.policy import FeatureState
from support.models import contract_of
from support.predictors import NOON, Rig, contract_for, running
from support.servers import redis_server
from support.store import FeatureRepo, definitions, make_repo
from support.waiting import until

REFRESH: dict[str, Any] = {"registry_refresh_s": 0.05, "registry_deadline_s": 5.0}


def register(repo: FeatureRepo, note: str) -> None:
    """Register one of the views anew, with a note on it; the online store is not touched."""
    plane = definitions(repo.path)[5]
    plane.tags = {"note": note}
    repo.store.registry.apply_feature_view(plane, repo.store.project)


def read_of(rig: Rig, outcome: str) -> float:
    return rig.count("fairlead_registry_reads_total", outcome=outcome)


async def test_a_change_that_alters_nothing_is_swapped_in_under_requests(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    repo.write("plane", {"tailnum": "N3"}, {"seats": 3, "maker": "BOEING", "jet": True}, NOON)
    async with running(repo.path, contract_for(repo), tmp_path, **REFRESH) as rig:
        before = rig.hydrator
        states: list[FeatureState] = []

        async def ask_until_swapped() -> bool:
            asked = [rig.state("plane__seats", tailnum="N3") for _ in range(8)]
            states.extend(await asyncio.gather(*asked))
            return read_of(rig, "swapped") > 0

        register(repo, "a note")
        await until(ask_until_swapped)
        assert rig.hydrator is not before
        assert set(states) == {FeatureState.PRESENT}
        assert await rig.state("plane__seats", tailnum="N3") is FeatureState.PRESENT
        assert rig.connection.registry.report.fits is True
        assert rig.count("fairlead_contract_drift") == 0
        fits = read_of(rig, "fits")
        await until(lambda: read_of(rig, "fits") > fits)
        assert read_of(rig, "swapped") == 1


async def test_a_name_that_stands_for_another_view_is_told_and_not_swapped_in(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    objects = definitions(repo.path)
    weather, other = objects[3], definitions(repo.path)[3]
    other.name = other.projection.name = "other_weather"

    def service(view: Any) -> list[Any]:
        return [*objects[:-1], other, FeatureService(name="aliased", features=[view.with_name("here")])]

    repo.store.apply(service(weather))
    repo.write("origin_weather", {"origin": "EWR"}, {"temp": 1.0, "wind": 2.0}, NOON)
    repo.write("other_weather", {"origin": "EWR"}, {"temp": 3.0, "wind": 4.0}, NOON)
    contract = contract_of(repo.describe("aliased"))
    request = {"origin": np.array(["EWR"], np.object_)}
    async with running(repo.path, contract, tmp_path, **REFRESH) as rig:
        repo.store.apply(service(other))
        registry = rig.connection.registry
        await until(lambda: registry.report.fits is False)
        assert registry.report.differences == (
            "view here is read from other_weather in the online store, it was origin_weather",
        )
        assert registry.fingerprint == contract.fingerprint
        assert rig.count("fairlead_contract_drift") == 1
        assert (await rig.hydrator.hydrate(request, 1)).columns["here__temp"].tolist() == [1.0]
        assert read_of(rig, "swapped") == 0


async def test_no_plan_is_swapped_in_while_the_online_store_is_away(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store)
        async with running(repo.path, contract_for(repo), tmp_path, **REFRESH) as rig:
            before = rig.hydrator
            server.kill()
            register(repo, "a note")
            await until(lambda: read_of(rig, "postponed") > 0)
            assert rig.hydrator is before
            server.start()
            await until(lambda: read_of(rig, "swapped") > 0)
            await until(lambda: not rig.predictor.degraded)
            assert await rig.state("plane__seats") is FeatureState.NOT_FOUND
