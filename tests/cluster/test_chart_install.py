"""The charts on a real API server: restricted everywhere, installed, upgraded, removed, and what stays afterwards."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fairlead.feedback.keys import KeyRing, SigningKey
from support.charts import CHARTS, Manifest, component_of, pod_templates, rendered, scenarios
from support.cluster import Cluster, KubectlError, wait_for
from support.helm import run_helm

CRDS = "fairlead-crds"
CRD = "modeldeployments.serving.fairlead.dev"
FOREIGN = "monitoring.coreos.com/"
QUIET = {"operator": {"replicas": 0}, "redis": {"enabled": True}}
"""The released images are another test's: here no pod has to start."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the chart `fairlead` in a namespace of its own."""

    cluster: Cluster
    name: str
    namespace: str

    def helm(self, *words: str, values: Mapping[str, Any] | None = None) -> str:
        """Run Helm in the namespace; return what it says."""
        return run_helm(self.cluster, *words, namespace=self.namespace, values=values)

    def objects(self) -> set[str]:
        """Return everything that carries the release's label."""
        kinds = "deployments,services,serviceaccounts,secrets,networkpolicies,roles,rolebindings"
        wide = "clusterroles,clusterrolebindings"
        selector = f"--selector=app.kubernetes.io/instance={self.name}"
        own = self.cluster.kubectl("get", kinds, selector, f"--namespace={self.namespace}", "--output=name")
        return {*own.split(), *self.cluster.kubectl("get", wide, selector, "--output=name").split()}

    def can(self, verb: str, resource: str, *, who: str, namespace: str = "") -> bool:
        """Return whether somebody may do something, in a namespace or everywhere."""
        name, _, subresource = resource.partition("/")
        where = [f"--namespace={namespace}"] if namespace else ["--all-namespaces"]
        part = [f"--subresource={subresource}"] if subresource else []
        try:
            self.cluster.kubectl("auth", "can-i", verb, name, f"--as={who}", *part, *where)
        except KubectlError:
            return False
        return True


@pytest.fixture
def release(cluster: Cluster, namespace: str) -> Iterator[Release]:
    found = Release(cluster, f"fairlead-{secrets.token_hex(3)}", namespace)
    yield found
    found.helm("uninstall", found.name, "--ignore-not-found")


def test_the_api_server_takes_every_scenario_and_every_pod_of_it(cluster: Cluster, namespace: str) -> None:
    pods = []
    for name, values in scenarios("fairlead").items():
        manifests = _within(namespace, values)
        known = [m for m in manifests if m["kind"] != "Pod" and not m["apiVersion"].startswith(FOREIGN)]
        cluster.kubectl(
            *("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "--filename=-"),
            given=_list(known),
        )
        pods += [(name, pod) for manifest in manifests for pod in pod_templates(manifest)]
    made = [_pod(namespace, f"{name}-{number}", pod) for number, (name, pod) in enumerate(pods)]
    cluster.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", given=_list(made))


def test_from_installation_to_removal_deployments_stay(release: Release) -> None:
    cluster, namespace = release.cluster, release.namespace
    release.helm("install", CRDS, str(CHARTS / CRDS), "--take-ownership", "--force-conflicts")
    said = release.helm("install", release.name, str(CHARTS / "fairlead"), values=QUIET)
    assert [line for line in said.splitlines() if "WARNING" in line and "fairlead.local" not in line] == []
    cluster.apply(_deployment(namespace))
    password = _password(release)

    release.helm("upgrade", CRDS, str(CHARTS / CRDS), "--set=labels.upgraded=yes")
    release.helm("upgrade", release.name, str(CHARTS / "fairlead"), values={**QUIET, "commonLabels": {"a": "b"}})
    assert _password(release) == password, "who has the password keeps it"
    assert cluster.get("crd", CRD)["metadata"]["labels"]["upgraded"] == "yes"
    deployment = cluster.get("deployment", f"{release.name}-operator", namespace=namespace)
    assert deployment["metadata"]["labels"]["a"] == "b"
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"] == ["run"]

    operator = f"system:serviceaccount:{namespace}:{release.name}-operator"
    assert release.can("patch", "modeldeployments.serving.fairlead.dev", who=operator)
    assert release.can("update", "leases.coordination.k8s.io", who=operator, namespace=namespace)
    assert not release.can("update", "leases.coordination.k8s.io", who=operator)
    assert not release.can("list", "secrets", who=operator)
    assert release.can("get", "pods/log", who=operator, namespace="istio-ingress")
    assert not release.can("get", "pods/log", who=operator)
    assert not release.can("delete", "modeldeployments.serving.fairlead.dev", who=operator)

    assert len(release.objects()) > 10
    release.helm("uninstall", release.name)
    kept = {f"secret/{release.name}-redis"}
    wait_for(lambda: release.objects() == kept, otherwise=lambda: str(release.objects()))
    release.helm("install", release.name, str(CHARTS / "fairlead"), values=QUIET)
    assert _password(release) == password, "who has the password keeps it"
    release.helm("uninstall", release.name)
    wait_for(lambda: release.objects() == kept, otherwise=lambda: str(release.objects()))
    release.helm("uninstall", CRDS)
    assert cluster.get("crd", CRD)["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert cluster.get("modeldeployment", "kept", namespace=namespace)["spec"]["paused"] is True
    release.helm("install", CRDS, str(CHARTS / CRDS))
    release.helm("uninstall", CRDS)


def test_the_ledgers_keys_are_made_once_and_kept(release: Release) -> None:
    ledger: dict[str, Any] = {"enabled": True, "replicas": 0}
    quiet = {"operator": {"replicas": 0}, "ledger": ledger, "postgres": {"enabled": True}}
    chart = str(CHARTS / "fairlead")
    release.helm("install", release.name, chart, values=quiet)
    made = _secrets(release)
    ring = KeyRing.loaded(made["ledger-keys"]["keys.json"])

    key = {"id": "booking", "hash": "0" * 64, "roles": ["application"]}
    told = {**quiet, "ledger": {**ledger, "apiKeys": {"more": [key]}}}
    release.helm("upgrade", release.name, chart, values=told)
    upgraded = _secrets(release)
    listed = json.loads(made["ledger-api-keys"].pop("api-keys.json"))
    assert json.loads(upgraded["ledger-api-keys"].pop("api-keys.json")) == [*listed, key]
    assert upgraded == made

    newer = KeyRing((SigningKey("k2", b"2" * 32), *ring.signing), ring.units)
    patch = json.dumps({"stringData": {"keys.json": newer.dumped()}})
    release.cluster.kubectl(
        *("patch", "secret", f"{release.name}-ledger-keys", f"--namespace={release.namespace}", f"--patch={patch}")
    )
    release.helm("uninstall", release.name)
    release.helm("install", release.name, chart, values=quiet)
    again = _secrets(release)
    assert KeyRing.loaded(again.pop("ledger-keys")["keys.json"]) == newer, "who has put another key in front keeps it"
    assert json.loads(again["ledger-api-keys"].pop("api-keys.json")) == listed
    assert again == {name: secret for name, secret in made.items() if name != "ledger-keys"}


def test_a_namespaced_operator_may_do_nothing_elsewhere(release: Release) -> None:
    values = {"operator": {"replicas": 0, "namespaces": [release.namespace]}}
    release.helm("install", release.name, str(CHARTS / "fairlead"), values=values)
    operator = f"system:serviceaccount:{release.namespace}:{release.name}-operator"

    def may(verb: str, what: str, where: str) -> bool:
        return release.can(verb, what, who=operator, namespace=where)

    assert may("create", "inferenceservices.serving.kserve.io", release.namespace)
    assert may("get", "secrets", release.namespace)
    assert may("create", "envoyfilters.networking.istio.io", "istio-ingress")
    assert not may("create", "virtualservices.networking.istio.io", "istio-ingress")
    assert not may("get", "secrets", "istio-ingress")
    assert may("get", "pods/log", "istio-ingress")
    assert not may("get", "pods/log", release.namespace)
    assert not may("get", "secrets", "kube-system")
    assert not may("list", "pods", "kube-system")


def test_people_with_edit_write_deployments_and_people_with_view_read_them(release: Release) -> None:
    release.helm("install", release.name, str(CHARTS / "fairlead"), values={"operator": {"replicas": 0}})
    for person in ("view", "edit"):
        release.cluster.kubectl(
            *("create", "rolebinding", person, f"--clusterrole={person}", f"--user={person}"),
            f"--namespace={release.namespace}",
        )
    kind = "modeldeployments.serving.fairlead.dev"
    # The cluster's own controller puts roles together.
    wait_for(lambda: release.can("delete", kind, who="edit", namespace=release.namespace))
    wait_for(lambda: release.can("get", f"{kind}/status", who="view", namespace=release.namespace))
    assert not release.can("patch", kind, who="view", namespace=release.namespace)
    assert not release.can("patch", f"{kind}/status", who="edit", namespace=release.namespace)


def _within(namespace: str, values: Mapping[str, Any]) -> list[Manifest]:
    """Render a scenario into namespaces that exist here."""
    operator = dict(values.get("operator", {}))
    if operator.get("namespaces"):
        settings = {**operator.get("settings", {}), "gatewayNamespace": "istio-ingress"}
        operator |= {"namespaces": [namespace], "settings": settings}
    return rendered("fairlead", {**values, "operator": operator}, namespace=namespace)


def _pod(namespace: str, name: str, template: Manifest) -> Manifest:
    """Return a pod as it would be made; the account is the namespace's own, which is there already."""
    metadata = {"name": name, "namespace": namespace, "labels": template["metadata"].get("labels", {})}
    spec = {**template["spec"], "serviceAccountName": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _list(items: list[Manifest]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _password(release: Release) -> str:
    (secret,) = [
        one
        for one in release.cluster.get("secrets", namespace=release.namespace)["items"]
        if component_of(one) == "redis"
    ]
    return str(secret["data"]["password"])


def _secrets(release: Release) -> dict[str, dict[str, str]]:
    """Return what is in the Secrets of a release, by their names without the release's."""
    found = release.cluster.get("secrets", namespace=release.namespace, selector="app.kubernetes.io/part-of=fairlead")
    return {
        one["metadata"]["name"].removeprefix(f"{release.name}-"): {
            key: base64.b64decode(value).decode() for key, value in one["data"].items()
        }
        for one in found["items"]
    }


def _deployment(namespace: str) -> Manifest:
    model = {"uri": "https://models.example/m.onnx", "digest": "sha256:" + "0" * 64}
    return {
        "apiVersion": "serving.fairlead.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "kept", "namespace": namespace},
        "spec": {
            "paused": True,
            "featureStore": {"configMapRef": {"name": "feast-client"}},
            "variants": [{"name": "only", "role": "Control", "model": model}],
        },
    }
