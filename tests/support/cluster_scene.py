"""What tests of one operator in the cluster share: a stage, the operator, one deployment of three variants, a watch.

Pods are what costs time here, and neither roles, weights, routes nor experiments are part of a revision; so tests give
the same deployment one spec after the other, and its three pods serve them all.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import figures
from support.cluster import Cluster
from support.cluster_deployments import Deployed, Stage, stage_of
from support.cluster_operator import ClusterOperator, install, operator_of
from support.route_writes import RouteWrites
from support.servers import RedisServer

NAME = "delay"
CONTROL, FIRST, SECOND = "logistic", "boosted", "forest"
HASTE = ("--unavailable-grace-s=5",)


@dataclass(frozen=True, slots=True)
class Scene:
    """One namespace with an operator of its own."""

    stage: Stage
    operator: ClusterOperator
    writes: RouteWrites

    def manifest(
        self,
        *,
        second: str = "Treatment",
        routing: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> dict[str, Any]:
        """Return the deployment of three variants; ``forest`` is a Treatment or a Shadow that gets no copies."""
        variants = [
            self.stage.variant(CONTROL),
            self.stage.variant(FIRST, "Treatment"),
            self.stage.variant(SECOND, second),
        ]
        reach = {"mirror": {"percent": 0}, **(routing or {})}
        return self.stage.manifest(NAME, variants, routing=reach, **spec)

    def deploy(self, **given: Any) -> Deployed:
        """Give the deployment of three variants a spec, see ``manifest``, and return once it is in force."""
        deployed = self.stage.apply(self.manifest(**given))
        deployed.wait_condition("VariantsReady")
        return deployed


@contextmanager
def scene_of(cluster: Cluster, redis: RedisServer, folder: Path) -> Iterator[Scene]:
    """Set a scene; its pods are started at once, and its operator may not have logged an error in the end."""
    install(cluster)
    namespace = f"a{secrets.token_hex(3)}"
    with stage_of(cluster, redis, namespace, folder) as stage:
        with (
            operator_of(cluster, namespace, folder, flags=HASTE) as operator,
            RouteWrites(cluster, namespace) as writes,
        ):
            stage.apply(_first(scene := Scene(stage, operator, writes)))
            yield scene
            stage.retire()
            figures.note("route-writes", moments=writes.assert_safe(), refused_by_envoy=0)
        assert operator.errors() == []


def _first(scene: Scene) -> dict[str, Any]:
    return scene.manifest(second="Shadow", rollout={"strategy": "Manual", "weights": {FIRST: 0}})
