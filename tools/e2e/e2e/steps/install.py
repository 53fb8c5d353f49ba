"""From a bare cluster to the first prediction."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus

import httpx

from e2e.errors import see
from e2e.programs import ROOT
from e2e.scene import (
    DEPLOYMENT,
    FLIGHT,
    FLIGHTS,
    NAMESPACES,
    SYSTEM,
    VERSION,
    Scene,
    host_of,
    is_ours,
    said,
)
from e2e.story import Seen
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT_LABEL, MODEL_DEPLOYMENT, NAMESPACE, SECRET
from support.cluster_api import ClusterApi
from support.cluster_deployed import Deployed

EARLIER = "0.0.9"
"""Version that the present charts, operator and server are installed as first, and upgraded from."""
RELEASE, CRDS_RELEASE = "fairlead", "fairlead-crds"
OPERATOR = "fairlead-operator"
MANIFESTS = ROOT / "examples/flights/cluster"
STORE_SECRET = "feast-redis"  # noqa: S105 -- its name
FIRST_PREDICTION_S = 180.0
_BEGAN = "install_began_s"


def cluster(scene: Scene) -> Seen:
    """Bring the cluster up."""
    return Seen(scene.cluster.up())


def fresh(scene: Scene) -> Seen:
    """Remove what an earlier run left in a cluster that was kept."""
    removed = []
    with scene.api() as api:
        ours = [name for name in NAMESPACES if (found := api.find(NAMESPACE, None, name)) and is_ours(found)]
        if SYSTEM in ours and scene.helm.releases().keys() & {RELEASE, CRDS_RELEASE}:
            _retire(scene)
            removed += [scene.helm.uninstall(release).strip() for release in (RELEASE, CRDS_RELEASE)]
        for name in ours:
            api.delete(NAMESPACE, None, name)
        left = partial(_left, api, ours)
        scene.wait("fresh", lambda: f"end of {', '.join(left())}", lambda: not left())
    return Seen(f"removed {', '.join(ours)}" if ours else "nothing was there", {"removed": len(removed) + len(ours)})


def install(scene: Scene) -> Seen:
    """Install both charts, as the version before, with the bundled Redis."""
    scene.make_namespace(SYSTEM)
    for image in ("operator", "server"):
        scene.cluster.tag(f"fairlead.local/{image}:{VERSION}", f"fairlead.local/{image}:{EARLIER}")
    charts = {name: scene.helm.package(name, EARLIER, scene.folder / "charts") for name in (CRDS_RELEASE, RELEASE)}
    scene.notes[_BEGAN] = time.time()
    begun_s = time.monotonic()
    scene.helm.install(CRDS_RELEASE, charts[CRDS_RELEASE], {})
    said_ = scene.helm.install(RELEASE, charts[RELEASE], values(EARLIER))
    took_s = time.monotonic() - begun_s
    see("kubectl apply -f" in said_, f"the chart's notes do not say how to serve a model:\n{said_}")
    pods = scene.facts.get("pods", namespace=SYSTEM)["items"]
    return Seen(
        f"{', '.join(sorted(scene.helm.releases().values()))}: {len(pods)} pods in {took_s:.0f} s",
        {"install_s": round(took_s, 1), "pods": len(pods)},
    )


def values(version: str) -> dict[str, object]:
    """Return the values of a release whose operator and servers are of a version."""
    return {
        "operator.image.tag": version,
        "operator.settings.defaultRelease": version,
        "redis.enabled": True,
        "redis.image.tag": VERSION,
    }


def helm_test(scene: Scene) -> Seen:
    """Run the chart's own tests."""
    told = scene.helm.test(RELEASE)
    phases = re.findall(r"^Phase:\s+(\S+)", told, re.MULTILINE)
    see(phases and set(phases) == {"Succeeded"}, told)
    return Seen(f"{len(phases)} tests of the chart succeeded", {"tests": len(phases)})


def flights(scene: Scene) -> Seen:
    """Apply the flights example and wait for both variants, and for the first prediction."""
    scene.make_namespace(FLIGHTS, {"serving.fairlead.dev/redis": "true"})
    scene.kubectl("apply", "--server-side", f"--filename={MANIFESTS}")
    _make_store_secret(scene)
    with scene.deployed() as deployed:
        scene.wait("flights", lambda: said(deployed), lambda: _answers(scene, deployed))
        first_s = time.time() - float(scene.notes[_BEGAN])
        scene.wait(
            "flights", lambda: said(deployed), lambda: deployed.condition("VariantsReady").get("status") == "True"
        )
        deployed.wait_condition("Ready")
        listed = scene.kubectl("get", "mdep", f"--namespace={FLIGHTS}", "--no-headers").split()
        variants = {one["name"]: one for one in deployed.status()["variants"]}
    see(first_s < FIRST_PREDICTION_S, f"first prediction {first_s:.0f} s after helm install began")
    ready = ", ".join(f"{name} {one['weight']}%" for name, one in variants.items())
    figures = {"first_prediction_s": round(first_s, 1)}
    return Seen(f"first prediction {first_s:.0f} s after helm install began; {' '.join(listed[:3])}: {ready}", figures)


def delete_flights(scene: Scene) -> Seen:
    """Delete the ModelDeployments, with an operator to take their routes along."""
    names = _retire(scene)
    gone = scene.kubectl("get", "virtualservices,inferenceservices", f"--namespace={FLIGHTS}", "--output=name").split()
    see(not gone, f"left behind: {', '.join(gone)}")
    return Seen(f"{', '.join(names)} deleted, and with it every route and pod of it")


def _retire(scene: Scene) -> list[str]:
    """Delete every ModelDeployment of the run's namespaces and wait until it is gone."""
    with scene.api() as api:
        names = [one["metadata"]["name"] for one in api.items(MODEL_DEPLOYMENT, FLIGHTS)]
        for name in names:
            api.delete(MODEL_DEPLOYMENT, FLIGHTS, name)
        scene.wait("delete", lambda: f"end of {', '.join(names)}", lambda: not api.items(MODEL_DEPLOYMENT, FLIGHTS))
        scene.wait("delete", lambda: f"{_model_pods(scene)} pods end", lambda: not _model_pods(scene))
    return names


def _left(api: ClusterApi, namespaces: Iterable[str]) -> list[str]:
    return [name for name in namespaces if api.find(NAMESPACE, None, name)]


def _model_pods(scene: Scene) -> int:
    return len(scene.facts.get("pods", namespace=FLIGHTS, selector=DEPLOYMENT_LABEL)["items"])


def _make_store_secret(scene: Scene) -> None:
    """Give the flights the password of the bundled Redis, as the example's documentation says."""
    with scene.api() as api:
        found = api.get(SECRET, SYSTEM, "fairlead-redis")
        password = base64.b64decode(found["data"]["password"]).decode()
        api.apply(
            SECRET,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": STORE_SECRET, "namespace": FLIGHTS},
                "stringData": {"REDIS_ADDRESS": f"fairlead-redis.{SYSTEM}:6379", "REDIS_PASSWORD": password},
            },
        )


def _answers(scene: Scene, deployed: Deployed) -> bool:
    """Return whether the gateway answers with a prediction."""
    if not deployed.status().get("url"):
        return False
    url = f"http://{scene.facts.gateway.address}/v1/models/{DEPLOYMENT}:predict"
    headers = {"host": host_of(deployed), "x-unit-id": "N14228"}
    try:
        answer = httpx.post(url, json={"instances": [FLIGHT]}, headers=headers, trust_env=False, timeout=10)
    except httpx.TransportError:
        return False
    return answer.status_code == HTTPStatus.OK and "predictions" in answer.json()
