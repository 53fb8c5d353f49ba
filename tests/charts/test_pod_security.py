"""The policy finds every violation, and what the operator renders has none."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead_operator.platforms.kubernetes import render
from support.charts import changed
from support.pod_security import violations
from support.rendering import PLACE, revision

GOOD: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [{"name": "scratch", "emptyDir": {}}],
    "containers": [
        {
            "name": "c",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
        }
    ],
}
CONTAINER = "containers.0.securityContext"
BAD: dict[str, tuple[str, Any]] = {
    "the node's network": ("hostNetwork", True),
    "the node's processes": ("hostPID", True),
    "the node's memory": ("hostIPC", True),
    "a path of the node": ("volumes.0", {"name": "v", "hostPath": {"path": "/"}}),
    "a volume of another kind": ("volumes.0", {"name": "v", "nfs": {"server": "s", "path": "/"}}),
    "a system setting": ("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
    "a root pod": ("securityContext.runAsUser", 0),
    "a pod of no fixed user": ("securityContext.runAsUser", None),
    "perhaps root": ("securityContext.runAsNonRoot", None),
    "root in a container": (f"{CONTAINER}.runAsNonRoot", False),
    "a root container": (f"{CONTAINER}.runAsUser", 0),
    "no seccomp": ("securityContext.seccompProfile", None),
    "seccomp off": (f"{CONTAINER}.seccompProfile", {"type": "Unconfined"}),
    "apparmor off": ("securityContext.appArmorProfile", {"type": "Unconfined"}),
    "a type of SELinux": ("securityContext.seLinuxOptions", {"type": "spc_t"}),
    "a role of SELinux": (f"{CONTAINER}.seLinuxOptions", {"role": "sysadm_r"}),
    "a process of a Windows host": ("securityContext.windowsOptions", {"hostProcess": True}),
    "privileged": (f"{CONTAINER}.privileged", True),
    "escalation": (f"{CONTAINER}.allowPrivilegeEscalation", True),
    "escalation by default": (f"{CONTAINER}.allowPrivilegeEscalation", None),
    "capabilities kept": (f"{CONTAINER}.capabilities", None),
    "a capability more": (f"{CONTAINER}.capabilities.add", ["NET_ADMIN"]),
    "all of proc": (f"{CONTAINER}.procMount", "Unmasked"),
    "a root that is written to": (f"{CONTAINER}.readOnlyRootFilesystem", False),
    "a port of the node": ("containers.0.ports", [{"containerPort": 80, "hostPort": 80}]),
    "a probe elsewhere": ("containers.0.livenessProbe", {"httpGet": {"host": "169.254.169.254", "port": 80}}),
    "a hook elsewhere": ("containers.0.lifecycle", {"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}),
    "a first container": ("initContainers", [{"name": "i"}]),
    "a container to look with": ("ephemeralContainers", [{"name": "e"}]),
    "a token by default": ("automountServiceAccountToken", None),
    "links to services": ("enableServiceLinks", True),
}


def test_a_restricted_pod_is_taken() -> None:
    assert violations(GOOD) == []
    assert violations(changed(GOOD, f"{CONTAINER}.capabilities.add", ["NET_BIND_SERVICE"])) == []


@pytest.mark.parametrize("what", BAD)
def test_a_violation_is_found(what: str) -> None:
    assert violations(changed(GOOD, *BAD[what]))


@pytest.mark.parametrize(
    "uri", ["s3://models/m.onnx", "https://models.example/m.onnx", "gs://models/m.onnx", "pvc://models/m.onnx"]
)
def test_every_pod_of_a_model_is_restricted(uri: str) -> None:
    service = render.inference_service(PLACE, revision(uri), min_replicas=1, max_replicas=2, cpu_percent=70)
    assert violations(pod_of(service, render.serving_runtime(PLACE, "0.1.0"))) == []


def test_what_fetches_for_services_of_users_is_restricted() -> None:
    container = render.storage_container("fairlead.local/server:0.1.0")["spec"]["container"]
    assert violations({**GOOD, "initContainers": [container]}) == []


def pod_of(service: Any, runtime: Any) -> dict[str, Any]:
    """Return the pod that KServe makes of an InferenceService and its runtime, as far as security goes."""
    predictor = dict(service["spec"]["predictor"])
    model = predictor.pop("model")
    (server,) = runtime["spec"]["containers"]
    volumes = [*runtime["spec"]["volumes"], *predictor["volumes"]]
    container = {**server, **model, "volumeMounts": [*server["volumeMounts"], *model["volumeMounts"]]}
    return {**predictor, "volumes": volumes, "containers": [container]}
