"""What the charts take: every setting of the operator, by its name, and nothing that is misspelt."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fairlead_operator import settings
from fairlead_operator.settings import Settings
from support.charts import CHARTS, ChartRefused, one, operator_of, rendered, scenarios

ELSEWHERE = {
    *("namespaces", "server_image", "own_namespace", "pod_name", "kubeconfig", "context"),
    *("ledger_api_key", "ledger_server_key", "feedback_keys"),
    *("kafka_bootstrap_servers", "kafka_config", "kafka_exposures_topic"),
}
"""Settings that other values, or the pod itself, decide."""


def environment(values: Any = None) -> dict[str, str]:
    """Return the operator's variables; those that the cluster fills in have the field's path."""
    pod = operator_of(rendered("fairlead", values))["spec"]["template"]["spec"]
    found = {}
    for variable in pod["containers"][0]["env"]:
        source = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        found[variable["name"]] = source or variable["value"]
    return found


def read(values: Any = None) -> Settings:
    """Return the settings that the operator reads from its variables."""
    return settings.read([], prog="operator", environ=environment(values))


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def test_the_charts_defaults_are_the_operators() -> None:
    own = {"own_namespace": "metadata.namespace", "pod_name": "metadata.name"}
    assert read() == Settings.model_validate(own)


def test_every_setting_is_a_value() -> None:
    defaults = yaml.safe_load((CHARTS / "fairlead/values.yaml").read_text())["operator"]["settings"]
    assert set(defaults) == {camel(name) for name in Settings.model_fields if name not in ELSEWHERE}
    known = {settings.variable(name) for name in Settings.model_fields}
    assert set(environment(scenarios("fairlead")["02-namespaced"])) <= known


def test_values_reach_the_operator() -> None:
    found = read(scenarios("fairlead")["05-everything"])
    assert found.lease_name == "mine"
    assert found.shutdown_s == 4.5
    assert found.resync_interval_s == 1_200_000
    assert found.default_release == "0.0.9"
    assert found.server_image == "registry.example.org/serving/fairlead/server:{release}"
    assert read(scenarios("fairlead")["02-namespaced"]).child_namespaces == ("edge", "flights", "hotels")


def test_the_port_is_the_same_everywhere() -> None:
    values = {"operator": {"settings": {"httpPort": 9090}}}
    container = one(rendered("fairlead", values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert [port["containerPort"] for port in container["ports"]] == [read(values).http_port]
    probes = [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {"http"}


@pytest.mark.parametrize("seconds", [0.5, 4.5, 9])
def test_the_kubelet_waits_longer_than_the_operator_takes_to_stop(seconds: float) -> None:
    values = {"operator": {"settings": {"shutdownS": seconds}}}
    pod = one(rendered("fairlead", values), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= seconds + 10


@pytest.mark.parametrize(
    ("chart", "values", "said"),
    [
        ("fairlead", {"replicas": 2}, "additional properties 'replicas' not allowed"),
        ("fairlead", {"operator": {"replica": 2}}, "at '/operator': additional properties 'replica' not allowed"),
        ("fairlead", {"operator": {"settings": {"worker": 2}}}, "at '/operator/settings'"),
        ("fairlead", {"operator": {"settings": {"namespaces": ["a"]}}}, "at '/operator/settings'"),
        ("fairlead", {"operator": {"settings": {"workers": "2"}}}, "at '/operator/settings/workers': got string"),
        ("fairlead", {"operator": {"settings": {"workers": 0}}}, "at '/operator/settings/workers': minimum"),
        ("fairlead", {"operator": {"settings": {"httpPort": 0}}}, "at '/operator/settings/httpPort': minimum"),
        ("fairlead", {"operator": {"settings": {"logFormat": "xml"}}}, "at '/operator/settings/logFormat': value must"),
        ("fairlead", {"operator": {"namespaces": "flights"}}, "at '/operator/namespaces': got string, want array"),
        ("fairlead", {"operator": {"namespaces": ["Flights"]}}, "at '/operator/namespaces/0'"),
        ("fairlead", {"operator": {"image": {"digest": "0123"}}}, "at '/operator/image/digest'"),
        ("fairlead", {"operator": {"image": {"pullPolicy": "Sometimes"}}}, "at '/operator/image/pullPolicy'"),
        ("fairlead", {"monitoring": {"serviceMonitor": {"on": True}}}, "at '/monitoring/serviceMonitor'"),
        ("fairlead", {"monitoring": {"podMonitor": {"interval": "soon"}}}, "at '/monitoring/podMonitor/interval'"),
        ("fairlead", {"redis": {"password": "two words"}}, "at '/redis/password'"),
        ("fairlead", {"networkPolicy": True}, "at '/networkPolicy': got boolean, want object"),
        (
            "fairlead",
            {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
            "exclude each other",
        ),
        ("fairlead", {"operator": {"settings": {"leaseRetryS": 11}}}, "leaseRetryS < leaseRenewDeadlineS"),
        ("fairlead", {"ledger": {"enabled": True}}, "ledger.enabled needs a database"),
        ("fairlead", {"ledger": {"database": {"url": "postgresql://u:p@h/d"}}}, "at '/ledger/database'"),
        ("fairlead", {"ledger": {"retentionDays": -1}}, "at '/ledger/retentionDays': minimum"),
        ("fairlead", {"ledger": {"apiKeys": {"secretName": "s", "more": [{}]}}}, "ledger.apiKeys.more goes into"),
        (
            "fairlead",
            {"postgres": {"enabled": True}, "ledger": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
            "minReplicas must not be more",
        ),
        ("fairlead", {"postgres": {"storage": {"size": "2"}}}, "at '/postgres/storage/size'"),
        ("fairlead-crds", {"kept": False}, "additional properties 'kept' not allowed"),
        ("fairlead-crds", {"keep": "no"}, "at '/keep': got string, want boolean"),
    ],
)
def test_what_is_wrong_is_refused_by_its_place(chart: str, values: Any, said: str) -> None:
    with pytest.raises(ChartRefused) as refused:
        rendered(chart, values)
    assert said in str(refused.value)


@pytest.mark.parametrize("chart", ["fairlead", "fairlead-crds"])
def test_a_chart_may_be_anothers_part(chart: str) -> None:
    assert rendered(chart, {"global": {"anything": 1}}) == rendered(chart)
