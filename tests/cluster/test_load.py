"""Weights change under load: no request is lost, and traffic follows within a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

import pytest

from fairlead import Layout, bucket_of
from support import figures
from support.cluster_deployments import MODEL_NAME, Deployed
from support.cluster_scene import CONTROL, FIRST, NAME, Scene
from support.gateway_load import Load, Sample

LOW, HIGH = 10, 60
CHANGES = 20
SETTLED_S = 1.2
"""From one change to the next: what comes later counts as not followed."""


@pytest.fixture
def deployed(scene: Scene) -> Deployed:
    deployed = scene.deploy(rollout=_manual(LOW), experiment={"id": "load"}, second="Shadow")
    deployed.wait_weights(**{FIRST: LOW})
    return deployed


def test_twenty_weight_changes_under_load_lose_nothing_and_are_followed_within_a_second(deployed: Deployed) -> None:
    lags_s: list[float] = []
    before = _exposed(deployed)
    with Load(deployed.address, deployed.host, MODEL_NAME, _telling_units(deployed)) as load:
        time.sleep(SETTLED_S)
        for number in range(CHANGES):
            old, new, weight = ((CONTROL, FIRST, HIGH), (FIRST, CONTROL, LOW))[number % 2]
            lags_s.append(_lag_s(deployed, load, old, new, weight))
    answered = len(load.samples)
    latencies = [sample.ended_s - sample.sent_s for sample in load.samples]
    figures.note(
        "weight-changes",
        changes=CHANGES,
        requests=answered,
        lost=len(load.lost),
        lag_median_s=figures.quantile(lags_s, 0.5),
        lag_p90_s=figures.quantile(lags_s, 0.9),
        lag_p99_s=figures.quantile(lags_s, 0.99),
        latency_median_s=figures.quantile(latencies, 0.5),
        latency_p99_s=figures.quantile(latencies, 0.99),
    )
    assert load.lost == []
    assert {sample.protocol for sample in load.samples} == {"REST", "gRPC"}
    assert figures.quantile(lags_s, 0.99) < 1.0
    assert _exposed(deployed) - before == answered, "each answer exposes one unit, at every weight"
    assert {report.requests.mismatched for report in deployed.reports().values()} == {0}


def _lag_s(deployed: Deployed, load: Load, old: str, new: str, weight: int) -> float:
    """Change the weight; return how long after that the last request was sent that went where it went before."""
    changed_s = time.monotonic()
    deployed.patch(rollout=_manual(weight))
    time.sleep(SETTLED_S)
    seen = load.sent_since(changed_s)
    assert _variants(seen[-20:]) == {new}, "traffic has not followed"
    return max((sample.sent_s - changed_s for sample in seen if sample.variant == old), default=0.0)


def _exposed(deployed: Deployed) -> int:
    return sum(report.requests.exposed for report in deployed.reports().values())


def _variants(samples: Sequence[Sample]) -> set[str]:
    return {sample.variant for sample in samples}


def _telling_units(deployed: Deployed) -> list[str]:
    """Return units whose arm is another at each of the two weights, so that every answer tells which is in force."""
    salt = f"{deployed.namespace}/{NAME}/load"
    low, high = (Layout.of(CONTROL, {FIRST: weight * 100}) for weight in (LOW, HIGH))
    every = (f"unit-{number}" for number in range(100_000))
    telling = (u for u in every if low.arm_at(bucket_of(u, salt)) != high.arm_at(bucket_of(u, salt)))
    return list(islice(telling, 1000))


def _manual(weight: int) -> dict[str, object]:
    return {"strategy": "Manual", "weights": {FIRST: weight}}
