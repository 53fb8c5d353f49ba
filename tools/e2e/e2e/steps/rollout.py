"""A ramp by edits, and a promotion by command."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from e2e.errors import see
from e2e.scene import CONTROL, DEPLOYMENT, FLIGHTS, TREATMENT, Scene, said
from e2e.story import Seen
from e2e.trial import trial
from fairlead import BUCKETS
from fairlead_operator.platforms.kubernetes.kinds import VARIANT_LABEL
from support.cluster_deployed import Deployed

LOW, HIGH = 10, 50
KEPT_S = 5
"""How long what a promotion replaced stays warm."""
RAMP = {
    "strategy": "Experiment",
    "steps": [{"weights": {TREATMENT: LOW}, "hold": "5s"}, {"weights": {TREATMENT: HIGH}}],
    "onSuccess": "Hold",
    "keepPrevious": f"{KEPT_S}s",
    "weights": None,
}


def ramp(scene: Scene) -> Seen:
    """Raise the treatment's weight from 10 to 50 by a patch of the manifest, under load."""
    with scene.deployed() as deployed:
        _weigh(deployed, LOW)
        with trial(scene, deployed) as running:
            took_s = running.weigh(HIGH)
    return running.seen(f"{LOW} -> {HIGH} % in force and followed in {took_s:.2f} s", followed_s=round(took_s, 2))


def promote(scene: Scene) -> Seen:
    """Promote the treatment by command; what it replaced is taken down after ``keepPrevious``."""
    with scene.deployed() as deployed:
        deployed.patch(rollout=RAMP, experiment={"id": f"promoted-{time.time():.0f}"})
        deployed.wait_weights(**{TREATMENT: HIGH})
        before = deployed.pods()
        told = scene.fairlead("promote", DEPLOYMENT, TREATMENT, "-n", FLIGHTS).strip()
        begun_s = time.monotonic()
        scene.wait("promote", lambda: said(deployed), lambda: deployed.weights_bp().get(TREATMENT) == BUCKETS)
        whole_s = time.monotonic() - begun_s
        left = partial(_pods_of_control, deployed)
        scene.wait("promote", lambda: f"{len(left())} pods of {CONTROL} left", lambda: not left())
        gone_s = time.monotonic() - begun_s
        kept = deployed.pods().keys() & before.keys()
        progress = deployed.condition("Progressing")
    see(kept, "no pod of the winner was kept")
    see(gone_s > KEPT_S, f"pods of {CONTROL} went after {gone_s:.1f} s; keepPrevious is {KEPT_S} s")
    see(progress.get("reason") == "SpecBehind", f"Progressing: {progress}")
    text = f"“{told}”; everything after {whole_s:.1f} s, {CONTROL}'s pods gone {gone_s:.0f} s after the command"
    return Seen(text, {"whole_s": round(whole_s, 1), "gone_s": round(gone_s, 1), "keep_previous_s": KEPT_S})


def split_again(scene: Scene) -> Seen:
    """Split traffic again, by an experiment of another id, for what comes next."""
    with scene.deployed() as deployed:
        rollout = {"strategy": "Manual", "weights": {TREATMENT: HIGH}, "steps": None, "onSuccess": None}
        deployed.patch(rollout=rollout, experiment={"id": f"faults-{time.time():.0f}"})
        scene.wait("split", lambda: said(deployed), lambda: deployed.weights_bp().get(TREATMENT) == HIGH * 100)
        deployed.wait_condition("Ready")
        return Seen(
            f"{CONTROL} {100 - HIGH} %, {TREATMENT} {HIGH} %, experiment {deployed.status()['experiment']['id']}"
        )


def _pods_of_control(deployed: Deployed) -> list[dict[str, Any]]:
    return [pod for pod in deployed.pods().values() if pod["metadata"]["labels"].get(VARIANT_LABEL) == CONTROL]


def _weigh(deployed: Deployed, weight: int) -> None:
    deployed.patch(rollout={"strategy": "Manual", "weights": {TREATMENT: weight}})
    deployed.wait_weights(**{TREATMENT: weight})
