"""Sums over workers: their metrics, and what they report of themselves. Pure, and of the standard library alone.

A snapshot is JSON: ``metrics`` by family (``type``, ``help``, ``samples`` by :func:`sample_key`) and by model
and version ``reports``, the flat parameters of ``fairlead.serving.ServerReport``, and ``statistics``, as the V2
extension tells them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Snapshot = dict[str, Any]

_LATEST, _BATCH = "last_inference", "batch_size"

_HIGHEST = ("_degraded", "_timestamp_seconds", "_open", "_age_seconds", "_drift", "_reader")
"""Ends of the names of gauges whose highest value stands for all workers; others are summed."""
_SUMMED = (
    "requests_",
    "feedback_waiting",
    "feedback_dropped",
    "feedback_refused",
    "registry_reads",
    "registry_failures",
)
"""How the names of parameters begin that are summed."""
_NOT_OF_ENDED = frozenset({"feedback_waiting"})
"""Summed, but not over workers that have ended: their spool is read by those that come after them."""


def sample_key(name: str, labels: Mapping[str, str]) -> str:
    """Return what names a sample among all."""
    return json.dumps([name, labels])


def sample_of(key: str) -> tuple[str, dict[str, str]]:
    """Return name and labels, the inverse of :func:`sample_key`."""
    name, labels = json.loads(key)
    return name, labels


def summed(snapshots: Iterable[Snapshot]) -> dict[str, Any]:
    """Return the metrics of several workers as one's."""
    families: dict[str, Any] = {}
    for snapshot in snapshots:
        for name, family in snapshot.get("metrics", {}).items():
            into = families.setdefault(name, {"type": family["type"], "help": family["help"], "samples": {}})
            highest = family["type"] == "gauge" and name.endswith(_HIGHEST)
            samples = into["samples"]
            for key, value in family["samples"].items():
                before = samples.get(key)
                samples[key] = value if before is None else max(before, value) if highest else before + value
    return families


def ended(before: Snapshot, last: Snapshot) -> Snapshot:
    """Return what is kept of workers that have ended: whatever only grows.

    Args:
        before: What was kept of those before.
        last: What the last one said.
    """
    growing = {name: family for name, family in last.get("metrics", {}).items() if family["type"] != "gauge"}
    metrics = summed([before, {"metrics": growing}])
    reports = dict(before.get("reports", {}))
    for name, parameters in last.get("reports", {}).items():
        kept = reports.get(name, {})
        reports[name] = {
            field: kept.get(field, 0) + value
            for field, value in parameters.items()
            if field.startswith(_SUMMED) and field not in _NOT_OF_ENDED
        }
    kept = before.get("statistics", {})
    statistics = kept | {name: _together(kept.get(name), one) for name, one in last.get("statistics", {}).items()}
    return {"metrics": metrics, "reports": reports, "statistics": statistics}


def model_key(statistics: Mapping[str, Any]) -> str:
    """Return what names a model's statistics among all."""
    return f"{statistics['name']}/{statistics['version']}"


def counted_together(own: Mapping[str, Any], snapshots: Iterable[Snapshot]) -> dict[str, Any]:
    """Return a model's statistics in this worker and those that showed ``snapshots``."""
    found: Mapping[str, Any] = own
    for snapshot in snapshots:
        other = snapshot.get("statistics", {}).get(model_key(own))
        found = found if other is None else _together(found, other)
    return dict(found)


def _together(one: Any, other: Any) -> Any:
    """Add numbers up, wherever they are; times are the latest, and sizes of batches name what is added to what."""
    if one is None:
        return other
    if isinstance(other, dict):
        return {
            name: max(one[name], value) if name == _LATEST else _together(one[name], value)
            for name, value in other.items()
        }
    if isinstance(other, list):
        sizes = {batch[_BATCH]: batch for batch in one}
        for batch in other:
            size = batch[_BATCH]
            sizes[size] = _together(sizes.get(size), batch) | {_BATCH: size}
        return [sizes[size] for size in sorted(sizes)]
    return other if isinstance(other, str) else one + other


def reported(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]], past: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of one model in all workers.

    Args:
        own: Of the worker that answers.
        others: Of other live workers that serve the model.
        past: What is kept of those that have ended.
    """
    merged = dict(own)
    for field, value in own.items():
        if field.startswith(_SUMMED):
            merged[field] = value + sum(other.get(field, 0) for other in others) + past.get(field, 0)
    for other in others:
        if merged.get("ready") and not other.get("ready", True):
            merged["ready"] = False
            merged["not_ready_reason"] = f"another worker: {other.get('not_ready_reason', '')}"
        merged["degraded"] = bool(merged.get("degraded") or other.get("degraded"))
        if other.get("registry_differences_total", 0) > merged.get("registry_differences_total", 0):
            taken = ("registry_differences", "registry_differences_total", "registry_fingerprint")
            merged |= {field: other[field] for field in taken if field in other}
        merged["feedback_configured"] = bool(merged.get("feedback_configured") and other.get("feedback_configured"))
        if other.get("feedback_digest", "") != merged.get("feedback_digest", ""):
            merged["feedback_digest"] = ""  # until all are told the same, nobody can say what the server is told
        last = max(merged.get("feedback_last_success_us", 0), other.get("feedback_last_success_us", 0))
        merged["feedback_last_success_us"] = last
        merged["feedback_failure"] = merged.get("feedback_failure") or other.get("feedback_failure", "")
    return merged
