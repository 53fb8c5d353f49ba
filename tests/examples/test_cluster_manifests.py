"""The manifests of the example: generated parts are up to date, pods are restricted, the API takes the rest."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore
from typer.core import TyperGroup
from typer.main import get_command

from fairlead.features.service import describe
from fairlead_operator.api.manifest import read
from fairlead_operator.api.objects import from_object
from flights.cluster.__main__ import app
from flights.cluster.manifests import CONFIG_MAP, FOLDER, write, written_registry
from flights.cluster.registry import serialized
from flights.features import FEATURE_SERVICES
from flights.manifest import deployed, set_digest
from flights.paths import FEATURE_REPO
from flights.runs import SERVICES
from flights.store import open_store
from flights.training import MANIFEST
from support.admission import complaints
from support.flights_cluster import manifest, manifests, mount_feature_store

pytestmark = pytest.mark.flights  # training writes into the manifests
WORKLOADS = {"materialize", "models", "push"}


def pods() -> dict[str, dict[str, Any]]:
    """Return the pod specifications of all workloads, by name."""
    with_pods = [one for one in manifests() if "template" in one.get("spec", {})]
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in with_pods}


def test_generated_parts_are_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    shutil.copytree(FOLDER, folder)
    assert write(folder, FEATURE_REPO) == [], "run `python -m flights.cluster manifests`"


def test_a_registry_made_anew_is_the_same_file(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(f"{CONFIG_MAP}.yaml"))
    assert write(folder, FEATURE_REPO) == [f"{CONFIG_MAP}.yaml"]
    made, known = (written_registry(where / f"{CONFIG_MAP}.yaml") for where in (folder, FOLDER))
    assert made is not None
    assert known is not None
    assert serialized(made) == serialized(known)
    assert b"/definitions.py" not in serialized(made)


@pytest.mark.flights
def test_pods_see_the_feature_services_that_the_models_were_trained_on(
    tmp_path: Path, flights_repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_ADDRESS", "localhost:1")
    monkeypatch.setenv("REDIS_PASSWORD", "12345")
    ours, theirs = FeatureStore(repo_path=str(mount_feature_store(tmp_path))), open_store(flights_repo)
    for service in FEATURE_SERVICES:
        assert describe(ours, service).fingerprint == describe(theirs, service).fingerprint
    assert 'password="12345"' in ours.config.online_store.connection_string


def test_a_model_that_was_trained_anew_is_served_in_the_cluster_too(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    shutil.copytree(FOLDER, folder)
    set_digest(folder / "modeldeployment.yaml", "boosted", f"sha256:{'0' * 64}")
    assert write(folder, FEATURE_REPO) == ["modeldeployment.yaml"]
    assert (folder / "modeldeployment.yaml").read_text() == (FOLDER / "modeldeployment.yaml").read_text()
    for name in SERVICES:
        assert deployed(folder / "modeldeployment.yaml", name).digest == deployed(MANIFEST, name).digest


def test_the_api_takes_the_deployment_as_it_is() -> None:
    written = manifest("ModelDeployment", "arrival-delay")
    assert list(complaints(written)) == []
    assert from_object(written) == read(FOLDER / "modeldeployment.yaml").deployment


def test_the_namespace_comes_first_and_everything_else_is_in_it() -> None:
    first, *rest = manifests()
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "flights")
    assert first["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"]["namespace"] for one in rest} == {"flights"}


def test_what_the_deployment_names_is_there() -> None:
    spec = manifest("ModelDeployment", "arrival-delay")["spec"]
    assert manifest("ConfigMap", spec["featureStore"]["configMapRef"]["name"])
    addresses = {one["name"]: one["model"]["uri"] for one in spec["variants"]}
    assert addresses == {name: f"http://models.flights.svc.cluster.local/{name}.onnx" for name in SERVICES}
    service = manifest("Service", "models")["spec"]
    labels = manifest("Deployment", "models")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_pods_are_restricted_small_and_of_the_released_image(name: str) -> None:
    assert pods().keys() == WORKLOADS
    pod = pods()[name]
    (container,) = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert container["resources"]["requests"]["cpu"] == "50m"
    assert container["image"] == f"fairlead.local/flights:{metadata.version('fairlead')}"
    assert all(volume.keys() & {"configMap", "emptyDir"} for volume in pod["volumes"])


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_the_programs_know_the_arguments_that_pods_give_them(name: str) -> None:
    package, command, *given = pods()[name]["containers"][0]["args"]
    assert package == "flights.cluster"
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    options = {option for parameter in group.commands[command].params for option in parameter.opts}
    assert {argument.partition("=")[0] for argument in given} <= options


def test_no_password_is_written_anywhere() -> None:
    assert not [one for one in manifests() if one["kind"] == "Secret"]
    written = manifest("ConfigMap", CONFIG_MAP)["data"]["feature_store.yaml"]
    assert 'password="${REDIS_PASSWORD}"' in written
