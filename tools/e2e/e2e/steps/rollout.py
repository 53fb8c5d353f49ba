"""A ramp by edits, and a promotion by command."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from e2e.errors import see
from e2e.scene import CONTROL, DEPLOYMENT, FLIGHTS, TREATMENT, Scene, said
from e2e.steps.install import MANIFESTS
from e2e.story import Seen
from e2e.trial import trial
from fairlead import BUCKETS
from fairlead_operator.platforms.kubernetes.kinds import VARIANT_LABEL
from support.cluster_deployed import Deployed

LOW, HIGH = 10, 50
PODS = 2
"""Of each variant while things are broken: one can go."""
KEPT_S = 15
"""How long what a promotion replaced stays warm."""
MANIFEST = MANIFESTS / "modeldeployment.yaml"
RAMP = {
    "strategy": "Experiment",
    "steps": [{"weights": {TREATMENT: LOW}, "hold": "3s"}, {"weights": {TREATMENT: HIGH}}],
    "onSuccess": "Hold",
    "keepPrevious": f"{KEPT_S}s",
}


def ramp(scene: Scene) -> Seen:
    """Raise the treatment's weight from 10 to 50 by a patch of the manifest, under load."""
    with scene.deployed() as deployed:
        _weigh(deployed, LOW)
        with trial(scene, deployed) as running:
            took_s = running.weigh(HIGH)
    return running.seen(f"{LOW} -> {HIGH} % in force and followed in {took_s:.2f} s", followed_s=round(took_s, 2))


def promote(scene: Scene) -> Seen:
    """Promote the treatment by command, write it down, and take the loser out: its pods go after ``keepPrevious``."""
    with scene.deployed() as deployed:
        before, templates = deployed.pods().keys(), _templates(deployed)
        give(deployed, {**spec_of(MANIFEST), "rollout": RAMP, "experiment": {"id": fresh_id("promoted")}})
        deployed.wait_weights(**{TREATMENT: HIGH})
        begun_s = time.monotonic()
        told = scene.fairlead("promote", DEPLOYMENT, TREATMENT, "-n", FLIGHTS).strip()
        scene.wait("promote", lambda: said(deployed), lambda: deployed.weights_bp().get(TREATMENT) == BUCKETS)
        whole_s = time.monotonic() - begun_s
        scene.wait("promote", lambda: said(deployed), lambda: _progress(deployed) == "SpecBehind")
        # An autoscaler may add a pod: it looks at the load of the steps before this one, too.
        kept = before <= deployed.pods().keys() and _templates(deployed) == templates
        see(kept, "writing the spec or promoting replaced pods")
        _write_down(scene, deployed)
        control = partial(_pods_of, deployed, CONTROL)
        winners = _pods_of(deployed, TREATMENT)
        scene.wait("promote", lambda: f"{len(control())} pods of {CONTROL} left", lambda: not control())
        gone_s = time.monotonic() - begun_s
        deployed.wait_condition("Ready")
        see(winners.keys() <= _pods_of(deployed, TREATMENT).keys(), "pods of the winner were replaced")
        see(_templates(deployed) <= templates, "pods of another template were started")
    see(gone_s > KEPT_S, f"pods of {CONTROL} went after {gone_s:.1f} s; keepPrevious is {KEPT_S} s")
    text = f"“{told}”: all of it after {whole_s:.1f} s; {CONTROL}'s pods gone {gone_s:.0f} s after the command"
    return Seen(text, {"whole_s": round(whole_s, 1), "gone_s": round(gone_s, 1), "keep_previous_s": KEPT_S})


def split_again(scene: Scene) -> Seen:
    """Split traffic again, by an experiment of another id and with two pods per variant, for what comes next."""
    with scene.deployed() as deployed:
        spec = spec_of(MANIFEST)
        variants = [{**one, "scaling": {"minReplicas": PODS, "maxReplicas": PODS}} for one in spec["variants"]]
        rollout = {"strategy": "Manual", "weights": {TREATMENT: HIGH}, "keepPrevious": "1s"}
        experiment = {"id": fresh_id("faults")}
        give(deployed, {**spec, "variants": variants, "rollout": rollout, "experiment": experiment})
        scene.wait("split", lambda: said(deployed), lambda: deployed.weights_bp().get(TREATMENT) == HIGH * 100)
        scene.wait("split", lambda: said(deployed), lambda: len(ready_pods(deployed)) == len(variants) * PODS)
        deployed.wait_condition("Ready")
        shares = f"{CONTROL} {100 - HIGH} %, {TREATMENT} {HIGH} %"
        return Seen(f"{shares}, {PODS} pods each, experiment {experiment['id']}", {"pods": len(deployed.pods())})


def ready_pods(deployed: Deployed) -> dict[str, dict[str, Any]]:
    """Return a deployment's pods that are ready, by uid."""
    return {uid: pod for uid, pod in deployed.pods().items() if is_ready(pod)}


def is_ready(pod: dict[str, Any]) -> bool:
    """Return whether a pod is ready."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _write_down(scene: Scene, deployed: Deployed) -> None:
    """Have the command line write the winner into a copy of the manifest, and take the loser out of it."""
    copied = scene.folder / MANIFEST.name
    copied.parent.mkdir(parents=True, exist_ok=True)
    copied.write_text(MANIFEST.read_text())
    scene.fairlead("promote", "-f", str(copied), TREATMENT)
    spec = spec_of(copied)
    (winner,) = (one for one in spec["variants"] if one["name"] == TREATMENT)
    see(winner["role"] == "Control", f"{copied}: {TREATMENT} is {winner['role']}")
    give(deployed, {**spec, "variants": [winner]})


def spec_of(path: Path) -> dict[str, Any]:
    """Return the spec of a manifest."""
    spec: dict[str, Any] = yaml.safe_load(path.read_text())["spec"]
    return spec


def give(deployed: Deployed, spec: Mapping[str, Any]) -> None:
    """Make a deployment's spec this one."""
    deployed.patch(**change_to(deployed.resource()["spec"], spec))


def change_to(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes ``live`` what is ``wanted``; what the API filled in stays."""
    change: dict[str, Any] = dict.fromkeys(live.keys() - wanted.keys() - {"serving", "modelName"})
    for name, value in wanted.items():
        before = live.get(name)
        nested = isinstance(value, dict) and isinstance(before, dict)
        change[name] = change_to(before, value) if nested else value  # type: ignore[arg-type]  # both are objects
    return change


def fresh_id(word: str) -> str:
    """Return an id that no experiment has had."""
    return f"{word}-{time.time():.0f}"


def _progress(deployed: Deployed) -> str:
    return str(deployed.condition("Progressing").get("reason"))


def _pods_of(deployed: Deployed, variant: str) -> dict[str, Any]:
    pods = deployed.pods().items()
    return {name: pod for name, pod in pods if pod["metadata"]["labels"].get(VARIANT_LABEL) == variant}


def _templates(deployed: Deployed) -> set[str]:
    """Return the hashes of the templates that pods are of."""
    return {pod["metadata"]["labels"]["pod-template-hash"] for pod in deployed.pods().values()}


def _weigh(deployed: Deployed, weight: int) -> None:
    deployed.patch(rollout={"strategy": "Manual", "weights": {TREATMENT: weight}})
    deployed.wait_weights(**{TREATMENT: weight})
