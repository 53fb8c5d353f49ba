"""What is seen of hydration: ages of rows in metrics and answers, who reads, whether the store is left alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fairlead_server.hydrate.observed import AGE_BUCKETS_S, Ages
from fairlead_server.metrics import ServerMetrics
from support.predictors import HOUR, NOON, contract_for, running
from support.servers import redis_server
from support.store import make_repo
from support.waiting import until

SECOND = 1_000_000
NOW = 10_000_000 * SECOND
VIEW = {"model": "arrival-delay", "variant": "logistic", "view": "plane"}


@pytest.mark.parametrize("copies", [1, 40])
def test_rows_are_counted_by_age_however_many_there_are(copies: int) -> None:
    ages = Ages()
    found = [NOW, NOW - SECOND, NOW - SECOND - 1, NOW - 3600 * SECOND, NOW + SECOND, NOW - 10**6 * SECOND, 0, 1]
    ages.add(found * copies, NOW)
    wanted = [0] * (len(AGE_BUCKETS_S) + 1)
    for limit_s, rows in ((1, 3), (5, 1), (3600, 1), (14 * 86400, 1)):
        wanted[AGE_BUCKETS_S.index(limit_s)] = rows * copies
    assert ages.counts == wanted
    assert ages.count == 6 * copies
    assert ages.sum_us == copies * (2 * SECOND + 1 + 3600 * SECOND + 10**6 * SECOND)


def test_many_rows_of_like_age_are_counted_at_once_as_one_by_one() -> None:
    alike, alone = Ages(), Ages()
    found = [NOW - 100 * SECOND - i for i in range(50)]
    alike.add(found, NOW)
    for us in found:
        alone.add([us], NOW)
    assert (alike.counts, alike.sum_us) == (alone.counts, alone.sum_us)


def test_ages_arrive_in_a_scrape_in_seconds() -> None:
    registry = CollectorRegistry()
    of_model = ServerMetrics(registry).of(model="arrival-delay", variant="logistic")
    of_model.ages("plane").add([NOW - 90 * SECOND], NOW)
    name = "fairlead_feature_age_seconds"
    assert registry.get_sample_value(f"{name}_sum", VIEW) == 90
    assert registry.get_sample_value(f"{name}_bucket", VIEW | {"le": "60.0"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", VIEW | {"le": "300.0"}) == 1
    assert registry.get_sample_value(f"{name}_bucket", VIEW | {"le": "+Inf"}) == 1


async def test_ages_of_the_rows_that_are_found_are_counted_per_row_and_told_on_request(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    repo.write("plane", {"tailnum": "N3"}, {"seats": 3, "maker": "BOEING", "jet": True}, NOON - 5 * HOUR)
    repo.write("tail_performance", {"tailnum": "N3"}, {"mean_delay": 1.0, "flights": 1}, NOON - timedelta(minutes=2))
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        answer = await rig.ask({"tailnum": "N3"}, {"tailnum": "N3"}, {"tailnum": "N4"})
        ages_s = {view: list(of_view) for view, of_view in answer.ages_s.items()}
        assert ages_s == {
            "plane": [18_000, 18_000, None],
            "tail_performance": [120, 120, None],
            "origin_weather": [None] * 3,
            "pair_performance": [None] * 3,
        }
        assert rig.count("fairlead_feature_age_seconds_sum", view="plane") == 2 * 18_000
        assert rig.count("fairlead_feature_age_seconds_count", view="tail_performance") == 2
        assert rig.count("fairlead_feature_age_seconds_count", view="origin_weather") == 0
        assert rig.count("fairlead_feature_max_age_seconds", view="origin_weather") == 3 * 3600
        limits = {"model": "arrival-delay", "variant": "logistic", "view": "plane"}
        assert rig.metrics.get_sample_value("fairlead_feature_max_age_seconds", limits) is None
        assert rig.count("fairlead_feature_reader", view="plane", reader="generic") == 1


async def test_a_store_that_is_left_alone_is_told_until_it_is_asked_again(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store)
        async with running(repo.path, contract_for(repo), tmp_path) as rig:
            assert rig.count("fairlead_feature_reader", view="plane", reader="redis") == 1
            assert rig.count("fairlead_store_circuit_open") == 0
            server.kill()

            async def is_left_alone() -> bool:
                await rig.ask({})
                return rig.count("fairlead_store_circuit_open") == 1

            await until(is_left_alone)
            server.start()
            await until(lambda: rig.count("fairlead_store_circuit_open") == 0)
