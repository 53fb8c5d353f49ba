"""NetworkPolicies let through what the parts need and nothing else."""

from __future__ import annotations

from typing import Any

from fairlead_operator.platforms.kubernetes import render
from fairlead_operator.platforms.kubernetes.kinds import OURS
from fairlead_operator.platforms.kubernetes.render.pods import GRPC_PORT, HTTP_PORT
from support.charts import Manifest, one, rendered, scenarios
from support.rendering import PLACE, revision


def policy(values: Any = None, name: str = "fairlead-operator") -> Manifest:
    """Return the spec of a policy."""
    return dict(one(rendered("fairlead", values), "NetworkPolicy", name)["spec"])


def namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def test_the_operator_is_denied_what_is_not_named() -> None:
    found = policy()
    assert found["policyTypes"] == ["Ingress", "Egress"]
    ports = [{port["port"] for port in rule.get("ports", ())} for rule in found["egress"]]
    assert ports == [{443, 6443, 8443, 16443}, {53}, {HTTP_PORT, GRPC_PORT}, set()]
    assert found["egress"][3]["to"] == [namespace("istio-ingress")]


def test_the_operator_reaches_the_pods_of_models() -> None:
    (peer,) = policy()["egress"][2]["to"]
    service = render.inference_service(PLACE, revision(), min_replicas=1, max_replicas=1, cpu_percent=70)
    assert peer["podSelector"]["matchLabels"] == OURS
    assert OURS.items() <= service["metadata"]["labels"].items()
    assert peer["namespaceSelector"] == {"matchLabels": {}}


def test_the_operator_reaches_models_where_it_serves_alone() -> None:
    found = policy(scenarios("fairlead")["02-namespaced"])
    (peer,) = found["egress"][2]["to"]
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["flights", "hotels"]
    assert found["egress"][3]["to"] == [namespace("edge")]


def test_prometheus_and_the_charts_test_reach_the_operator() -> None:
    (rule,) = policy()["ingress"]
    monitoring, test = rule["from"]
    pod = one(rendered("fairlead"), "Pod")
    assert monitoring == namespace("monitoring")
    assert test["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]


def test_redis_reaches_nothing_and_is_reached_from_chosen_namespaces() -> None:
    values = {"redis": {"enabled": True, "namespaceSelector": {"matchLabels": {"team": "a"}}}}
    found = policy(values, "fairlead-redis")
    assert found["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in found
    (rule,) = found["ingress"]
    assert rule["from"] == [
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"serving.fairlead.dev/redis": "true", "team": "a"}}},
    ]


def test_a_null_drops_the_default_label_of_redis_namespaces() -> None:
    labels = {"serving.fairlead.dev/redis": None, "team": "a"}
    values = {"redis": {"enabled": True, "namespaceSelector": {"matchLabels": labels}}}
    (rule,) = policy(values, "fairlead-redis")["ingress"]
    assert rule["from"][1] == {"namespaceSelector": {"matchLabels": {"team": "a"}}}


LEDGER = {"ledger": {"enabled": True}, "postgres": {"enabled": True}}


def component(name: str) -> dict[str, Any]:
    """Return a peer: the pods of a part of the same release."""
    labels = {"app.kubernetes.io/name": "fairlead", "app.kubernetes.io/instance": "fairlead"}
    return {"podSelector": {"matchLabels": {**labels, "app.kubernetes.io/component": name}}}


def test_the_ledger_is_reached_by_those_who_tell_and_ask_it() -> None:
    (rule,) = policy(LEDGER, "fairlead-ledger")["ingress"]
    servers = {"namespaceSelector": {"matchLabels": {}}, "podSelector": {"matchLabels": OURS}}
    applications = {"namespaceSelector": {"matchLabels": {"serving.fairlead.dev/ledger": "true"}}}
    assert rule["from"] == [component("operator"), component("test"), namespace("monitoring"), servers, applications]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert policy(LEDGER)["egress"][-1] == {"to": [component("ledger")], "ports": rule["ports"]}


def test_servers_reach_the_ledger_where_the_operator_serves_alone() -> None:
    values = {**LEDGER, **scenarios("fairlead")["02-namespaced"]}
    (expression,) = policy(values, "fairlead-ledger")["ingress"][0]["from"][3]["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["flights", "hotels"]


def test_the_bundled_database_is_the_ledgers_alone() -> None:
    found = policy(LEDGER, "fairlead-postgres")
    assert "egress" not in found
    assert [rule["from"] for rule in found["ingress"]] == [[component("ledger"), component("migrations")]]
    assert policy(LEDGER, "fairlead-ledger")["egress"][1]["to"] == [component("postgres")]


def test_the_ledger_reaches_its_database_brokers_and_names_alone() -> None:
    names, database, brokers = policy(scenarios("fairlead")["07-ledger"], "fairlead-ledger")["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert database["to"] == [{"ipBlock": {"cidr": "10.2.0.0/24"}}]
    assert [port["port"] for port in database["ports"]] == [6432]
    assert brokers["to"] == [{"ipBlock": {"cidr": "10.3.0.0/24"}}]
    assert [port["port"] for port in brokers["ports"]] == [9093]


def test_policies_can_be_somebody_elses() -> None:
    kinds = {m["kind"] for m in rendered("fairlead", scenarios("fairlead")["06-bare"])}
    assert not kinds & {"NetworkPolicy", "Role", "ClusterRole", "ServiceAccount", "PodDisruptionBudget"}
