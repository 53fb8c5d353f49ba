"""Weights change under load: no request is lost, and traffic follows within a second."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import islice, pairwise

import pytest

from fairlead import Layout, bucket_of
from support import figures
from support.cluster_deployments import MODEL_NAME, Deployed
from support.cluster_scene import CONTROL, FIRST, NAME, Scene
from support.gateway_load import Load, Sample

LOW, HIGH = 10, 60
CHANGES = 20
ROUNDS = 2
"""A change that a busy neighbour of the machine has delayed may be measured again, with all others."""
FOLLOWED = 40
"""Answers in a row that show that traffic has followed."""
BETWEEN_S = 0.3


@pytest.fixture
def deployed(scene: Scene) -> Deployed:
    deployed = scene.deploy(rollout=_manual(LOW), experiment={"id": "load"}, second="Shadow")
    deployed.wait_weights(**{FIRST: LOW})
    return deployed


def test_twenty_weight_changes_under_load_lose_nothing_and_are_followed_within_a_second(deployed: Deployed) -> None:
    before, answered = _exposed(deployed), 0
    for _ in range(ROUNDS):
        with Load(deployed.address, deployed.host, MODEL_NAME, _telling_units(deployed)) as load:
            changes = [_change(deployed, load, number) for number in range(CHANGES)]
        answered += len(load.samples)
        lag_p99_s = _noted(load, _lags_s(load, changes))
        assert load.lost == []
        assert {sample.protocol for sample in load.samples} == {"REST", "gRPC"}
        if lag_p99_s < 1.0:
            break
    assert lag_p99_s < 1.0
    assert _exposed(deployed) - before == answered, "each answer exposes one unit, at every weight"
    assert {report.requests.mismatched for report in deployed.reports().values()} == {0}


def _change(deployed: Deployed, load: Load, number: int) -> float:
    """Change the weight and wait until traffic follows; return when it was changed."""
    new, weight = ((FIRST, HIGH), (CONTROL, LOW))[number % 2]
    changed_s = time.monotonic()
    deployed.patch(rollout=_manual(weight))
    deployed.wait(lambda: _variants(load.sent_since(changed_s)[-FOLLOWED:], FOLLOWED) == {new}, 20)
    time.sleep(BETWEEN_S)
    return changed_s


def _lags_s(load: Load, changes: Sequence[float]) -> list[float]:
    """Return, for each change, how long after it the last request was sent that went where it went before."""
    lags_s = []
    for number, (since_s, until_s) in enumerate(pairwise([*changes, math.inf])):
        old = (CONTROL, FIRST)[number % 2]
        late = [s.sent_s for s in load.samples if since_s <= s.sent_s < until_s and s.variant == old]
        lags_s.append(max(late, default=since_s) - since_s)
    return lags_s


def _noted(load: Load, lags_s: Sequence[float]) -> float:
    """Note the figures; return the 99th percentile of the lags, seconds."""
    latencies_s = [sample.ended_s - sample.sent_s for sample in load.samples]
    figures.note(
        "weight-changes",
        changes=len(lags_s),
        requests=len(load.samples),
        lost=len(load.lost),
        lag_median_s=figures.quantile(lags_s, 0.5),
        lag_p90_s=figures.quantile(lags_s, 0.9),
        lag_p99_s=figures.quantile(lags_s, 0.99),
        latency_median_s=figures.quantile(latencies_s, 0.5),
        latency_p99_s=figures.quantile(latencies_s, 0.99),
    )
    return figures.quantile(lags_s, 0.99)


def _exposed(deployed: Deployed) -> int:
    return sum(report.requests.exposed for report in deployed.reports().values())


def _variants(samples: Sequence[Sample], least: int) -> set[str]:
    """Return who answered; nobody if there are fewer answers than ``least``."""
    return {sample.variant for sample in samples} if len(samples) >= least else set()


def _telling_units(deployed: Deployed) -> list[str]:
    """Return units whose arm is another at each of the two weights, so that every answer tells which is in force."""
    salt = f"{deployed.namespace}/{NAME}/load"
    low, high = (Layout.of(CONTROL, {FIRST: weight * 100}) for weight in (LOW, HIGH))
    every = (f"unit-{number}" for number in range(100_000))
    telling = (u for u in every if low.arm_at(bucket_of(u, salt)) != high.arm_at(bucket_of(u, salt)))
    return list(islice(telling, 1000))


def _manual(weight: int) -> dict[str, object]:
    return {"strategy": "Manual", "weights": {FIRST: weight}}
