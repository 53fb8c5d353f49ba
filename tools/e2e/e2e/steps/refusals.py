"""ModelDeployments that cannot be as they ask to: each says why, soon, and what serves goes on."""

from __future__ import annotations

import base64
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import onnx

from e2e.errors import see
from e2e.programs import ROOT
from e2e.scene import CONTROL, DEPLOYMENT, FLIGHT, FLIGHTS, OWNER, OWNER_LABEL, UNITS, VERSION, Scene, host_of, said
from e2e.story import Seen
from fairlead.contract import METADATA_KEY, Contract, sha256
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT_LABEL, MODEL_DEPLOYMENT, POD, SERVICE
from support.cluster_api import ClusterApi, Resource
from support.cluster_deployed import Deployed
from support.gateway_load import Load

WITHIN_S = 30.0
MODELS = ROOT / "build/flights/models"
FILES = "e2e-models"
"""Name of the server of files that were made for this."""
_TREATMENT = "broken"
_ZEROS = "sha256:" + "0" * 64
_UNFIT = "unfit.onnx"


@dataclass(frozen=True, slots=True)
class Case:
    """What a working deployment is turned into, and what it must then say."""

    name: str
    about: str
    reason: str
    """Of the condition VariantsReady, and in the column REASON."""
    phrase: str
    """Part of the message."""
    change: Callable[[dict[str, Any]], None]
    """Changes the manifest."""


@dataclass(slots=True)
class Told:
    """What a deployment has said, and how long after the change."""

    after_s: float
    message: str
    row: str
    """Of ``kubectl get mdep``."""


@dataclass(slots=True)
class Watched:
    """Deployments that were changed at once."""

    cases: Mapping[str, Case]
    told: dict[str, Told] = field(default_factory=dict)


def refusals(scene: Scene) -> Seen:
    """Break five deployments at once; each says why within 30 s, and its control goes on answering."""
    unfit = unfit_model((MODELS / f"{CONTROL}.onnx").read_bytes())
    with ExitStack() as stack:
        api = stack.enter_context(scene.api())
        stack.enter_context(_served(api, {_UNFIT: unfit}))
        base = api.get(MODEL_DEPLOYMENT, FLIGHTS, DEPLOYMENT)
        cases = {case.name: case for case in all_cases(sha256(unfit))}
        manifests = {name: working(base, name) for name in cases}
        stack.callback(_remove, scene, api, list(cases))
        for manifest in manifests.values():
            api.apply(MODEL_DEPLOYMENT, manifest)
        deployments = {name: Deployed(_Ground(scene, api), name) for name in cases}
        for deployed in deployments.values():
            scene.wait("refusals", lambda one=deployed: said(one), lambda one=deployed: _is_ready(one))  # type: ignore[misc]
        for case in cases.values():
            case.change(manifests[case.name])
        loads = [stack.enter_context(_asking(scene, one)) for one in deployments.values()]
        begun_s = time.monotonic()
        for manifest in manifests.values():
            api.apply(MODEL_DEPLOYMENT, manifest)
        watched = Watched(cases)
        wait = lambda: _note(scene, watched, deployments, begun_s)  # noqa: E731 -- asked again and again
        scene.wait("refusals", lambda: _missing(watched, deployments), wait, timeout_s=2 * WITHIN_S)
        for load in loads:
            load.__exit__(None, None, None)
    return _judged(watched, loads)


def all_cases(unfit_digest: str) -> Sequence[Case]:
    """Return the five."""

    def treatment(manifest: dict[str, Any], **changes: Any) -> None:
        (control,) = manifest["spec"]["variants"]
        made = {**copy.deepcopy(control), "name": _TREATMENT, "role": "Treatment", **changes}
        manifest["spec"]["variants"].append(made)
        manifest["spec"]["rollout"]["weights"] = {_TREATMENT: 10}

    def digest(manifest: dict[str, Any]) -> None:
        treatment(manifest, model={**manifest["spec"]["variants"][0]["model"], "digest": _ZEROS})

    def crash(manifest: dict[str, Any]) -> None:
        treatment(manifest, resources={"requests": {"cpu": "50m", "memory": "48Mi"}, "limits": {"memory": "48Mi"}})

    def image(manifest: dict[str, Any]) -> None:
        manifest["spec"]["serving"] = {"release": "9.9.9"}

    def contract(manifest: dict[str, Any]) -> None:
        uri = f"http://{FILES}.{FLIGHTS}.svc.cluster.local:8080/{_UNFIT}"
        treatment(manifest, model={"uri": uri, "digest": unfit_digest})

    def room(manifest: dict[str, Any]) -> None:
        treatment(manifest, resources={"requests": {"cpu": "1000", "memory": "64Mi"}})

    return (
        Case("digest", "a wrong digest", "ModelUnavailable", "its digest is sha256:", digest),
        Case("crash", "a server without the memory it needs", "Crashed", "ended with 137", crash),
        Case("image", "a release that does not exist", "PodsBlocked", "ImagePull", image),
        Case(
            "contract",
            "a contract that does not fit the registry",
            "ModelRefused",
            "is registered with ttl_s",
            contract,
        ),
        Case("room", "a request that no node can meet", "PodsBlocked", "no node has room", room),
    )


def working(base: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the manifest of a deployment that serves the control of another and nothing else."""
    spec = copy.deepcopy(base["spec"])
    control = next(one for one in spec["variants"] if one["role"] == "Control")
    control["scaling"] = {"minReplicas": 1, "maxReplicas": 1}
    kept = {field: spec[field] for field in ("featureStore", "hydration") if field in spec}
    routing = {
        field: value for field, value in spec.get("routing", {}).items() if field in {"gateways", "unit", "timeout"}
    }
    return {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": MODEL_DEPLOYMENT.kind,
        "metadata": {"name": name, "namespace": FLIGHTS, "labels": {OWNER_LABEL: OWNER}},
        "spec": {
            **kept,
            "modelName": DEPLOYMENT,
            "variants": [control],
            "routing": {**routing, "hosts": [f"{name}.{FLIGHTS}.example.org"]},
            "rollout": {"strategy": "Manual", "weights": {}, "keepPrevious": "1s"},
            "serving": {"release": VERSION},
        },
    }


def unfit_model(content: bytes) -> bytes:
    """Return a model whose contract asks for another ttl of its first stored feature than it was trained with."""
    model = onnx.ModelProto()
    model.ParseFromString(content)
    entry = next(one for one in model.metadata_props if one.key == METADATA_KEY)
    contract = Contract.from_metadata({METADATA_KEY: entry.value}, CONTROL)
    first = next(one for one in contract.features if not one.on_demand)
    changed = first.model_copy(update={"ttl_s": (first.ttl_s or 0.0) + 1.0})
    features = tuple(changed if one is first else one for one in contract.features)
    entry.value = contract.model_copy(update={"features": features}).to_json()
    made: bytes = model.SerializeToString()
    return made


@dataclass(frozen=True, slots=True)
class _Ground:
    scene: Scene
    api: ClusterApi
    namespace: str = FLIGHTS

    @property
    def cluster(self) -> Any:
        return self.scene.facts

    def host(self, name: str) -> str:
        return host_of(Deployed(self, name))


@contextmanager
def _served(api: ClusterApi, files: Mapping[str, bytes]) -> Iterator[None]:
    """Serve files over HTTP inside the cluster."""
    metadata = {"name": FILES, "namespace": FLIGHTS, "labels": {OWNER_LABEL: OWNER, "app.kubernetes.io/name": FILES}}
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    api.apply(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": encoded})
    port = {"port": 8080, "targetPort": 8080}
    service = {"selector": {"app.kubernetes.io/name": FILES}, "ports": [port]}
    api.apply(SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    api.apply(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _file_server()})
    try:
        yield
    finally:
        for kind in (POD, SERVICE, CONFIG_MAP):
            api.delete(kind, FLIGHTS, FILES)


def _file_server() -> Resource:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {
        "name": "files",
        "image": f"fairlead.local/server:{VERSION}",
        "command": ["python", "-m", "http.server", "8080", "--directory", "/files"],
        "securityContext": security,
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "files", "mountPath": "/files", "readOnly": True}],
    }
    profile = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": profile,
        "containers": [container],
        "volumes": [{"name": "files", "configMap": {"name": FILES}}],
    }


@contextmanager
def _asking(scene: Scene, deployed: Deployed) -> Iterator[Load]:
    """Ask a deployment for predictions, slowly."""
    address, host = scene.facts.gateway.address, host_of(deployed)
    load = Load(address, host, DEPLOYMENT, UNITS, connections=1, pause_s=0.2, row=FLIGHT)
    with load:
        yield load


def _note(scene: Scene, watched: Watched, deployments: Mapping[str, Deployed], begun_s: float) -> bool:
    """Note what is said now; return whether every deployment has told why."""
    for name, case in watched.cases.items():
        if name in watched.told:
            continue
        condition = deployments[name].condition("VariantsReady")
        if (
            condition.get("status") == "False"
            and condition["reason"] == case.reason
            and case.phrase in condition["message"]
        ):
            row = scene.kubectl("get", "mdep", name, f"--namespace={FLIGHTS}", "--no-headers").split()
            after_s = time.monotonic() - begun_s
            if row[1:3] == ["False", case.reason]:
                watched.told[name] = Told(after_s, condition["message"], " ".join(row[:3]))
    return watched.told.keys() == watched.cases.keys()


def _missing(watched: Watched, deployments: Mapping[str, Deployed]) -> str:
    left = [name for name in watched.cases if name not in watched.told]
    return "; ".join(f"{name}: {said(deployments[name])}" for name in left)


def _judged(watched: Watched, loads: Sequence[Load]) -> Seen:
    late = {name: told.after_s for name, told in watched.told.items() if told.after_s > WITHIN_S}
    see(not late, f"said later than {WITHIN_S:.0f} s after the change: {late}")
    see(all(load.samples for load in loads), "a control was not asked at all")
    lost = [sample for load in loads for sample in load.lost]
    see(not lost, f"{len(lost)} requests to controls were lost: {lost[:3]}")
    elsewhere = {sample.variant for load in loads for sample in load.samples} - {CONTROL}
    see(not elsewhere, f"answers came from {elsewhere}")
    sent = sum(len(load.samples) for load in loads)
    told = ", ".join(f"{name} {watched.cases[name].reason} {one.after_s:.0f} s" for name, one in watched.told.items())
    figures: dict[str, float | int | str] = {f"{name}_s": round(one.after_s, 1) for name, one in watched.told.items()}
    return Seen(f"{told}; controls answered all of {sent} meanwhile", {**figures, "sent": sent, "lost": 0})


def _is_ready(deployed: Deployed) -> bool:
    return deployed.condition("Ready").get("status") == "True"


def _remove(scene: Scene, api: ClusterApi, names: Sequence[str]) -> None:
    for name in names:
        api.delete(MODEL_DEPLOYMENT, FLIGHTS, name)

    def gone() -> bool:
        if any(api.find(MODEL_DEPLOYMENT, FLIGHTS, name) for name in names):
            return False
        pods = api.items(POD, FLIGHTS)  # they outlive their deployment, and what looks next would find them broken
        return not any(pod["metadata"].get("labels", {}).get(DEPLOYMENT_LABEL) in names for pod in pods)

    scene.wait("refusals", lambda: f"end of {', '.join(names)}", gone)
