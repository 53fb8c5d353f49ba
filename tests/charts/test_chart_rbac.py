"""What the chart lets the operator do is what the operator needs, in every scope, and what people may do is theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from fairlead_operator.platforms.kubernetes import kinds
from fairlead_operator.platforms.kubernetes.kinds import CHILDREN, Kind
from support.charts import Manifest, component_of, one, operator_of, rendered, scenarios
from support.rbac import Grant, granted

NAMESPACED = scenarios("fairlead")["02-namespaced"]
WIDE = {(k.group, k.plural) for k in vars(kinds).values() if isinstance(k, Kind) and not k.namespaced}

READS_LOGS = {("", "pods/log", "get")}
LOGS = {("istio-ingress", "fairlead-operator-gateway-log"): READS_LOGS}


def grants(rules: Iterable[Any]) -> set[Grant]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def roles(manifests: list[Manifest], kind: str) -> dict[tuple[str, str], set[Grant]]:
    """Return what each role of the operator's allows, by namespace and name."""
    return {
        (m["metadata"].get("namespace", ""), m["metadata"]["name"]): grants(m["rules"])
        for m in manifests
        if m["kind"] == kind and component_of(m) == "operator"
    }


def is_wide(grant: Grant) -> bool:
    return (grant[0], grant[1]) in WIDE


def test_the_chart_grants_what_the_operators_role_says_and_nothing_else() -> None:
    objects = rendered("fairlead")
    assert roles(objects, "ClusterRole") == {("", "fairlead-operator"): granted("ClusterRole")}
    assert roles(objects, "Role") == {("fairlead-system", "fairlead-operator-lease"): granted("Role"), **LOGS}


def test_chosen_namespaces_leave_the_clusters_own_kinds_to_the_cluster_role() -> None:
    objects = rendered("fairlead", NAMESPACED)
    wide = {grant for grant in granted("ClusterRole") if is_wide(grant)}
    assert roles(objects, "ClusterRole") == {("", "fairlead-operator"): wide}
    assert {resource for _, resource, _ in wide} == {"namespaces", "clusterstoragecontainers"}
    found = roles(objects, "Role")
    for namespace in ("flights", "hotels"):
        assert found.pop((namespace, "fairlead-operator")) == granted("ClusterRole") - wide
    assert found.pop(("fairlead-system", "fairlead-operator-lease")) == granted("Role")
    assert found.pop(("edge", "fairlead-operator-gateway-log")) == READS_LOGS
    assert list(found) == [("edge", "fairlead-operator")]


def test_at_the_gateway_filters_and_policies_are_written_and_the_rest_is_read() -> None:
    at_gateway = roles(rendered("fairlead", NAMESPACED), "Role")["edge", "fairlead-operator"]
    written = {(group, resource) for group, resource, verb in at_gateway if verb not in ("get", "list", "watch")}
    assert written == {("networking.istio.io", "envoyfilters"), ("security.istio.io", "authorizationpolicies")}
    watched = {(w.kind.group, w.kind.plural) for w in CHILDREN if w.kind.namespaced}
    assert {(group, plural, verb) for group, plural in watched for verb in ("list", "watch")} <= at_gateway
    assert {("", "pods", "list"), ("", "services", "list")} <= at_gateway
    assert not [grant for grant in at_gateway if grant[1] == "secrets" or grant[0] == "serving.fairlead.dev"]


@pytest.mark.parametrize(
    ("operator", "namespaces"),
    [
        ({}, {"istio-ingress"}),
        ({"settings": {"gatewayNamespace": "edge"}}, {"edge"}),
        ({"rbac": {"gatewayLogNamespaces": ["edge", "inner"]}}, {"edge", "inner"}),
        ({"settings": {"gatewayLog": False}}, set()),
        ({"rbac": {"gatewayLogNamespaces": ["edge"]}, "settings": {"gatewayLog": False}}, set()),
    ],
    ids=["default", "another gateway", "several", "off", "off, several"],
)
def test_logs_are_read_where_the_gateways_are_and_nowhere_else(operator: Any, namespaces: set[str]) -> None:
    found = {kind: roles(rendered("fairlead", {"operator": operator}), kind) for kind in ("Role", "ClusterRole")}
    reading = {key for key, allowed in found["Role"].items() if allowed & READS_LOGS}
    assert reading == {(namespace, "fairlead-operator-gateway-log") for namespace in namespaces}
    assert all(found["Role"][key] == READS_LOGS for key in reading)
    assert not any(allowed & READS_LOGS for allowed in found["ClusterRole"].values())


@pytest.mark.parametrize("name", scenarios("fairlead"))
def test_every_role_is_bound_to_the_operators_account_alone(name: str) -> None:
    objects = rendered("fairlead", scenarios("fairlead")[name])
    account = operator_of(objects)["spec"]["template"]["spec"]["serviceAccountName"]
    bindings = [m for m in objects if m["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    bound = {(m["roleRef"]["kind"], m["metadata"].get("namespace", ""), m["roleRef"]["name"]) for m in bindings}
    made = {(kind, *key) for kind in ("Role", "ClusterRole") for key in roles(objects, kind)}
    assert bound == made
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "fairlead-system"}]


@pytest.mark.parametrize("name", scenarios("fairlead"))
def test_no_role_has_a_wildcard_lists_secrets_or_grows(name: str) -> None:
    for manifest in rendered("fairlead", scenarios("fairlead")[name]):
        if manifest["kind"] not in ("Role", "ClusterRole"):
            continue
        for group, resource, verb in grants(manifest["rules"]):
            assert "*" not in (group, resource, verb)
            assert not (resource == "secrets" and verb in ("list", "watch", "delete", "deletecollection"))
            assert verb not in ("escalate", "bind", "impersonate")
            assert group != "rbac.authorization.k8s.io"


def test_people_gain_deployments_with_the_roles_that_they_have() -> None:
    objects = rendered("fairlead")
    view, edit = one(objects, "ClusterRole", "fairlead-view"), one(objects, "ClusterRole", "fairlead-edit")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    aims = [
        {label.removeprefix(prefix) for label in role["metadata"]["labels"] if label.startswith(prefix)}
        for role in (view, edit)
    ]
    assert aims == [{"view", "edit", "admin"}, {"edit", "admin"}]
    assert {verb for _, _, verb in grants(view["rules"])} == {"get", "list", "watch"}
    assert ("networking.istio.io", "virtualservices", "get") in grants(view["rules"]), "fairlead assign reads the route"
    assert {resource for _, resource, _ in grants(edit["rules"])} == {"modeldeployments"}, (
        "the status is the operator's"
    )
