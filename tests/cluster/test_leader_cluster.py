"""Two operators and one Lease on the real API: one writes, whatever is done to the processes in mid-rollout."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.kinds import LEASE
from fairlead_operator.platforms.kubernetes.render import read_route
from support.cluster import wait_for
from support.cluster_api import Resource, Watch
from support.cluster_operator import ClusterOperator
from support.cluster_settled import CONTROL, FLAGS, TREATMENT, Settled, settled_manifest, steady

LEASE_S = 3.0
STEPS = (5, 10, 15, 20, 25, 40)
HOLD_S = 1
SEED = 20261


@pytest.fixture
def second(settled: Settled, tmp_path: Path) -> Iterator[ClusterOperator]:
    """Another operator beside the shared one, for the same namespace and the same Lease."""
    operator = ClusterOperator(settled.cluster, settled.namespace, tmp_path, name="operator-1", flags=FLAGS)
    operator.start(wait=False)
    wait_for(lambda: operator.metric("fairlead_stored_objects") > 0, otherwise=operator.story)
    yield operator
    operator.thaw() if operator.is_running else None
    operator.stop()


def test_a_leader_stopped_past_its_lease_and_resumed_in_mid_rollout_changes_nothing(
    settled: Settled, second: ClusterOperator
) -> None:
    first = settled.operator
    assert (first.metric("fairlead_leader"), second.metric("fairlead_leader")) == (1, 0)
    with settled.watch_routes() as watch, steady(settled.deployed) as load:
        run = _ramp(settled, "stopped")
        settled.deployed.wait_weights(**{TREATMENT: STEPS[1]})
        first.freeze()
        told = len(first.log.read_text().splitlines())
        second.wait_leading()
        settled.deployed.wait_weights(**{TREATMENT: STEPS[3]})
        first.thaw()
        wait_for(lambda: "the lease is lost" in _said(first, told), timeout_s=20, otherwise=first.story)
        settled.deployed.wait_weights(**{TREATMENT: STEPS[-1]})
    assert first.metric("fairlead_leader") == 0
    done = [line for line in _said(first, told).splitlines() if " applied " in line or " deleted " in line]
    assert len(done) <= 1, f"more than what was under way when it was stopped: {done}"
    assert load.lost == []
    _assert_monotone(watch, run)


def test_an_operator_that_is_told_to_end_frees_the_lease_and_the_other_goes_on_at_once(
    settled: Settled, second: ClusterOperator
) -> None:
    begun = time.monotonic()
    code = settled.operator.stop()
    ended_s = time.monotonic() - begun
    second.wait_leading(timeout_s=LEASE_S)
    holder = settled.stage.api.get(LEASE, settled.namespace, "operator")["spec"]["holderIdentity"]
    assert code == 0
    assert ended_s < 20
    assert holder.startswith("operator-1")
    settled.deployed.annotate(touched="by-the-other")
    settled.operator.start(wait=False)


def test_an_operator_killed_again_and_again_in_a_rollout_comes_to_the_same_end(settled: Settled) -> None:
    dice = random.Random(SEED)  # noqa: S311 -- spreads the kills
    pods = set(settled.deployed.pods())
    with settled.watch_routes() as watch, steady(settled.deployed) as load:
        run = _ramp(settled, "killed")
        for _ in range(3):
            time.sleep(dice.uniform(0.2, 1.5))
            settled.operator.kill()
            settled.operator.start(wait=False)
            settled.operator.wait_leading()
        settled.deployed.wait_weights(**{TREATMENT: STEPS[-1]})
    assert load.lost == []
    assert set(settled.deployed.pods()) == pods
    _assert_monotone(watch, run)


def _ramp(settled: Settled, experiment: str) -> str:
    """Begin an experiment with a step every few seconds; return its salt."""
    steps: list[dict[str, Any]] = [{"weights": {TREATMENT: weight}, "hold": f"{HOLD_S}s"} for weight in STEPS]
    del steps[-1]["hold"]
    manifest = settled_manifest(settled.stage)
    manifest["spec"]["rollout"] = {"strategy": "Experiment", "steps": steps}
    manifest["spec"]["experiment"] = {"id": experiment}
    settled.stage.apply(manifest)
    return f"{settled.namespace}/delay/{experiment}"


def _assert_monotone(watch: Watch, salt: str) -> None:
    """Assert that no step was missed or gone back to, and that weights were whole, from all that was ever written."""
    assert watch.problems == []
    routes = [route for route in (_route(change.resource) for change in watch.changes) if route and route.salt == salt]
    weights = [route.weight_bp(TREATMENT) for route in routes]
    assert weights == sorted(weights)
    assert sorted(set(weights) - {0}) == [weight * 100 for weight in STEPS]
    assert {sum(destination.width_bp for destination in route.split) for route in routes} == {10_000}
    assert {route.control.variant for route in routes} == {CONTROL}


def _route(live: Resource) -> Route | None:
    return read_route(live) if live["metadata"]["name"] == "delay" else None


def _said(operator: ClusterOperator, told: int) -> str:
    """Return what an operator has logged after its first ``told`` lines."""
    return "\n".join(operator.log.read_text().splitlines()[told:])
