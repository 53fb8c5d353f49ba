"""A revision's pods: how its model reaches them, what they may do, and what makes them other pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fairlead.policy import Hydration
from fairlead_operator.api.v1alpha1 import Resources
from fairlead_operator.core.desired import Revision
from fairlead_operator.platforms.kubernetes import render
from fairlead_operator.platforms.kubernetes.render.serving_runtime import runtime_spec
from fairlead_server.fetch.uri import parse_uri
from fairlead_server.settings import from_arguments
from support.crd_schemas import wrong_type
from support.rendering import DIGEST, PLACE, revision


def service(of: Revision, **arguments: Any) -> dict[str, Any]:
    return render.inference_service(PLACE, of, **{"min_replicas": 1, "max_replicas": 3, "cpu_percent": 70, **arguments})


def predictor(of: Revision) -> dict[str, Any]:
    found: dict[str, Any] = service(of)["spec"]["predictor"]
    return found


def pod(of: Revision) -> dict[str, Any]:
    """Return the pod's spec as KServe makes it of ServingRuntime and InferenceService."""
    spec, runtime = predictor(of), runtime_spec(PLACE.image(of.release))
    model, server = spec["model"], runtime["containers"][0]
    merged = {
        **server,
        **{name: model[name] for name in ("resources", "envFrom") if name in model},
        "args": [*server["args"], *model["args"]],
        "volumeMounts": [*server["volumeMounts"], *model["volumeMounts"]],
    }
    bounds = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "deploymentStrategy", "model"}
    return {
        **{name: part for name, part in spec.items() if name not in bounds},
        "containers": [merged],
        "volumes": [*runtime["volumes"], *spec["volumes"]],
    }


def containers(of: Revision) -> list[dict[str, Any]]:
    return [*pod(of).get("initContainers", []), *pod(of)["containers"]]


def unrestricted(spec: dict[str, Any]) -> Iterator[str]:
    """Yield what the restricted pod security standard has against a pod."""
    allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
    yield from (volume["name"] for volume in spec["volumes"] if not volume.keys() & allowed)
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        security = {**spec["securityContext"], **container["securityContext"]}
        held = {
            "runAsNonRoot": security.get("runAsNonRoot") is True,
            "runAsUser": security.get("runAsUser", 0) != 0,
            "seccompProfile": security.get("seccompProfile") == {"type": "RuntimeDefault"},
            "capabilities": security.get("capabilities") == {"drop": ["ALL"]},
            "allowPrivilegeEscalation": security.get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem": security.get("readOnlyRootFilesystem") is True,
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        yield from (f"{container['name']}: {name}" for name, holds in held.items() if not holds)


URIS = ["s3://models/m.onnx", "gs://models/m.onnx", "https://models.example/m.onnx", "pvc://models/m.onnx"]


@pytest.mark.parametrize("uri", URIS)
def test_pods_are_restricted_and_what_kubernetes_knows(uri: str) -> None:
    spec = pod(revision(uri, storage={"secretRef": {"name": "s"}}, account="reader"))
    assert not list(unrestricted(spec))
    assert not list(wrong_type(spec, "V1PodSpec"))
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "reader"


@pytest.mark.parametrize("uri", URIS)
def test_every_mount_has_its_volume_and_every_volume_a_mount(uri: str) -> None:
    of = revision(uri, storage={"secretRef": {"name": "s"}})
    mounted = {mount["name"] for container in containers(of) for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod(of)["volumes"]}


@pytest.mark.parametrize("uri", URIS)
def test_the_server_understands_its_arguments(uri: str) -> None:
    hydration = Hydration(deadline_s=0.02, max_age_s={"tail_performance": 60.0})
    of = revision(uri, hydration=hydration)
    settings = from_arguments(pod(of)["containers"][0]["args"])
    assert (settings.host, settings.http_port, settings.grpc_port) == ("0.0.0.0", 8080, 8081)  # noqa: S104 -- in a pod
    assert str(settings.model) == f"/mnt/models/{'m.onnx' if uri.startswith('pvc') else 'model.onnx'}"
    assert (settings.variant, settings.revision, settings.model_digest) == ("logistic", of.name, DIGEST)
    assert settings.hydration == hydration


@pytest.mark.parametrize("uri", URIS[:3])
def test_the_fetcher_understands_its_address(uri: str) -> None:
    fetcher = containers(revision(uri))[0]
    parsed = parse_uri(fetcher["args"][0])
    assert (parsed.url, parsed.digest) == (uri, DIGEST)
    assert fetcher["args"][0] == predictor(revision(uri))["model"]["storageUri"]
    assert fetcher["name"] == "storage-initializer", "KServe adds none beside one of this name, and reads its failures"


@pytest.mark.parametrize(
    ("uri", "storage", "file"),
    [
        ("pvc://claim/a/b/m.onnx", "pvc://claim/a/b", "m.onnx"),
        ("pvc://claim/m.onnx", "pvc://claim", "m.onnx"),
        ("pvc://claim/a/", "pvc://claim/a", "model.onnx"),
        ("pvc://claim/", "pvc://claim", "model.onnx"),
        ("pvc://claim", "pvc://claim", "model.onnx"),
    ],
)
def test_a_claim_is_mounted_by_its_folder_and_served_by_its_file(uri: str, storage: str, file: str) -> None:
    spec = predictor(revision(uri))
    assert spec["model"]["storageUri"] == storage
    assert spec["model"]["args"][0] == f"--model=/mnt/models/{file}"
    assert "initContainers" not in spec


def test_keys_and_address_of_the_store_reach_the_fetcher_alone() -> None:
    of = revision(storage={"secretRef": {"name": "models-s3"}, "endpoint": "https://minio:9000", "region": "eu"})
    fetcher, server = containers(of)
    assert fetcher["envFrom"] == [{"secretRef": {"name": "models-s3"}}]
    assert {variable["name"]: variable["value"] for variable in fetcher["env"]} == {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": "https://minio:9000",
        "AWS_REGION": "eu",
        "HOME": "/tmp",  # noqa: S108 -- a volume of the pod
    }
    assert "envFrom" not in server


def test_keys_of_google_are_a_file() -> None:
    fetcher, _ = containers(revision("gs://models/m.onnx", storage={"secretRef": {"name": "models-gs"}}))
    assert "envFrom" not in fetcher
    assert {
        "name": "GOOGLE_APPLICATION_CREDENTIALS",
        "value": "/etc/fairlead/storage/gcloud-application-credentials.json",
    } in fetcher["env"]


def test_dollars_and_braces_stay_as_they_are_written() -> None:
    _, server = containers(revision("s3://b/$(HOME)/{{.Name}}", hydration=Hydration(max_age_s={"{{x}}$(y)": 1.0})))
    assert "{{`{{`}}x}}$$(y)" in server["args"][-1]
    fetcher, _ = containers(revision("s3://b/$(HOME)/{{.Name}}"))
    assert fetcher["args"][0].startswith("fairlead+s3://b/$$(HOME)/{{.Name}}@")


@pytest.mark.parametrize(
    ("store", "config_map"),
    [({"configMapRef": {"name": "c"}}, "c"), ({"featureStoreRef": {"name": "flights"}}, "feast-flights-client")],
)
def test_the_feature_store_is_a_config_map(store: dict[str, Any], config_map: str) -> None:
    of = revision(feature_store=store)
    assert {"name": "feature-store", "configMap": {"name": config_map}} in pod(of)["volumes"]
    told = service(of, feature_store="another")["spec"]["predictor"]["volumes"]
    assert {"name": "feature-store", "configMap": {"name": "another"}} in told


def test_a_store_on_one_machine_is_none_in_a_cluster() -> None:
    of = revision(feature_store={"path": "store"})
    with pytest.raises(ValueError, match="ConfigMap"):
        service(of)
    render.pod_identity(of)


def test_replica_bounds_are_all_that_bounds_change() -> None:
    few = service(revision())
    many = service(revision(), min_replicas=2, max_replicas=9, cpu_percent=50)
    assert few["metadata"] == many["metadata"]
    changed = {name for name, value in few["spec"]["predictor"].items() if many["spec"]["predictor"][name] != value}
    assert changed == {"minReplicas", "maxReplicas", "scaleTarget"}


def test_a_live_object_keeps_its_image_when_the_settings_change() -> None:
    live = service(revision())
    moved = replace(PLACE, server_image="mirror.example/server:{release}")
    image = render.image_of(live)
    again = render.inference_service(moved, revision(), min_replicas=1, max_replicas=3, cpu_percent=70, image=image)
    assert again == live
    assert render.serving_runtime(moved, "0.1.0", image=render.image_of(render.serving_runtime(PLACE, "0.1.0"))) == (
        render.serving_runtime(PLACE, "0.1.0")
    )
    assert render.image_of({"metadata": {}}) is None


def test_the_identity_is_everything_of_the_pods_but_names_and_registry() -> None:
    of = revision()
    assert json.loads(json.dumps(render.pod_identity(of))) == render.pod_identity(of)
    assert render.pod_identity(replace(of, name="another")) == render.pod_identity(of)
    assert PLACE.image("0.1.0") not in json.dumps(render.pod_identity(of))
    for other in (
        revision("s3://models/other.onnx"),
        revision(account="reader"),
        revision(release="0.2.0"),
        revision(storage={"endpoint": "https://minio:9000"}),
        revision(hydration=Hydration(deadline_s=0.2)),
        replace(of, resources=Resources(requests={"cpu": "2"})),
    ):
        assert render.pod_identity(other) != render.pod_identity(of)


@pytest.mark.parametrize(
    ("namespace", "revision_length", "fits"), [("flight", 46, True), ("flight", 47, False), ("n" * 20, 33, False)]
)
def test_names_that_kserve_cannot_carry_are_told(namespace: str, revision_length: int, fits: bool) -> None:
    assert (render.name_too_long(namespace, "r" * revision_length) is None) == fits


def test_no_two_releases_share_a_runtime() -> None:
    assert render.runtime_name("0.1.0") == "fairlead-0-1-0"
    assert render.runtime_name("0.1.0-rc1") != render.runtime_name("0.1.0.rc1")


def test_a_runtime_is_used_while_any_inference_service_names_it() -> None:
    used = service(revision())
    assert render.is_runtime_used("fairlead-0-1-0", [used])
    assert not render.is_runtime_used("fairlead-0-2-0", [used, {"spec": {"predictor": {"containers": []}}}])
