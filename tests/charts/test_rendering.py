"""Every scenario of the charts renders to objects that the API server knows and that keep our rules."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from support.charts import CHARTS, Manifest, notes, one, pod_templates, rendered, scenarios
from support.golden import matches_golden
from support.pod_security import violations

GOLDEN = Path(__file__).parent / "golden"
KUBERNETES = "1.34"
FOREIGN = ("monitoring.coreos.com/",)
"""API groups whose kinds Kubernetes does not have."""
WORKLOADS = ("Deployment", "StatefulSet")
MATRIX = [(chart, name) for chart in ("fairlead", "fairlead-crds") for name in scenarios(chart)]


@cache
def scenario(chart: str, name: str) -> list[Manifest]:
    return rendered(chart, scenarios(chart)[name])


@pytest.mark.parametrize(("chart", "name"), MATRIX)
def test_objects_are_what_the_api_knows(chart: str, name: str) -> None:
    objects = scenario(chart, name)
    assert objects
    for manifest in objects:
        if not manifest["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize(("chart", "name"), MATRIX)
def test_no_object_is_written_twice(chart: str, name: str) -> None:
    keys = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in scenario(chart, name)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", scenarios("fairlead"))
def test_every_pod_is_restricted(name: str) -> None:
    pods = [(m["metadata"]["name"], pod) for m in scenario("fairlead", name) for pod in pod_templates(m)]
    assert len(pods) >= 2
    assert {place: found for place, pod in pods if (found := violations(pod["spec"]))} == {}


@pytest.mark.parametrize("name", scenarios("fairlead"))
def test_every_container_says_what_it_takes(name: str) -> None:
    for manifest in scenario("fairlead", name):
        for pod in pod_templates(manifest):
            for container in pod["spec"]["containers"]:
                assert container["resources"]["limits"]["memory"], manifest["metadata"]["name"]


@pytest.mark.parametrize("name", scenarios("fairlead"))
def test_selectors_take_the_pods_that_they_are_for(name: str) -> None:
    objects = scenario("fairlead", name)
    for deployment in (m for m in objects if m["kind"] in WORKLOADS):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        service = one(objects, "Service", deployment["metadata"]["name"])
        for wanted in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
            assert wanted.items() <= labels.items()
        for other in (m for m in objects if m["kind"] in (*WORKLOADS, "Job") and m is not deployment):
            assert not service["spec"]["selector"].items() <= other["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(("chart", "name"), MATRIX)
def test_lint_finds_nothing(chart: str, name: str) -> None:
    report = helm_python.lint(CHARTS / chart, dict(scenarios(chart)[name]), strict=True, namespace="fairlead-system")
    found = [one for one in report["messages"] if one["severity"] > 1]
    assert (found, report["errors"]) == ([], None) or not (found or report["errors"])


def test_the_default_rendering_is_as_it_was_reviewed() -> None:
    matches_golden(GOLDEN / "fairlead.yaml", scenario("fairlead", "default"))


@pytest.mark.parametrize("chart", ["fairlead", "fairlead-crds"])
def test_the_version_is_the_projects(chart: str) -> None:
    said = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    version = importlib.metadata.version("fairlead-operator")
    assert (said["name"], said["version"], said["appVersion"]) == (chart, version, version)
    assert yaml.safe_load(said["annotations"]["artifacthub.io/changes"])


def test_only_who_is_up_replaces_who_writes() -> None:
    strategy = one(scenario("fairlead", "default"), "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_two_operators_have_a_budget_and_lie_on_two_nodes() -> None:
    objects = scenario("fairlead", "01-ha")
    pods = one(objects, "Deployment")["spec"]["template"]
    (spread,) = pods["spec"]["topologySpreadConstraints"]
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert spread["labelSelector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    assert budget["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    assert budget["maxUnavailable"] == 1


def test_one_operator_has_no_budget_that_keeps_a_node_from_being_drained() -> None:
    assert not [m for m in scenario("fairlead", "default") if m["kind"] == "PodDisruptionBudget"]


@pytest.mark.parametrize(
    ("chosen", "image"), [({}, "r.example/operator:0.1.0"), ({"tag": "2"}, "r.example/operator:2")]
)
def test_the_tag_is_the_charts_unless_another_is_given(chosen: dict[str, str], image: str) -> None:
    objects = rendered("fairlead", {"image": {"registry": "r.example"}, "operator": {"image": chosen}})
    images = {c["image"] for m in objects for pod in pod_templates(m) for c in pod["spec"]["containers"]}
    assert images == {image}


def test_a_random_password_is_one_and_the_same_for_redis_and_its_users() -> None:
    secrets = [one(rendered("fairlead", {"redis": {"enabled": True}}), "Secret")["stringData"] for _ in range(2)]
    assert secrets[0]["password"] != secrets[1]["password"]
    for secret in secrets:
        assert f"requirepass {secret['password']}\n" in secret["redis.conf"] + "\n"
        assert len(secret["password"]) == 32


def test_the_password_outlives_an_uninstall() -> None:
    secret = one(rendered("fairlead", {"redis": {"enabled": True}}), "Secret")
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_redis_is_not_started_anew_by_a_new_chart() -> None:
    def template(values: Any) -> Any:
        return one(rendered("fairlead", values), "Deployment", "fairlead-redis")["spec"]["template"]

    once = template({"redis": {"enabled": True}})
    assert once == template({"redis": {"enabled": True}, "commonLabels": {"a": "b"}})
    assert once != template({"redis": {"enabled": True, "maxMemory": "64mb"}})


def test_nothing_but_the_secret_tells_of_the_password() -> None:
    def public(password: str) -> list[Manifest]:
        objects = rendered("fairlead", {"redis": {"enabled": True, "password": password}})
        return [manifest for manifest in objects if manifest["kind"] != "Secret"]

    assert public("one") == public("other")


def test_labels_of_the_same_name_are_one_and_selectors_still_hold() -> None:
    mine = {"team": "a", "app.kubernetes.io/part-of": "ours", "app.kubernetes.io/component": "mine"}
    more = {"team": "b", "app.kubernetes.io/component": "more", "checksum/settings": "x"}
    pods = {"podLabels": more, "podAnnotations": {"kubectl.kubernetes.io/default-container": "log", **more}}
    labelled = {"enabled": True, "labels": more}
    rules = {"rbac.authorization.k8s.io/aggregate-to-edit": "false"}
    values = {
        "commonLabels": {**mine, **rules},
        "operator": pods,
        "redis": {"enabled": True, **pods},
        "monitoring": {
            "serviceMonitor": labelled,
            "serverPodMonitor": labelled,
            "prometheusRule": labelled,
            "dashboards": labelled,
        },
    }
    objects = rendered("fairlead", values)
    for name, part in (("fairlead-operator", "operator"), ("fairlead-redis", "redis")):
        deployment = one(objects, "Deployment", name)
        pod = deployment["spec"]["template"]["metadata"]
        assert (pod["labels"]["team"], pod["labels"]["app.kubernetes.io/component"]) == ("b", part)
        assert deployment["metadata"]["labels"].items() >= {"team": "a", "app.kubernetes.io/part-of": "ours"}.items()
        assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["labels"].items()
    operator, redis = (one(objects, "Deployment", f"fairlead-{part}") for part in ("operator", "redis"))
    annotations = operator["spec"]["template"]["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "log"
    assert redis["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] != "x"
    assert {m["metadata"]["labels"]["team"] for m in objects if m["kind"] == "PrometheusRule"} == {"b"}
    role = one(objects, "ClusterRole", "fairlead-edit")["metadata"]["labels"]
    assert role["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"


def test_labels_of_definitions_are_one_each() -> None:
    mine = {"app.kubernetes.io/name": "mine", "helm.sh/chart": "mine", "helm.sh/resource-policy": "drop"}
    (definition,) = rendered("fairlead-crds", {"labels": mine, "annotations": mine})
    assert definition["metadata"]["labels"].items() >= {"app.kubernetes.io/name": "fairlead"}.items()
    assert definition["metadata"]["labels"]["helm.sh/chart"] == "mine"
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_objects_of_users_are_templates() -> None:
    names = {m["metadata"]["name"] for m in scenario("fairlead", "05-everything") if m["kind"] == "ConfigMap"}
    assert names == {"fairlead-mine", "fair-text"}


def test_the_notes_say_the_next_command_and_what_is_missing() -> None:
    said = notes("fairlead")
    assert "kubectl --namespace fairlead-system rollout status deployment/fairlead-operator" in said
    assert [line.split(":")[0] for line in said.splitlines() if "WARNING" in line] == ["WARNING"] * 4
    assert "--set image.registry=" in said
    assert "image.registry" not in notes("fairlead", {"image": {"registry": "registry.example.org"}})
    assert "helm install fairlead-crds charts/fairlead-crds" in said
    assert "password" not in said
    assert "secret fairlead-redis" in notes("fairlead", {"redis": {"enabled": True}})
    assert "helm install fairlead charts/fairlead" in notes("fairlead-crds")


def test_the_definitions_are_the_operators_and_are_kept() -> None:
    (definition,) = scenario("fairlead-crds", "default")
    (removable,) = scenario("fairlead-crds", "01-removable")
    source = yaml.safe_load((CHARTS.parent / "operator/crds/serving.fairlead.dev_modeldeployments.yaml").read_text())
    assert definition["spec"] == removable["spec"] == source["spec"]
    assert definition["metadata"]["name"] == source["metadata"]["name"]
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert removable["metadata"]["annotations"] == {"example.org/a": "b"}
