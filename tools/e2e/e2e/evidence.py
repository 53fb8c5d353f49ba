"""What is kept of a cluster in which something failed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from e2e.clusters import Cluster
from support.cluster import KubectlError

_TAIL = "--tail=2000"


def collect(cluster: Cluster, namespaces: Iterable[str], folder: Path) -> None:
    """Write objects, events, what pods that are not ready say, and logs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    kubectl = cluster.facts.kubectl
    _keep(folder / "all.txt", lambda: kubectl("get", "all", "--all-namespaces", "--output=wide"))
    _keep(folder / "events.txt", lambda: kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"))
    kinds = "modeldeployments,inferenceservices,virtualservices,envoyfilters,servingruntimes,hpa"
    _keep(folder / "objects.yaml", lambda: kubectl("get", kinds, "--all-namespaces", "--output=yaml"))
    for namespace in namespaces:
        _keep(folder / f"{namespace}.logs.txt", lambda one=namespace: _logs(cluster, one))
        _keep(folder / f"{namespace}.not-ready.txt", lambda one=namespace: _described(cluster, one))
    cluster.collect(folder)


def _keep(path: Path, read: Any) -> None:
    try:
        path.write_text(read())
    except (KubectlError, OSError, TimeoutError) as error:
        path.write_text(f"could not be had: {error}\n")


def _logs(cluster: Cluster, namespace: str) -> str:
    told = []
    for pod in cluster.facts.get("pods", namespace=namespace)["items"]:
        name = pod["metadata"]["name"]
        for which in ((), ("--previous",)):
            words = ("logs", name, f"--namespace={namespace}", "--all-containers", "--prefix", _TAIL, *which)
            try:
                told.append(f"=== {name} {' '.join(which)}\n{cluster.facts.kubectl(*words)}")
            except KubectlError:
                continue
    return "\n".join(told)


def _described(cluster: Cluster, namespace: str) -> str:
    pods = cluster.facts.get("pods", namespace=namespace)["items"]
    names = [pod["metadata"]["name"] for pod in pods if not _is_ready(pod)]
    told = [cluster.facts.kubectl("describe", "pod", name, f"--namespace={namespace}") for name in names]
    return "\n".join(told)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
