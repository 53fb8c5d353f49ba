"""Alerts and dashboards speak of metrics, labels and values that the code has, and every alert has its runbook."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from fairlead.feedback.messages import Fate
from fairlead.policy import FeatureState
from fairlead_ledger.kafka.metrics import KafkaMetrics, MessageFate
from fairlead_ledger.metrics import LedgerMetrics
from fairlead_operator.api.conditions import ConditionType
from fairlead_operator.metrics import READ_OFF, OperatorMetrics
from fairlead_operator.platforms.kubernetes.kinds import CHILDREN, PARENT
from fairlead_operator.runtime.queue import Result
from support.charts import CHARTS, one, rendered, scenarios

ROOT = CHARTS.parent
LEDGER: Mapping[str, Any] = {"ledger": {"enabled": True}, "postgres": {"enabled": True}}


def alerts(values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the alerts as Prometheus gets them; with those of the ledger, unless ``values`` have none."""
    wanted = {"monitoring": {"prometheusRule": {"enabled": True}}, **LEDGER, **(values or {})}
    groups = one(rendered("fairlead", wanted), "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = alerts()
DASHBOARDS = sorted((CHARTS / "fairlead/dashboards").glob("*.json"))
OF_PROMETHEUS = {"namespace", "pod", "job", "instance", "le"}
"""Labels that Prometheus adds."""

_SERVER = importlib.import_module("fairlead_server.metrics")
_EXPOSURE = importlib.import_module("fairlead_server.exposure.experiment")


def _expressions() -> Iterator[Any]:
    for alert in ALERTS:
        yield pytest.param(alert["expr"], id=alert["alert"])
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")


@cache
def metrics() -> Mapping[str, set[str]]:
    """Return every metric that can be asked for, with its labels."""
    registry = CollectorRegistry()
    OperatorMetrics(registry, "0")
    found = {name: set(labels) for name, (_, labels) in READ_OFF.items()}
    for collector in registry._collector_to_names:
        if labels := getattr(collector, "_labelnames", None):
            found |= {name: set(labels) for name in registry._collector_to_names[collector]}
        else:
            found |= {name: set() for name in registry._collector_to_names[collector]}
    ledger = LedgerMetrics()
    ledger.watch(lambda: 0)
    KafkaMetrics(ledger.registry, ("exposures", "outcomes"), lambda: 0)
    for collector, names in ledger.registry._collector_to_names.items():
        found |= {name: set(getattr(collector, "_labelnames", ())) for name in names}
    server = _SERVER.ServerMetrics(CollectorRegistry())
    for family in server.collect():
        names = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}[family.type]
        found |= {family.name + end: set(family._labelnames) for end in names}
    return found


def values_of(label: str, metric: str) -> set[str] | None:
    """Return what a label may be, where the code has a closed list of it."""
    closed: Mapping[tuple[str, str], Any] = {
        ("fairlead_reconciles_total", "result"): Result,
        ("fairlead_deployments", "condition"): ConditionType,
        ("fairlead_deployments", "status"): ["True", "False", "Unknown"],
        ("fairlead_kind_missing", "kind"): [watched.kind.plural for watched in (PARENT, *CHILDREN)],
        ("fairlead_resyncs_total", "result"): ["success", "error"],
        ("fairlead_ledger_outcomes_total", "fate"): Fate,
        ("fairlead_ledger_folds_total", "outcome"): ["done", "failed"],
        ("fairlead_ledger_kafka_messages_total", "fate"): MessageFate,
        ("fairlead_feature_states_total", "state"): FeatureState,
        ("fairlead_store_reads_total", "outcome"): _SERVER.ReadOutcome,
        ("fairlead_registry_reads_total", "outcome"): _SERVER.RegistryRead,
        ("fairlead_exposures_total", "outcome"): _EXPOSURE.Outcome,
        ("fairlead_stage_seconds_bucket", "stage"): _SERVER.Stage,
    }
    found = closed.get((metric, label))
    return None if found is None else {str(one) for one in found}


@pytest.mark.parametrize("expression", [*_expressions()])
def test_an_expression_asks_for_what_there_is(expression: str) -> None:
    used = re.findall(r"(fairlead_\w+)(?:\{([^}]*)\})?", expression)
    assert used
    for metric, matchers in used:
        assert metric in metrics()
        for label, operation, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            assert label in metrics()[metric] | OF_PROMETHEUS
            known = values_of(label, metric)
            if known is not None and not value.startswith("$"):
                asked = set(value.split("|")) if "~" in operation else {value}
                assert asked <= known, f"{metric} has no such {label}"
    labels = set.union(*(metrics()[metric] for metric, _ in used)) | OF_PROMETHEUS
    for grouped in re.findall(r"\b(?:by|without|ignoring|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= labels
    assert expression.count("(") == expression.count(")")
    assert expression.count('"') % 2 == 0


def test_the_metrics_that_are_asked_about_are_those_of_the_code() -> None:
    """The list above is not empty by accident."""
    assert {"fairlead_leader", "fairlead_reconciles_total", "fairlead_requests_total", "fairlead_degraded"} <= set(
        metrics()
    )


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_names_only_labels_that_it_keeps(alert: Mapping[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["description"].endswith(".")
    shown = set(re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])))
    kept = {label.strip() for group in re.findall(r"by \(([^)]*)\)", alert["expr"]) for label in group.split(",")}
    assert shown <= kept


def test_every_alert_has_its_section_of_the_runbook_and_no_section_is_without_one() -> None:
    page = (ROOT / "docs/runbooks/alerts.md").read_text()
    sections = re.findall(r"^## (Fairlead\w+)$", page, re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]
    for body in re.split(r"^## Fairlead\w+$", page, flags=re.MULTILINE)[1:]:
        assert "- See: " in body
        assert "- Do: " in body


def test_rules_carry_labels_runbooks_and_what_is_not_left_out() -> None:
    rules = alerts({**LEDGER, **scenarios("fairlead")["03-monitoring"]})
    assert [rule["alert"] for rule in rules] == [a["alert"] for a in ALERTS if a["alert"] != "FairleadSlow"]
    assert "FairleadLedgerAbsent" not in {rule["alert"] for rule in alerts({"ledger": {"enabled": False}})}
    for rule in rules:
        assert rule["labels"]["team"] == "serving"
        url = f"https://docs.example.org/runbooks/alerts#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == url


def test_templates_of_prometheus_are_not_helms() -> None:
    groups = yaml.safe_load((CHARTS / "fairlead/files/alerts.yaml").read_text())["groups"]
    source = {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"]}
    assert {alert["alert"]: alert["annotations"] for alert in ALERTS} == source


@pytest.mark.parametrize(
    ("chosen", "limits"),
    [({}, (120, 180)), ({"reconcileDeadlineS": 1_200_000, "watchSilenceS": 150.5}, (1_200_000, 301))],
)
def test_alerts_wait_for_as_long_as_the_settings_allow(
    chosen: Mapping[str, float], limits: tuple[float, float]
) -> None:
    found = {a["alert"]: a["expr"] for a in alerts({"operator": {"settings": chosen}})}
    stuck, deaf = (float(found[name].rsplit(" > ", 1)[1]) for name in ("FairleadReconcileStuck", "FairleadWatchDeaf"))
    assert (stuck, deaf) == limits
    assert not [name for name, text in found.items() if re.search(r"[A-Z]_S\b", text)]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_takes(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    maps = [m for m in rendered("fairlead", scenarios("fairlead")["03-monitoring"]) if m["kind"] == "ConfigMap"]
    (given,) = [m["data"][key] for m in maps for key in m["data"] if key == f"fairlead-{path.name}"]
    assert json.loads(given) == dashboard
    assert dashboard["uid"] == f"fairlead-{path.stem}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"]))) <= defined
    for variable in dashboard["templating"]["list"]:
        for metric, label in re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]):
            assert label in metrics()[metric] | OF_PROMETHEUS


def test_monitors_scrape_ports_and_pods_that_there_are() -> None:
    objects = rendered("fairlead", scenarios("fairlead")["03-monitoring"])
    service, monitor = one(objects, "Service"), one(objects, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor"])
def test_the_ledger_is_scraped_where_the_operator_is(kind: str) -> None:
    objects = rendered("fairlead", {**LEDGER, "monitoring": {kind: {"enabled": True, "interval": "7s"}}})
    monitor = one(objects, kind[0].upper() + kind[1:], "fairlead-ledger")["spec"]
    service = one(objects, "Service", "fairlead-ledger")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor.get("endpoints") or monitor["podMetricsEndpoints"]
    assert endpoint == {"port": service["spec"]["ports"][0]["name"], "path": "/metrics", "interval": "7s"}


def test_servers_are_scraped_where_the_operator_serves() -> None:
    everywhere = one(rendered("fairlead", scenarios("fairlead")["03-monitoring"]), "PodMonitor", "fairlead-servers")
    chosen = one(rendered("fairlead", scenarios("fairlead")["02-namespaced"]), "PodMonitor", "fairlead-servers")
    assert everywhere["spec"]["namespaceSelector"] == {"any": True}
    assert chosen["spec"]["namespaceSelector"] == {"matchNames": ["flights", "hotels"]}
