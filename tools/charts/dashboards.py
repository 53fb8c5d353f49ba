"""Grafana dashboards over the operator's, the servers' and the ledger's metrics, built as data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_COLUMNS: Final = 24
_HEIGHT: Final = 8
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph."""

    title: str
    unit: str
    """Grafana's name of it: ``reqps``, ``s``, ``percentunit``, ``short``."""
    queries: Mapping[str, str]
    """Expressions by their legends."""
    text: str
    """What it tells."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard: panels two in a row."""

    name: str
    title: str
    variables: Sequence[tuple[str, str]]
    """Names of choices, and the metric whose label of that name is chosen from."""
    panels: Sequence[Panel]


_OPERATOR: Final = Dashboard(
    "operator",
    "Fairlead / Operator",
    (("namespace", "fairlead_build_info"),),
    (
        Panel(
            "Deployments by condition",
            "short",
            {
                "{{condition}} {{status}}": (
                    'max by (condition, status) (fairlead_deployments{namespace="$namespace",status!="True"})'
                )
            },
            "ModelDeployments with a condition that is not True.",
        ),
        Panel(
            "Who leads",
            "short",
            {"{{pod}}": 'max by (pod) (fairlead_leader{namespace="$namespace"})'},
            "1 for the one that writes.",
        ),
        Panel(
            "Reconciles",
            "ops",
            {"{{result}}": 'sum by (result) (rate(fairlead_reconciles_total{namespace="$namespace"}[5m]))'},
            "By how they ended.",
        ),
        Panel(
            "Time of a reconcile",
            "s",
            {
                f"p{percent}": f"histogram_quantile(0.{percent}, sum by (le) "
                '(rate(fairlead_reconcile_seconds_bucket{namespace="$namespace"}[5m])))'
                for percent in (50, 95, 99)
            },
            "The longest should stay well below reconcileDeadlineS.",
        ),
        Panel(
            "Queue",
            "short",
            {"{{state}}": 'max by (state) (fairlead_queue_keys{namespace="$namespace"})'},
            "ready keys wait for a worker, delayed ones for their time.",
        ),
        Panel(
            "Longest wait and run",
            "s",
            {
                "waits": 'max (fairlead_queue_oldest_seconds{namespace="$namespace"})',
                "runs": 'max (fairlead_running_oldest_seconds{namespace="$namespace"})',
                "p95 of waits": (
                    "histogram_quantile(0.95, sum by (le) "
                    '(rate(fairlead_queue_wait_seconds_bucket{namespace="$namespace"}[5m])))'
                ),
            },
            "How long changes wait, and how long the present reconciles have been going on.",
        ),
        Panel(
            "Calls to the API server",
            "reqps",
            {"{{verb}} {{code}}": 'sum by (verb, code) (rate(fairlead_api_calls_total{namespace="$namespace"}[5m]))'},
            "By verb and HTTP code.",
        ),
        Panel(
            "Time of a call",
            "s",
            {
                "{{verb}}": (
                    "histogram_quantile(0.95, sum by (verb, le) "
                    '(rate(fairlead_api_call_seconds_bucket{namespace="$namespace"}[5m])))'
                )
            },
            "95th percentile to the first byte.",
        ),
        Panel(
            "Silence of watches",
            "s",
            {"{{kind}}": 'max by (kind) (fairlead_watch_age_seconds{namespace="$namespace"})'},
            "How long ago each last told anything.",
        ),
        Panel(
            "Watches begun anew",
            "ops",
            {
                "{{kind}} {{reason}}": (
                    'sum by (kind, reason) (rate(fairlead_watch_restarts_total{namespace="$namespace"}[15m]))'
                ),
                "transport": 'sum (rate(fairlead_transport_restarts_total{namespace="$namespace"}[15m]))',
            },
            "expired and ended are usual every few minutes.",
        ),
    ),
)

_OF_MODEL: Final = 'namespace=~"$namespace",model=~"$model"'

_MODELS: Final = Dashboard(
    "models",
    "Fairlead / Models",
    (("namespace", "fairlead_requests_total"), ("model", "fairlead_requests_total")),
    (
        Panel(
            "Requests by variant",
            "reqps",
            {"{{model}} {{variant}}": f"sum by (model, variant) (rate(fairlead_requests_total{{{_OF_MODEL}}}[5m]))"},
            "Their shares are the weights, but for mirrored copies.",
        ),
        Panel(
            "Failed requests",
            "percentunit",
            {
                "{{model}} {{variant}}": (
                    f'sum by (model, variant) (rate(fairlead_requests_total{{{_OF_MODEL},code=~"5..|408|429|INTERNAL|'
                    'UNAVAILABLE|UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED"}[5m])) / '
                    f"sum by (model, variant) (rate(fairlead_requests_total{{{_OF_MODEL}}}[5m]))"
                )
            },
            "Mistakes of clients do not count.",
        ),
        Panel(
            "Time by stage, 99th percentile",
            "s",
            {
                "{{variant}} {{stage}}": (
                    "histogram_quantile(0.99, sum by (variant, stage, le) "
                    f"(rate(fairlead_stage_seconds_bucket{{{_OF_MODEL}}}[5m])))"
                )
            },
            "decode, hydrate, infer, encode.",
        ),
        Panel(
            "Features by state",
            "percentunit",
            {
                "{{view}} {{state}}": (
                    f"sum by (view, state) (rate(fairlead_feature_states_total{{{_OF_MODEL}}}[5m])) / ignoring (state) "
                    f"group_left sum by (view) (rate(fairlead_feature_states_total{{{_OF_MODEL}}}[5m]))"
                )
            },
            "What is not PRESENT is filled in by the policies of hydration.",
        ),
        Panel(
            "Reads of the online store",
            "reqps",
            {
                "{{variant}} {{outcome}}": (
                    f"sum by (variant, outcome) (rate(fairlead_store_reads_total{{{_OF_MODEL}}}[5m]))"
                )
            },
            "error, timeout and refused bring no features.",
        ),
        Panel(
            "Breaker of the online store",
            "short",
            {
                "{{variant}} left alone": f"max by (variant) (fairlead_store_circuit_open{{{_OF_MODEL}}})",
                "{{variant}} {{circuit}} per minute": (
                    f"60 * sum by (variant, circuit) (rate(fairlead_store_circuits_total{{{_OF_MODEL}}}[5m]))"
                ),
            },
            "1 while a sick store is not asked, and how often that changes.",
        ),
        Panel(
            "Age of rows",
            "s",
            {
                f"{{{{view}}}} p{percent}": (
                    f"histogram_quantile(0.{percent}, sum by (view, le) "
                    f"(rate(fairlead_feature_age_seconds_bucket{{{_OF_MODEL}}}[15m])))"
                )
                for percent in (50, 95)
            }
            | {"{{view}} limit": f"max by (view) (fairlead_feature_max_age_seconds{{{_OF_MODEL}}})"},
            "Of the rows that requests found; beyond the limit they are STALE.",
        ),
        Panel(
            "Who reads the views",
            "short",
            {"{{view}} {{reader}}": f"max by (view, reader) (fairlead_feature_reader{{{_OF_MODEL}}})"},
            "redis is read directly, other stores through Feast.",
        ),
        Panel(
            "Without online store",
            "short",
            {"{{model}} {{variant}}": f"max by (model, variant) (fairlead_degraded{{{_OF_MODEL}}})"},
            "1 while a model answers without it.",
        ),
        Panel(
            "Exposures",
            "reqps",
            {
                "{{variant}} {{outcome}}": (
                    f"sum by (variant, outcome) (rate(fairlead_exposures_total{{{_OF_MODEL}}}[5m]))"
                )
            },
            "mismatch should not occur at all.",
        ),
        Panel(
            "Contract drift",
            "short",
            {"{{model}} {{variant}}": f"max by (model, variant) (fairlead_contract_drift{{{_OF_MODEL}}})"},
            "1 while the registered features are others than those that are served.",
        ),
        Panel(
            "Registry and connections",
            "ops",
            {
                "registry {{outcome}}": (f"sum by (outcome) (rate(fairlead_registry_reads_total{{{_OF_MODEL}}}[15m]))"),
                "connection {{kind}}": (
                    f"sum by (kind) (rate(fairlead_connection_failures_total{{{_OF_MODEL}}}[15m]))"
                ),
            },
            "differs and failed say that the features are not those of the model, or unread; swapped is a new plan.",
        ),
    ),
)

_OF_LEDGER: Final = 'namespace="$namespace"'

_LEDGER: Final = Dashboard(
    "ledger",
    "Fairlead / Ledger",
    (("namespace", "fairlead_ledger_waiting_entries"),),
    (
        Panel(
            "Outcomes by what became of them",
            "ops",
            {"{{fate}}": f"sum by (fate) (rate(fairlead_ledger_outcomes_total{{{_OF_LEDGER}}}[5m]))"},
            "Accepted ones count, once their request is old enough; Forged ones are tokens that nobody here signed.",
        ),
        Panel(
            "Reports of servers and gateways",
            "ops",
            {"{{outcome}}": f"sum by (outcome) (rate(fairlead_ledger_reports_total{{{_OF_LEDGER}}}[5m]))"},
            "By whether they were told before; told again they count once.",
        ),
        Panel(
            "Requests that failed",
            "reqps",
            {
                "{{route}} {{code}}": (
                    f'sum by (route, code) (rate(fairlead_ledger_requests_total{{{_OF_LEDGER},code=~"[45].."}}[5m]))'
                )
            },
            "4xx are the senders' mistakes; after 429 and 503 they come again.",
        ),
        Panel(
            "Waiting to be written",
            "short",
            {"{{pod}}": f"max by (pod) (fairlead_ledger_waiting_entries{{{_OF_LEDGER}}})"},
            "What came and is in no transaction yet; at 50,000 of them senders are told to wait.",
        ),
        Panel(
            "Time of a write",
            "s",
            {
                f"p{percent}": f"histogram_quantile(0.{percent}, sum by (le) "
                f"(rate(fairlead_ledger_write_seconds_bucket{{{_OF_LEDGER}}}[5m])))"
                for percent in (50, 95, 99)
            },
            "A transaction of the intake; it grows when the database is slow.",
        ),
        Panel(
            "Outcomes that wait for their request",
            "short",
            {"outcomes": f"max (fairlead_ledger_pending_outcomes{{{_OF_LEDGER}}})"},
            "They count once their request is older than the outcome window; each is a row until then.",
        ),
        Panel(
            "Lag of the fold",
            "s",
            {"longest": f"max (fairlead_ledger_fold_lag_seconds{{{_OF_LEDGER}}})"},
            "How long outcomes wait that need not wait any more; seconds are usual.",
        ),
        Panel(
            "Folds",
            "ops",
            {"{{outcome}}": f"sum by (outcome) (rate(fairlead_ledger_folds_total{{{_OF_LEDGER}}}[15m]))"},
            "A failed one is tried again two seconds later.",
        ),
        Panel(
            "Time of an analysis",
            "s",
            {
                f"p{percent}": f"histogram_quantile(0.{percent}, sum by (le) "
                f"(rate(fairlead_ledger_analysis_seconds_bucket{{{_OF_LEDGER}}}[15m])))"
                for percent in (50, 95, 99)
            },
            "Every unit is read after something was told; it grows with them.",
        ),
    ),
)

DASHBOARDS: Final = (_OPERATOR, _MODELS, _LEDGER)


def dashboard_files() -> dict[str, str]:
    """Return every dashboard as JSON, by its file's name."""
    return {f"{one.name}.json": json.dumps(_rendered(one), indent=1) + "\n" for one in DASHBOARDS}


def _rendered(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": f"fairlead-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["fairlead"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [*_variables(dashboard.variables)]},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _variables(variables: Iterable[tuple[str, str]]) -> Iterable[dict[str, Any]]:
    yield {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}
    for name, metric in variables:
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _SOURCE,
            "query": f"label_values({metric}, {name})",
            "refresh": 2,
            "sort": 1,
            "includeAll": name == "model",
        }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    width = _COLUMNS // 2
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": {"x": number % 2 * width, "y": number // 2 * _HEIGHT, "w": width, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }
