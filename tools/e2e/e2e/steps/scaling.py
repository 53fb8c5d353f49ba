"""Autoscalers and a rollout at once: pods come by load, weight only onto the pods that it needs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import dropwhile, groupby, takewhile
from typing import Any

from e2e.errors import see
from e2e.scene import CONTROL, DEPLOYMENT, FLIGHT, FLIGHTS, TREATMENT, UNITS, Scene, host_of, said
from e2e.steps import rollout
from e2e.story import Seen
from support import autoscaling
from support.autoscaling import BEFORE, MOST, NEEDED, SHARE, Scaled, Sight
from support.cluster_deployed import Deployed
from support.gateway_load import Load

_CPU_PERCENT = 30


def autoscale(scene: Scene) -> Seen:
    """Have load scale the control up, then start an experiment that needs more of the treatment, and abort it."""
    with scene.deployed() as deployed:
        load = Load(
            scene.facts.gateway.address, host_of(deployed), DEPLOYMENT, UNITS, connections=2, pause_s=0.01, row=FLIGHT
        )
        begun_s = time.monotonic()
        run = f"scaled-{time.time():.0f}"
        with scene.telling("autoscaling", lambda: said(deployed)):
            found = autoscaling.scaled(deployed, lambda how, **spec: _apply(deployed, run, how, **spec), load)
        took_s = time.monotonic() - begun_s
        _check(found)
        told = scene.fairlead("abort", DEPLOYMENT, "-n", FLIGHTS).strip()
        deployed.wait_weights(**{TREATMENT: 0})
        deployed.wait(lambda: autoscaling.fewest(deployed.stage, CONTROL) == 1)
    text = (
        f"load scales {CONTROL} to {MOST} pods, no weight moves; {SHARE} % go to {TREATMENT} only with {NEEDED} pods; "
        f"{found.requests} sent, 0 lost; “{told}”"
    )
    return Seen(text, {"requests": found.requests, "lost": 0, "seconds": round(took_s, 1)})


def _apply(deployed: Deployed, run: str, how: Mapping[str, Any], **more: Any) -> None:
    """Give the flights a rollout, with bounds that load reaches; an experiment has an id of its own each time."""
    spec = rollout.spec_of(rollout.MANIFEST)
    scaling = {
        CONTROL: {"minReplicas": 1, "maxReplicas": MOST, "target": {"cpuPercent": _CPU_PERCENT}},
        TREATMENT: {"minReplicas": 1, "maxReplicas": MOST, "target": {"cpuPercent": 95}},
    }
    variants = [{**one, "scaling": scaling[one["name"]]} for one in spec["variants"]]
    del spec["experiment"]
    experiment = {"experiment": {"id": run}} if "experiment" in more else {}
    rollout.give(deployed, {**spec, **experiment, "variants": variants, "rollout": {**how, "keepPrevious": "1s"}})
    if not experiment:
        # What belongs to the change itself is written by then.
        deployed.wait_condition("Ready")


def _check(found: Scaled) -> None:
    see(found.requests, "nothing was sent")
    see(not found.problems, f"{len(found.problems)} of {found.requests} lost: {found.problems[:3]}")
    weights = weights_while_scaling(found.sights)
    see(weights == [BEFORE], f"weights were {weights} while pods came")
    active = {one["type"]: one["status"] for one in found.autoscaler["status"]["conditions"]}
    see(active.get("ScalingActive") == "True", f"the autoscaler says {active}")
    see(found.autoscaler["status"].get("currentMetrics"), "the autoscaler knows no metrics")
    scaled = next(sight for sight in found.sights if sight.available[CONTROL] == MOST)
    see(scaled.fewest[TREATMENT] == 1, f"{TREATMENT} had to keep {scaled.fewest[TREATMENT]} pods before it needed them")
    first = next(sight for sight in found.sights if sight.weight == SHARE)
    see(first.fewest[TREATMENT] == NEEDED, f"{SHARE} % onto a bound of {first.fewest[TREATMENT]} pods")
    see(first.available[TREATMENT] >= NEEDED, f"{SHARE} % onto {first.available[TREATMENT]} pods")
    last = found.sights[-1].fewest[CONTROL]
    see(last == MOST, f"control keeps {last} pods while nothing is decided; {MOST} serve everything")


def weights_while_scaling(sights: Iterable[Sight]) -> list[int]:
    """Return the treatment's weights in their order, from the first that was given until control was scaled up."""
    scaling = takewhile(lambda sight: sight.available[CONTROL] < MOST, sights)
    given = dropwhile(lambda weight: weight != BEFORE, (sight.weight for sight in scaling))
    return [weight for weight, _ in groupby(given)]
