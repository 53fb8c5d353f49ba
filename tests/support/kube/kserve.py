"""KServe's controller as far as Fairlead meets it: Standard mode, cluster-local, one predictor.

Its status keeps KServe's traps: ``observedGeneration`` is the Deployment's; a revision that never comes up is Ready
while an older pod lives; a crash of the model server leaves ``InProgress`` for ever, for the controller is not told
of it; ``lastFailureInfo`` outlives the failure.
"""

from __future__ import annotations

from typing import Any

from support.kube.cluster import Cluster
from support.kube.fates import INITIALIZER, MODEL_CONTAINER
from support.kube.patches import merge_patch
from support.kube.store import Object
from support.kube.workloads import owned

_FINALIZER = "inferenceservice.finalizers"
_MANAGER = "kserve-manager"
_STOP = "serving.kserve.io/stop"
_AUTOSCALER = "serving.kserve.io/autoscalerClass"


class KServe:
    """Moves InferenceServices one step towards what they ask for, each time it is asked to."""

    def __init__(self, cluster: Cluster) -> None:
        """Control the InferenceServices of ``cluster``."""
        self._cluster = cluster
        self.is_up = True
        """Whether the controller runs; while it does not, nothing of it happens, and deleted services stay."""

    def step(self) -> None:
        """Look at every InferenceService once."""
        for service in self._cluster.objects("InferenceService") if self.is_up else ():
            self._reconcile(service)

    def _reconcile(self, service: Object) -> None:
        meta, place = service["metadata"], _place(service)
        if "deletionTimestamp" in meta:
            self._hold(service, [one for one in meta.get("finalizers", ()) if one != _FINALIZER])
            return
        if _FINALIZER not in meta.get("finalizers", ()):
            self._hold(service, [*meta.get("finalizers", ()), _FINALIZER])
        runtime = self._runtime(service)
        if meta.get("annotations", {}).get(_STOP) == "true":
            for kind in ("Deployment", "Service", "HorizontalPodAutoscaler"):
                self._cluster.delete(kind, place[0], f"{place[1]}-predictor", manager=_MANAGER)
            self._report(service, _stopped())
        elif runtime is None:
            self._report(service, _runtime_not_recognized(service))
        else:
            for value in _children(service, runtime):
                self._keep(value)
            deployment = self._cluster.get("Deployment", place[0], f"{place[1]}-predictor")
            if deployment:
                self._report(service, self._status(service, deployment))

    def _runtime(self, service: Object) -> Object | None:
        predictor = service["spec"]["predictor"]
        if "model" not in predictor:
            return {"spec": {"containers": predictor["containers"]}}
        name, namespace = predictor["model"].get("runtime", ""), service["metadata"]["namespace"]
        found = self._cluster.get("ServingRuntime", namespace, name)
        return found or self._cluster.get("ClusterServingRuntime", "", name)

    def _keep(self, value: Object) -> None:
        """Make a child, or put right what differs; replicas belong to the autoscaler once the Deployment is there."""
        live = self._cluster.get(value["kind"], *_place(value))
        if live is None:
            self._cluster.create(value, manager=_MANAGER)
            return
        spec = dict(value["spec"])
        if value["kind"] == "Deployment" and "replicas" in spec and not _is_fixed(value):
            del spec["replicas"]
        wanted = {name: value["metadata"].get(name, {}) for name in ("labels", "annotations")}
        patch: Object = {"metadata": wanted, "spec": spec}
        if merge_patch(live, patch) != live:
            self._cluster.patch(value["kind"], *_place(value), patch, manager=_MANAGER)

    def _status(self, service: Object, deployment: Object) -> Object:
        old, (namespace, name) = service.get("status", {}), _place(service)
        available = int(deployment.get("status", {}).get("availableReplicas", 0))
        asks_for_none = deployment["spec"]["replicas"] == 0
        failure = self._initializer_failure(deployment)
        is_ready = available > 0 or asks_for_none
        reason = "NewReplicaSetAvailable" if is_ready else "MinimumReplicasUnavailable"
        model: Object = {"states": {"targetModelState": "Pending"}, "transitionStatus": "InProgress"}
        if is_ready:
            states = {"activeModelState": "Loaded", "targetModelState": "Loaded"}
            model = {"copies": {"totalCopies": available}, "states": states, "transitionStatus": "UpToDate"}
        if failure:
            failed = {"targetModelState": "FailedToLoad"}
            model |= {"states": model["states"] | failed, "transitionStatus": "BlockedByFailedLoad"}
        last = failure or old.get("modelStatus", {}).get("lastFailureInfo")
        host = f"{name}-predictor.{namespace}.svc.cluster.local"
        return {
            "observedGeneration": deployment["metadata"]["generation"],
            "address": {"url": f"http://{host}"},
            "url": f"http://{name}-{namespace}.example.com",
            "components": {"predictor": {"url": f"http://{host}"}},
            "conditions": [
                _condition("IngressReady", "", "True"),
                _condition("PredictorReady", reason, str(is_ready)),
                _condition("Ready", "" if is_ready else reason, str(is_ready)),
                _condition("Stopped", "", "False"),
            ],
            "modelStatus": model | ({"lastFailureInfo": last} if last else {}),
        }

    def _initializer_failure(self, deployment: Object) -> Object | None:
        replica_sets = self._cluster.dependents(deployment, "ReplicaSet")
        for pod in (pod for one in replica_sets for pod in self._cluster.dependents(one, "Pod")):
            for state in pod.get("status", {}).get("initContainerStatuses", ()):
                ended: Object = state.get("lastState", {}).get("terminated", {})
                if ended:
                    said = {"message": ended["message"]} if "message" in ended else {}
                    return {"exitCode": ended["exitCode"], "reason": "ModelLoadFailed"} | said
        return None

    def _report(self, service: Object, status: Object) -> None:
        if service.get("status") != status:
            self._cluster.set_status("InferenceService", *_place(service), status, manager=_MANAGER)

    def _hold(self, service: Object, finalizers: list[str]) -> None:
        patch: Object = {"metadata": {"finalizers": finalizers or None}}
        self._cluster.patch("InferenceService", *_place(service), patch, manager=_MANAGER)


def _children(service: Object, runtime: Object) -> list[Object]:
    """Return the Deployment, the Service and (for class hpa) the autoscaler of an InferenceService."""
    meta, predictor = service["metadata"], service["spec"]["predictor"]
    name = f"{meta['name']}-predictor"
    app = {"app": f"isvc.{name}"}
    labels = {
        **runtime["spec"].get("labels", {}),
        **predictor.get("labels", {}),
        **meta.get("labels", {}),
        **app,
        "component": "predictor",
        "serving.kserve.io/inferenceservice": meta["name"],
    }
    annotations = {
        **runtime["spec"].get("annotations", {}),
        **predictor.get("annotations", {}),
        **{key: text for key, text in meta.get("annotations", {}).items() if not key.startswith("kubectl.")},
    }
    metadata = owned(service, name) | {"labels": labels, "annotations": annotations}
    low, high = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    scaler = meta.get("annotations", {}).get(_AUTOSCALER, "hpa")
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod_spec(predictor, runtime)}
    deployment: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": low if scaler == "none" else max(low, 1) if scaler == "hpa" else 1,
            "selector": {"matchLabels": app},
            "template": template,
            "progressDeadlineSeconds": 600,
        },
    }
    ports: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": app, "ports": _ports(template["spec"]["containers"][0])},
    }
    autoscaler: Object = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": max(low, 1),
            "maxReplicas": max(high, low, 1),
        },
    }
    return [deployment, ports, autoscaler] if scaler == "hpa" else [deployment, ports]


def _pod_spec(predictor: Object, runtime: Object) -> Object:
    own = predictor.get("model", {})
    first, *others = [dict(container) for container in runtime["spec"]["containers"]]
    first["args"] = [*first.get("args", ()), *own.get("args", ())]
    env = {entry["name"]: entry for entry in (*first.get("env", ()), *own.get("env", ()))}
    first |= {"name": MODEL_CONTAINER, "env": [*env.values()]}
    if "resources" in own:
        first["resources"] = own["resources"]
    passed = (
        "serviceAccountName",
        "volumes",
        "terminationGracePeriodSeconds",
        "affinity",
        "tolerations",
        "nodeSelector",
    )
    shared = {**runtime["spec"], **predictor}
    spec: Object = {"containers": [first, *others]} | {key: shared[key] for key in passed if key in shared}
    if uri := own.get("storageUri"):
        spec["initContainers"] = [{"name": INITIALIZER, "image": "", "args": [uri, "/mnt/models"]}]
    return spec


def _ports(container: Object) -> list[Object]:
    """Return the Service's ports: the first is 80, the others are what the container has."""
    made: list[dict[str, Any]] = []
    for index, port in enumerate(container.get("ports") or [{"containerPort": 8080}]):
        own: Object = {"name": port.get("name", "http1"), "targetPort": port["containerPort"], "protocol": "TCP"}
        own["port"] = port["containerPort"] if index else 80
        made.append(own | ({"appProtocol": "kubernetes.io/h2c"} if index else {}))
    return made


def _is_fixed(deployment: Object) -> bool:
    return bool(deployment["metadata"]["annotations"].get(_AUTOSCALER) == "none")


def _stopped() -> Object:
    return {
        "conditions": [_condition("Ready", "Stopped", "False"), _condition("Stopped", "Stopped", "True")],
        "modelStatus": {"states": {"targetModelState": ""}, "transitionStatus": "UpToDate"},
    }


def _runtime_not_recognized(service: Object) -> Object:
    name = service["spec"]["predictor"]["model"].get("runtime", "")
    why = {"reason": "RuntimeNotRecognized", "message": f"Waiting for runtime {name!r} to become available"}
    return {
        "conditions": [_condition("PredictorReady", "", "Unknown"), _condition("Ready", "", "Unknown")],
        "modelStatus": {
            "lastFailureInfo": why,
            "states": {"targetModelState": "FailedToLoad"},
            "transitionStatus": "InvalidSpec",
        },
    }


def _condition(sort: str, reason: str, status: str) -> Object:
    return {"type": sort, "status": status} | ({"reason": reason} if reason else {})


def _place(value: Object) -> tuple[str, str]:
    return value["metadata"]["namespace"], value["metadata"]["name"]
