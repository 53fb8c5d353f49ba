"""What whoever runs a cluster does: look after it, upgrade, uninstall."""

from __future__ import annotations

import json
import re
import time

from e2e.errors import see
from e2e.helm import CHARTS
from e2e.scene import DEPLOYMENT, FLIGHT, FLIGHTS, NAMESPACES, SYSTEM, TREATMENT, VERSION, Scene, said
from e2e.steps.faults import holder, wait_operator
from e2e.steps.install import CRDS_RELEASE, EARLIER, RELEASE, values
from e2e.steps.rollout import HIGH, LOW
from e2e.story import Seen
from e2e.trial import pods_of, trial
from fairlead_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT, NAMESPACE
from support.cluster_deployed import Deployed

CRD = "modeldeployments.serving.fairlead.dev"
_ENFORCE = "pod-security.kubernetes.io/enforce"
_VERSION = f"{_ENFORCE}-version"
_LATEST, _PINNED = "latest", "v1.34"
_PAUSED = "Paused"


def doctor(scene: Scene) -> Seen:
    """Let the command line look at the whole installation."""
    told = scene.fairlead("doctor", "-n", FLIGHTS, timeout_s=120)
    return Seen(f"green: {told.strip().splitlines()[-1].strip()}")


def commands(scene: Scene) -> Seen:
    """Use the command line on the cluster, and as kubectl's plugin."""
    status = scene.fairlead("status", DEPLOYMENT, "-n", FLIGHTS)
    see(TREATMENT in status, status)
    answer = scene.fairlead(
        "predict", DEPLOYMENT, "-n", FLIGHTS, "--unit-from", "tailnum", "--data", json.dumps(dict(FLIGHT))
    )
    see('"status": 200' in answer, answer)
    plugin = scene.run("kubectl", "fairlead", "status", DEPLOYMENT, "-n", FLIGHTS)
    see(TREATMENT in plugin, plugin)
    with scene.deployed() as deployed:
        scene.fairlead("pause", DEPLOYMENT, "-n", FLIGHTS)
        scene.wait("commands", lambda: said(deployed), lambda: _is_paused(deployed))
        scene.fairlead("resume", DEPLOYMENT, "-n", FLIGHTS)
        scene.wait("commands", lambda: said(deployed), lambda: not _is_paused(deployed))
    return Seen("status, predict, pause, resume, and kubectl fairlead status say what they should")


def restricted(scene: Scene) -> Seen:
    """Have the API server check every pod against the restricted standard, in namespaces that enforce it."""
    ingress = scene.facts.gateway.namespace
    pods = 0
    with scene.api() as api:
        for name in (*NAMESPACES, ingress):
            labels = api.get(NAMESPACE, None, name)["metadata"]["labels"]
            see(labels.get(_ENFORCE) == "restricted", f"namespace {name} enforces {labels.get(_ENFORCE)}")
            found = scene.facts.get("pods", namespace=name)["items"]
            see(found, f"namespace {name} has no pod to check")
            pods += len(found)
            warned = _would_warn(scene, name, _LATEST if labels.get(_VERSION, _LATEST) != _LATEST else _PINNED)
            see(not warned, f"pods of {name} are not restricted: {warned}")
    where = ", ".join((*NAMESPACES, ingress))
    return Seen(f"{pods} pods in {where}: none breaks the restricted standard", {"pods": pods})


def upgrade(scene: Scene) -> Seen:
    """Upgrade both charts to the present version, under load: no model pod is replaced, the Lease is handed over."""
    with scene.deployed() as deployed, scene.api() as api:
        before, held = pods_of(deployed), holder(api)
        with trial(scene, deployed) as running:
            begun_s = time.monotonic()
            scene.helm.upgrade(CRDS_RELEASE, CHARTS / CRDS_RELEASE, {})
            scene.helm.upgrade(RELEASE, CHARTS / RELEASE, values(VERSION))
            wait_operator(scene)
            scene.wait("upgrade-chart", lambda: f"{held} still leads", lambda: holder(api) not in {held, ""})
            took_s = time.monotonic() - begun_s
            deployed.wait_condition("Ready")
            running.go_on(3)
        see(pods_of(deployed) == before, "model pods were replaced")
        release = api.get(MODEL_DEPLOYMENT, FLIGHTS, DEPLOYMENT)["status"]["servingRelease"]
        see(release == EARLIER, f"the server release has moved to {release}")
    charts = ", ".join(sorted(scene.helm.releases().values()))
    return running.seen(
        f"{charts} after {took_s:.0f} s, the same {len(before)} model pods (server {release}), another operator leads",
        upgrade_s=round(took_s, 1),
    )


def uninstall(scene: Scene) -> Seen:
    """Uninstall the operator under load: CRDs, ModelDeployments and models stay."""
    with scene.deployed() as deployed:
        before = pods_of(deployed)
        with trial(scene, deployed) as running:
            scene.helm.uninstall(RELEASE)
            scene.wait("uninstall", lambda: "end of the operator's pods", lambda: not _operators(scene))
            running.go_on(3)
        see(pods_of(deployed) == before, "model pods were replaced")
    scene.kubectl("get", f"crd/{CRD}", "--output=name")
    return running.seen(f"no operator, {CRD} and {len(before)} model pods are as before")


def reinstall(scene: Scene) -> Seen:
    """Install the operator again: it takes up what is there and replaces nothing."""
    with scene.deployed() as deployed, scene.api() as api:
        before, held = pods_of(deployed), holder(api)
        scene.helm.install(RELEASE, CHARTS / RELEASE, values(VERSION))
        scene.wait("reinstall", lambda: "nobody leads yet", lambda: holder(api) not in {held, ""})
        was = deployed.weights_bp().get(TREATMENT, 0) // 100
        weight = LOW if was != LOW else HIGH
        deployed.patch(rollout={"strategy": "Manual", "weights": {TREATMENT: weight}})
        deployed.wait_weights(**{TREATMENT: weight})
        deployed.wait_condition("Servable")
        wait_operator(scene)
        see(pods_of(deployed) == before, "model pods were replaced")
    text = f"the operator leads again and takes {TREATMENT} from {was} to {weight} %, the same {len(before)} model pods"
    return Seen(text, {"weight": weight})


def _is_paused(deployed: Deployed) -> bool:
    return deployed.condition("Progressing").get("reason") == _PAUSED


def _operators(scene: Scene) -> list[object]:
    found: list[object] = scene.facts.get("pods", namespace=SYSTEM, selector="app.kubernetes.io/component=operator")[
        "items"
    ]
    return found


def _would_warn(scene: Scene, namespace: str, version: str) -> str:
    """Return what the API server has to say against the pods of a namespace under the restricted standard.

    It looks at the pods that are there when a namespace's standard changes, of which another version of it is enough,
    and a try that writes nothing.
    """
    words = ("label", "namespace", namespace, "--overwrite", "--dry-run=server", f"{_VERSION}={version}")
    done = scene.run.end_of(scene.facts.programs["kubectl"], *words)
    see(not done.code, done.told)
    return " ".join(re.findall(r"^Warning: (.*)$", done.errors, re.MULTILINE))
