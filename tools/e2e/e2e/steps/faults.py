"""What a deployment under load must survive: each request is answered once, by its arm, and counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from e2e.clusters import Component
from e2e.errors import see
from e2e.scene import CONTROL, DEPLOYMENT, FLIGHTS, SYSTEM, TREATMENT, VERSION, Scene, said
from e2e.steps.install import OPERATOR
from e2e.steps.rollout import HIGH, PODS, is_ready, ready_pods
from e2e.story import Seen
from e2e.trial import pods_of, trial
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT as APPS_DEPLOYMENT
from fairlead_operator.platforms.kubernetes.kinds import LEASE, POD, VARIANT_LABEL
from support.cluster import wait_for
from support.cluster_api import ClusterApi
from support.cluster_deployed import Deployed

CHANGES = 10
LOW = 20
_KEEPS_READY = (1, 35)
"""Kubernetes whose kubelet leaves its pods ready when it starts."""
_GAP_S = 5.0
"""For how long one before may have none that is ready."""
OPERATOR_SELECTOR = "app.kubernetes.io/component=operator"


def weights(scene: Scene) -> Seen:
    """Change the weight ten times."""
    with scene.deployed() as deployed:
        _begin(deployed)
        with trial(scene, deployed) as running:
            lags_s = [running.weigh(LOW if number % 2 == 0 else HIGH) for number in range(CHANGES)]
        worst_s, median_s = max(lags_s), sorted(lags_s)[len(lags_s) // 2]
    return running.seen(
        f"{CHANGES} changes, followed after {median_s:.2f} s (slowest {worst_s:.2f})",
        changes=CHANGES,
        followed_median_s=round(median_s, 2),
        followed_worst_s=round(worst_s, 2),
    )


def pods(scene: Scene) -> Seen:
    """Delete every model pod, one after the other."""
    with scene.deployed() as deployed:
        before = deployed.pods()
        with trial(scene, deployed) as running:
            replaced_s = [_replace(scene, deployed, pod, len(before)) for pod in before.values()]
        see(not before.keys() & deployed.pods().keys(), "a deleted pod is still there")
    return running.seen(
        f"{len(before)} pods deleted, each replaced within {max(replaced_s):.0f} s",
        pods=len(before),
        replaced_s=round(max(replaced_s), 1),
    )


def operator(scene: Scene) -> Seen:
    """Delete the operator's pods; the new ones take over and weight moves again."""
    with scene.deployed() as deployed, scene.api() as api:
        _begin(deployed)
        same = pods_of(deployed)
        held = holder(api)
        with trial(scene, deployed) as running:
            begun_s = time.monotonic()
            scene.kubectl("delete", "pods", f"--namespace={SYSTEM}", f"--selector={OPERATOR_SELECTOR}", "--wait=false")
            wait_for(lambda: holder(api) not in {held, ""}, timeout_s=90, otherwise=lambda: scene.facts.story(SYSTEM))
            led_s = time.monotonic() - begun_s
            followed_s = running.weigh(LOW)
            running.weigh(HIGH)
        wait_operator(scene)
        see(pods_of(deployed) == same, "model pods were replaced")
    return running.seen(
        f"another leads {led_s:.0f} s later, and its first change is followed in {followed_s:.2f} s; same model pods",
        led_s=round(led_s, 1),
    )


def istiod(scene: Scene) -> Seen:
    """Restart istiod."""
    return _restart(scene, Component.ISTIOD)


def kserve(scene: Scene) -> Seen:
    """Restart KServe's controller; afterwards it takes up what changes."""

    def follows(deployed: Deployed) -> None:
        _scale(scene, deployed, PODS + 1)

    try:
        return _restart(scene, Component.KSERVE, works=follows)
    finally:
        with scene.deployed() as deployed:
            _scale(scene, deployed, PODS)


def kubelet(scene: Scene) -> Seen:
    """Restart the kubelet; pods are not.

    Before 1.35 a kubelet that starts takes its pods out of every Service until their probes were asked anew; on a
    single node that is all pods, and no gateway can help.
    """
    version = json.loads(scene.kubectl("version", "--output=json"))["serverVersion"]
    keeps_ready = (int(version["major"]), int(version["minor"])) >= _KEEPS_READY
    return _restart(scene, Component.KUBELET, gap_s=0.0 if keeps_ready else _GAP_S)


def upgrade(scene: Scene) -> Seen:
    """Move the servers to another release by command."""
    with scene.deployed() as deployed:
        # What an experiment compares is frozen, the server release with it.
        deployed.patch(experiment=None)
        deployed.wait_condition("Ready")
        before = deployed.pods()
        with trial(scene, deployed) as running:
            begun_s = time.monotonic()
            told = scene.fairlead("upgrade", DEPLOYMENT, "-n", FLIGHTS, "--to", VERSION).splitlines()[0]
            scene.wait("upgrade", lambda: said(deployed), lambda: _runs(deployed, VERSION))
            deployed.wait_condition("Ready")
            took_s = time.monotonic() - begun_s
            scene.wait("upgrade", lambda: "end of the pods before", lambda: not before.keys() & deployed.pods().keys())
    return running.seen(f"“{told}”; pods of {VERSION} serve after {took_s:.0f} s", upgraded_s=round(took_s, 1))


def _restart(
    scene: Scene, component: Component, *, gap_s: float = 0.0, works: Callable[[Deployed], None] | None = None
) -> Seen:
    """Restart a component, and see that weight moves and, by ``works``, that it does its own work again."""
    with scene.deployed() as deployed:
        _begin(deployed)
        same, restarts = pods_of(deployed), _restarts(deployed)
        with trial(scene, deployed) as running:
            begun_s = time.monotonic()
            scene.cluster.restart(component)
            took_s = time.monotonic() - begun_s
            followed_s = running.weigh(LOW)
            running.weigh(HIGH)
            if works:
                works(deployed)
        deployed.wait_condition("Ready")
        now = pods_of(deployed)
        see(same <= now if works else same == now, "model pods were replaced")
        see(_restarts(deployed) == restarts, "containers were restarted")
    return running.seen(
        f"back in {took_s:.1f} s, a change is followed in {followed_s:.2f} s; same pods",
        gap_s=gap_s,
        restarted_s=round(took_s, 1),
        followed_s=round(followed_s, 2),
    )


def _begin(deployed: Deployed) -> None:
    """Give the weight that a step changes; it has it, unless the step before failed."""
    deployed.patch(rollout={"strategy": "Manual", "weights": {TREATMENT: HIGH}})
    deployed.wait_weights(**{TREATMENT: HIGH})


def _scale(scene: Scene, deployed: Deployed, pods: int) -> None:
    """Ask for so many pods of the treatment, and wait until KServe's Deployment has them."""
    variants = deployed.resource()["spec"]["variants"]
    scaling = {"minReplicas": pods, "maxReplicas": pods}
    deployed.patch(variants=[{**one, "scaling": scaling} if one["name"] == TREATMENT else one for one in variants])

    def has() -> list[tuple[int, int]]:
        found = deployed.api.items(APPS_DEPLOYMENT, FLIGHTS, **{VARIANT_LABEL.replace("/", "__"): TREATMENT})
        return [(one["spec"]["replicas"], one["status"].get("availableReplicas", 0)) for one in found]

    scene.wait("kserve", lambda: f"{TREATMENT} has {has()} pods of {pods}", lambda: has() == [(pods, pods)])
    deployed.wait_condition("Ready")


def _replace(scene: Scene, deployed: Deployed, pod: dict[str, Any], count: int) -> float:
    """Delete a pod, and wait until as many are ready as there were; return the seconds."""
    begun_s, uid, name = time.monotonic(), pod["metadata"]["uid"], pod["metadata"]["name"]
    deployed.api.delete(POD, FLIGHTS, name)

    def whole() -> bool:
        ready = ready_pods(deployed)
        return uid not in ready and len(ready) == count

    scene.wait("pods", lambda: f"another pod for {name}", whole)
    deployed.wait_condition("Ready")
    return time.monotonic() - begun_s


def _runs(deployed: Deployed, release: str) -> bool:
    """Return whether every variant in the route runs a server of a release."""
    found = [pod for pod in deployed.pods().values() if is_ready(pod)]
    new = [pod for pod in found if any(one["image"].endswith(f":{release}") for one in pod["spec"]["containers"])]
    return len(new) >= len(deployed.weights_bp()) and CONTROL in "".join(pod["metadata"]["name"] for pod in new)


def _restarts(deployed: Deployed) -> int:
    statuses = (one for pod in deployed.pods().values() for one in pod["status"].get("containerStatuses", []))
    return sum(int(one["restartCount"]) for one in statuses)


def holder(api: ClusterApi) -> str:
    """Return which operator leads."""
    lease = api.find(LEASE, SYSTEM, OPERATOR)
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


def wait_operator(scene: Scene) -> None:
    """Return once every pod of the operator is as its Deployment asks."""
    scene.kubectl("rollout", "status", f"deployment/{OPERATOR}", f"--namespace={SYSTEM}", "--timeout=90s")
