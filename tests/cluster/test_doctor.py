"""``fairlead doctor`` in the real cluster: nothing bad where all is well, and each broken thing by its name.

KServe's controller, istiod and the operator are processes outside of this cluster, and there are no metrics: that is
doubted, never called good.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead_operator.doctor.areas import cluster_checks
from fairlead_operator.doctor.examine import examine
from fairlead_operator.doctor.findings import Finding, Level, Scope
from fairlead_operator.doctor.reader import Reader
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.connection import connect
from support.cluster import Cluster
from support.cluster_deployments import Deployed, Stage, stage_of
from support.cluster_operator import install, operator_of
from support.console import commands_of
from support.rbac import ROLE
from support.servers import RedisServer

TROUBLESHOOTING = Path(__file__).resolve().parents[2] / "docs/troubleshooting.md"
FLAGS = ("--lease-name=fairlead-operator", "--unavailable-grace-s=5")
WITHHELD = ("networking.istio.io", "envoyfilters", "patch")
_SEEN_WITHIN_S = 90.0

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def stage(cluster: Cluster, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A namespace with a healthy deployment, ``well``, and an operator."""
    install(cluster)
    folder, namespace = tmp_path_factory.mktemp("doctor"), f"d{secrets.token_hex(3)}"
    with (
        stage_of(cluster, redis, namespace, folder) as made,
        operator_of(cluster, namespace, folder, flags=FLAGS),
    ):
        well = made.apply(made.manifest("well", [made.variant("logistic")]))
        well.wait_condition("Ready")
        yield made
        made.retire()


async def examined(cluster: Cluster, scope: Scope) -> dict[str, list[Finding]]:
    """Return what the doctor finds, by area."""
    client = KubeClient(await connect(kubeconfig=cluster.kubeconfig))
    try:
        return {one.area: [*one.findings] async for one in examine(cluster_checks(), Reader(client), scope)}
    finally:
        await client.close()


async def until_seen(cluster: Cluster, scope: Scope, area: str, *patterns: str) -> list[Finding]:
    """Return what is bad in an area once all ``patterns`` are found in it (``subject: seen``)."""
    deadline = time.monotonic() + _SEEN_WITHIN_S
    while True:
        found = await examined(cluster, scope)
        bad = [one for one in found[area] if one.level is Level.BAD]
        said = [f"{one.subject}: {one.seen}" for one in bad]
        missing = [pattern for pattern in patterns if not any(re.search(pattern, line) for line in said)]
        if not missing:
            return bad
        assert time.monotonic() < deadline, f"{area}: {missing} not in {said}\n{found}"
        await asyncio.sleep(0.5)


def doctor(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    """Run the command as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "fairlead.cli.main", "doctor", *arguments],
        env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_where_all_is_well_nothing_is_bad_and_what_is_outside_is_said_to_be(cluster: Cluster, stage: Stage) -> None:
    before = cluster.get("mdep,pods,configmaps,deployments", namespace=stage.namespace)
    code, said = doctor(cluster, "--namespace", stage.namespace, "--output", "json")
    found = json.loads(said)
    bad = [one for one in found["findings"] if one["level"] == "bad"]
    assert (code, bad) == (0, [])
    doubted = {(one["area"], one["subject"]): one["seen"] for one in found["findings"] if one["level"] == "doubt"}
    for area, subject in (("operator", "Deployment"), ("KServe", "controller"), ("Istio", "istiod")):
        assert "outside the cluster" in doubted[area, subject]
    assert "not served" in doubted["autoscaling", "metrics API"]
    good = {(one["area"], one["subject"]) for one in found["findings"] if one["level"] == "good"}
    answered = {
        ("KServe", "webhooks"),
        ("Istio", "validation"),
        ("operator", "Lease"),
        ("ModelDeployment (CRD)", "schema"),
    }
    assert answered <= good
    assert ("ModelDeployments", f"{stage.namespace}/well") in good
    after = cluster.get("mdep,pods,configmaps,deployments", namespace=stage.namespace)
    assert {_version(one) for one in after["items"]} == {_version(one) for one in before["items"]}


def test_the_commands_of_the_troubleshooting_page_work(cluster: Cluster, stage: Stage) -> None:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{cluster.programs['kubectl'].parent}"
    environment = os.environ | {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    for command in commands_of(TROUBLESHOOTING.read_text(), "cluster"):
        text = re.sub(r"\bNAMESPACE\b", stage.namespace, command.text)
        text = re.sub(r"\bNAME\b", "well", text)
        done = subprocess.run(
            ["bash", "-euc", text], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"$ {text}\n{done.stdout}{done.stderr}"


def test_a_name_that_is_not_there_and_a_name_without_a_namespace(cluster: Cluster, stage: Stage) -> None:
    code, said = doctor(cluster, "nobody", "-n", stage.namespace)
    assert (code, "there is no such ModelDeployment" in said) == (1, True), said
    code, said = doctor(cluster, "well")
    assert (code, "--namespace" in said) == (2, True), said


async def test_each_broken_deployment_is_named_with_its_cause(cluster: Cluster, stage: Stage) -> None:
    namespace = stage.namespace
    big = {"requests": {"cpu": "900", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
    nowhere = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "nowhere", "namespace": namespace},
        "spec": {
            "selector": {"istio": f"nobody-{namespace}"},
            "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
        },
    }
    cluster.apply(nowhere)
    store = {"configMapRef": {"name": "feast-client"}, "secretRef": {"name": "not-made"}}
    broken: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("locked", {"featureStore": store}, {}),
        ("absent", {"serving": {"release": "99.9.9"}}, {}),
        (
            "astray",
            {"routing": {"gateways": [f"{namespace}/nowhere"], "hosts": [f"astray.{namespace}.example.org"]}},
            {},
        ),
        ("giant", {}, {"resources": big}),
    ]
    with retired(*(stage.apply(_broken(stage, name, spec, variant)) for name, spec, variant in broken)):
        scope = Scope(namespace)
        secret = await until_seen(
            cluster, scope, "feature stores", rf"{namespace}/locked: Secret not-made .* is not in"
        )
        assert [one.fix.split(" --from")[0] for one in secret] == [
            f"kubectl -n {namespace} create secret generic not-made"
        ]
        await until_seen(cluster, scope, "gateways", rf"{namespace}/nowhere: its selector .* matches no pod .*astray")
        await until_seen(
            cluster,
            scope,
            "pods",
            r"absent-.*: image fairlead.local/server:99\.9\.9 cannot be pulled",
            r"giant-.*: finds no node: .*Insufficient cpu",
            r"locked-.*: .*CreateContainerConfigError|locked-.*secret \"not-made\" not found",
        )
        conditions = await until_seen(
            cluster,
            scope,
            "ModelDeployments",
            r"/absent: VariantsReady is False, PodsBlocked",
            r"/astray: RoutingReady",
        )
        assert all("docs/runbooks/conditions.md#" in one.fix for one in conditions)
        code, said = doctor(cluster, "absent", "-n", namespace)
        assert (code, "giant" in said) == (1, False), said


async def test_a_missing_permission_of_the_operator_is_named(cluster: Cluster, stage: Stage) -> None:
    """Its Deployment has no pods here: that, too, is found."""
    namespace = stage.namespace
    group, resource, verb = WITHHELD
    role, own = yaml.safe_load_all(ROLE.read_text())
    rules = [left for rule in (*role["rules"], *own["rules"]) for left in _without(rule, group, resource, verb)]
    subject = {"kind": "ServiceAccount", "name": "fairlead-operator", "namespace": namespace}
    name = f"doctor-{namespace}"
    bound = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}}
    manifests: list[dict[str, Any]] = [
        _rbac("ClusterRole", name, rules=rules),
        _rbac("ClusterRoleBinding", name, subjects=[subject], **bound),
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "fairlead-operator", "namespace": namespace},
        },
        _operator(namespace),
    ]
    cluster.apply(*manifests)
    try:
        [one] = await until_seen(cluster, Scope(namespace), "permissions", r"may not")
        log = "get pods/log in istio-ingress"  # a Role of its own, which was not given either
        assert one.seen == f"{namespace}/fairlead-operator may not {log}, {verb} {resource}.{group}"
        assert await until_seen(cluster, Scope(namespace), "operator", r"Deployment: .*0 of 0 available")
    finally:
        cluster.delete(*manifests)


@contextmanager
def retired(*deployed: Deployed) -> Iterator[None]:
    """Delete deployments in the end, while their operator runs."""
    try:
        yield
    finally:
        for one in deployed:
            one.delete()


def _broken(stage: Stage, name: str, spec: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    return stage.manifest(name, [stage.variant("logistic", **variant)], **spec)


def _without(rule: dict[str, Any], group: str, resource: str, verb: str) -> list[dict[str, Any]]:
    """Return the rules that allow what ``rule`` does, but for one permission."""
    if group not in rule["apiGroups"] or resource not in rule["resources"]:
        return [rule]
    others = [one for one in rule["resources"] if one != resource]
    rest = {**rule, "resources": [resource], "verbs": [one for one in rule["verbs"] if one != verb]}
    return [rest, *([{**rule, "resources": others}] if others else [])]


def _rbac(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, **content}


def _operator(namespace: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "fairlead-operator"}
    container = {"name": "operator", "image": "fairlead.local/operator:0.1.0", "args": ["run"]}
    spec = {"serviceAccountName": "fairlead-operator", "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fairlead-operator", "namespace": namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _version(resource: dict[str, Any]) -> tuple[str, str]:
    return resource["metadata"]["uid"], resource["metadata"].get("generation", "")
