"""What runs Deployments: their controller, that of ReplicaSets, the autoscaler, and a node that never fills up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import orjson

from fairlead.clock import from_us
from support.kube.cluster import Cluster
from support.kube.fates import Fate, pod_status
from support.kube.patches import merge_patch
from support.kube.store import Object

_HASH = "pod-template-hash"
_MANAGER = "kube-controller-manager"
_PROGRESS_DEADLINE_S = 600.0


class Workloads:
    """Moves Deployments of a cluster one step towards what they ask for, each time it is asked to."""

    def __init__(self, cluster: Cluster, fate_of: Callable[[Object], Fate]) -> None:
        """Run the Deployments of ``cluster``; ``fate_of`` a pod says what becomes of it."""
        self._cluster = cluster
        self._fate_of = fate_of
        self.wanted: dict[str, int] = {}
        """Replicas that the load would need, by the name of the autoscaler."""

    def step(self) -> None:
        """Let every controller look once."""
        for autoscaler in self._cluster.objects("HorizontalPodAutoscaler"):
            self._scale(autoscaler)
        for deployment in self._cluster.objects("Deployment"):
            if "deletionTimestamp" not in deployment["metadata"]:
                self._roll(deployment)
        for pod in self._cluster.objects("Pod"):
            self._live(pod)
        for deployment in self._cluster.objects("Deployment"):
            self._report(deployment)

    def _scale(self, autoscaler: Object) -> None:
        spec, (namespace, name) = autoscaler["spec"], _place(autoscaler)
        target = self._cluster.get("Deployment", namespace, spec["scaleTargetRef"]["name"])
        if target:
            load = self.wanted.get(name, target["spec"]["replicas"])
            replicas = min(max(load, spec.get("minReplicas", 1)), spec["maxReplicas"])
            self._patch(target, {"spec": {"replicas": replicas}}, "horizontal-pod-autoscaler")

    def _roll(self, deployment: Object) -> None:
        """Bring up the pods of the newest template; take down those of older ones once all new ones are available."""
        current = self._replica_set(deployment)
        new = self._pods_of(current)
        replicas = deployment["spec"]["replicas"]
        for _ in range(replicas - len(new)):
            self._create_pod(current)
        for pod in sorted(new, key=_is_ready)[: max(len(new) - replicas, 0)]:
            self._cluster.delete("Pod", *_place(pod), manager=_MANAGER)
        if sum(_is_ready(pod) for pod in new) >= replicas:
            for pod in self._all_pods_of(deployment):
                if pod["metadata"]["labels"][_HASH] != current["metadata"]["labels"][_HASH]:
                    self._cluster.delete("Pod", *_place(pod), manager=_MANAGER)

    def _replica_set(self, deployment: Object) -> Object:
        template = deployment["spec"]["template"]
        digest = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]
        namespace, name = _place(deployment)
        found = self._cluster.get("ReplicaSet", namespace, f"{name}-{digest}")
        if found:
            self._patch(found, {"spec": {"replicas": deployment["spec"]["replicas"]}}, _MANAGER)
            return found
        labels = {**template["metadata"].get("labels", {}), _HASH: digest}
        value = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": owned(deployment, f"{name}-{digest}") | {"labels": labels},
            "spec": {
                "replicas": deployment["spec"]["replicas"],
                "selector": {"matchLabels": labels},
                "template": template | {"metadata": {**template["metadata"], "labels": labels}},
            },
        }
        return self._cluster.create(value, manager=_MANAGER)

    def _create_pod(self, replica_set: Object) -> None:
        template = replica_set["spec"]["template"]
        metadata = owned(replica_set, "") | template["metadata"]
        del metadata["name"]
        metadata["generateName"] = f"{replica_set['metadata']['name']}-"
        value = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self._cluster.create(value, manager=_MANAGER)

    def _live(self, pod: Object) -> None:
        if pod.get("status", {}).get("phase") == "Failed":
            return
        age_s = self._age_s(pod)
        status = pod_status(pod, self._fate_of(pod), age_s, pod["metadata"]["creationTimestamp"])
        self._set_status(pod, status, "kubelet")

    def _report(self, deployment: Object) -> None:
        replicas = deployment["spec"]["replicas"]
        current = self._replica_set(deployment)
        new, everyone = self._pods_of(current), self._all_pods_of(deployment)
        ready = [pod for pod in everyone if _is_ready(pod)]
        is_complete = len(new) == len(everyone) == len(ready) == replicas
        late = self._age_s(current) > _PROGRESS_DEADLINE_S and not is_complete
        reason = "NewReplicaSetAvailable" if is_complete else "ReplicaSetUpdated"
        available = len(ready) >= replicas
        enough = "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable"
        status: Object = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(everyone),
            "updatedReplicas": len(new),
            "readyReplicas": len(ready),
            "availableReplicas": len(ready),
            "unavailableReplicas": max(replicas - len(ready), 0),
            "conditions": [
                _condition("Available", enough, holds=available),
                _condition("Progressing", "ProgressDeadlineExceeded" if late else reason, holds=not late),
            ],
        }
        kept = {name: part for name, part in status.items() if part != 0 or name == "observedGeneration"}
        self._set_status(deployment, kept, _MANAGER)

    def _pods_of(self, owner: Object) -> list[Object]:
        """Return the pods of a ReplicaSet that are not lost."""
        return [
            pod
            for pod in self._cluster.dependents(owner, "Pod")
            if pod.get("status", {}).get("phase") not in {"Failed", "Succeeded"}
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def _all_pods_of(self, deployment: Object) -> list[Object]:
        replica_sets = self._cluster.dependents(deployment, "ReplicaSet")
        return [pod for replica_set in replica_sets for pod in self._pods_of(replica_set)]

    def _age_s(self, value: Object) -> float:
        born = value["metadata"]["creationTimestamp"]
        now = from_us(self._cluster.clock.now_us())
        return (now - now.fromisoformat(born.replace("Z", "+00:00"))).total_seconds()

    def _patch(self, value: Object, patch: Object, manager: str) -> None:
        if merge_patch(value, patch) != value:
            self._cluster.patch(value["kind"], *_place(value), patch, manager=manager)

    def _set_status(self, value: Object, status: Object, manager: str) -> None:
        if value.get("status") != status:
            self._cluster.set_status(value["kind"], *_place(value), status, manager=manager)


def owned(owner: Object, name: str) -> Object:
    """Return the metadata of a thing that ``owner`` controls."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"name": name, "namespace": owner["metadata"]["namespace"], "ownerReferences": [reference]}


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _condition(sort: str, reason: str, *, holds: bool) -> Object:
    return {"type": sort, "status": str(holds), "reason": reason}


def _place(value: Object) -> tuple[str, str]:
    return value["metadata"]["namespace"], value["metadata"]["name"]
