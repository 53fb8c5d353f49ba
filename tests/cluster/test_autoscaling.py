"""Autoscalers and rollouts at once: pods come by load, weights by the rollout, and neither disturbs the other."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from support import autoscaling, figures
from support.autoscaling import CONTROL, MOST, NAME, NEEDED, SHARE, TREATMENT, Scaled
from support.cluster import Cluster
from support.cluster_deployments import Deployed, Stage, stage_of
from support.cluster_operator import install, installed, operator_of
from support.servers import RedisServer


@pytest.fixture(scope="module")
def stage(cluster: Cluster, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A namespace that the installed operator serves, or else one of its own."""
    if not cluster.packaged:
        pytest.skip("no metrics server, so that autoscalers do nothing: `tools/cluster up --packaged` has one")
    folder, namespace = tmp_path_factory.mktemp("autoscaling"), f"h{secrets.token_hex(3)}"
    if not installed(cluster):
        install(cluster)
    with (
        stage_of(cluster, redis, namespace, folder) as stage,
        nullcontext() if installed(cluster) else operator_of(cluster, namespace, folder),
    ):
        yield stage
        stage.retire()


@pytest.fixture(scope="module")
def scaled(stage: Stage) -> Scaled:
    return autoscaling.scale(stage)


def test_load_scales_a_variant_up_and_moves_no_weight_and_loses_no_request(scaled: Scaled) -> None:
    figures.note("autoscaling", requests=scaled.requests, lost=len(scaled.problems))
    conditions = {one["type"]: one["status"] for one in scaled.autoscaler["status"]["conditions"]}
    assert conditions["ScalingActive"] == "True"
    assert scaled.autoscaler["status"]["currentMetrics"]
    assert max(sight.available[CONTROL] for sight in scaled.sights) == MOST
    assert scaled.writes_while_scaling == 0
    assert scaled.problems == ()


def test_a_share_grows_only_onto_the_replicas_that_it_needs_of_what_control_was_scaled_to(scaled: Scaled) -> None:
    when_scaled = next(sight for sight in scaled.sights if sight.available[CONTROL] == MOST)
    first = next(sight for sight in scaled.sights if sight.weight == SHARE)
    assert when_scaled.fewest[TREATMENT] == 1
    assert first.fewest[TREATMENT] == NEEDED
    assert first.available[TREATMENT] >= NEEDED


def test_control_can_take_everything_back_until_the_decision_is_final(scaled: Scaled, stage: Stage) -> None:
    deployed = Deployed(stage, NAME)
    assert scaled.sights[-1].fewest[CONTROL] == MOST
    deployed.request("abort")
    deployed.wait_weights(**{TREATMENT: 0})
    deployed.wait(lambda: autoscaling.fewest(stage, CONTROL) == 1)
    deployed.wait_condition("Servable")
