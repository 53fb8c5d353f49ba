"""What the server must show beside its peers, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results import Record

_P99_ABOVE_NGINX_US = 1500
_WORKERS_COST, _SHARE = 1.1, (0.4, 0.6)
_COLD_S, _COLD_STORE_S, _RSS_MIB = 2.0, 3.0, 320
_BESIDE_MS = 5.0
_CHEAPER = (
    ("V2 JSON, batch 1, 16 connections, metrics, token and exposure on", "v2-json-1x16", "kserve-default", 25),
    ("the same", "v2-json-1x16", "kserve-quiet", 20),
    ("V2 binary, the same", "v2-binary-1x16", "kserve-default", 20),
    ("the same", "v2-binary-1x16", "kserve-quiet", 16),
    ("V1 JSON, the same", "v1-json-1x16", "kserve-default", 12),
    ("the same", "v1-json-1x16", "fastapi-async", 6),
    ("gRPC ModelInfer, native engine, 16 connections", "grpc-1x16", "kserve-default", 20),
    ("the same", "grpc-1x16", "kserve-quiet", 16),
    ("batch 64 JSON", "v2-json-64x16", "kserve-default", 7),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table."""

    what: str
    goal: str
    measured: str
    """What the run showed; empty if it did not measure it."""
    met: bool | None
    """None for what was not measured."""


def goals(records: Sequence[Record], further: Mapping[str, Any]) -> list[Goal]:
    """Return every goal with what was measured.

    Args:
        records: Medians of one run.
        further: What the run measured besides, by name: see ``bench.further``.
    """
    cpu_us = {(row.case, row.system): row.cpu_us for row in records}
    return [*_cheaper(cpu_us), *_ceilings(cpu_us), *_fallback(cpu_us), *_besides(further)]


def _cheaper(cpu_us: Mapping[tuple[str, str], float]) -> Iterator[Goal]:
    for what, case, peer, least in _CHEAPER:
        found = _ratio(cpu_us, (case, peer), (case, "fairlead"))
        yield Goal(what, f"{least}x {peer}", _times(found), None if found is None else found >= least)


def _ceilings(cpu_us: Mapping[tuple[str, str], float]) -> Iterator[Goal]:
    case = "v2-json-1x16"
    for system, least in (("fairlead", 0.5), ("fairlead-metrics", 0.6)):
        found = _ratio(cpu_us, (case, "native"), (case, system))
        measured = "" if found is None else f"{found:.0%}"
        met = None if found is None else found >= least
        yield Goal(f"V2 JSON, {system} beside the native ceiling", f"{least:.0%} of native", measured, met)


def _fallback(cpu_us: Mapping[tuple[str, str], float]) -> Iterator[Goal]:
    found = _ratio(cpu_us, ("grpc-1x16", "grpcio-sync"), ("grpc-1x16", "fairlead-python"))
    met = None if found is None else found >= 1
    yield Goal("gRPC on the pure-Python engine", "no slower than grpcio-sync", _times(found), met)


def _besides(further: Mapping[str, Any]) -> Iterator[Goal]:
    half = further.get("p99_at_half") or {}
    above_us = half["fairlead_us"] - half["nginx_us"] if half else None
    yield Goal(
        "p99 at half of saturation, above nginx static's at the same rate",
        f"{_P99_ABOVE_NGINX_US / 1000} ms",
        "" if above_us is None else f"{above_us / 1000:.2f} ms at {half['rate']:,.0f}/s",
        None if above_us is None else above_us <= _P99_ABOVE_NGINX_US,
    )
    workers = further.get("workers") or {}
    cost = workers["cpu_us"]["2"] / workers["cpu_us"]["1"] if workers else None
    yield Goal("2 workers: CPU per request of one's", f"{_WORKERS_COST}x", _times(cost), _at_most(cost, _WORKERS_COST))
    shares = workers.get("shares", [])
    yield Goal(
        "2 workers: share of requests of each",
        "40 to 60 %",
        " and ".join(f"{share:.0%}" for share in shares),
        all(_SHARE[0] <= share <= _SHARE[1] for share in shares) if shares else None,
    )
    yield from _cold(further.get("coldstart") or {})
    above_ms = (further.get("beside") or {}).get("above_ms")
    measured = "" if above_ms is None else f"{above_ms:.1f} ms"
    what = "a 200 ms model beside a short one: the short one's p99 above its own alone"
    yield Goal(what, f"{_BESIDE_MS:.0f} ms", measured, _at_most(above_ms, _BESIDE_MS))


def _cold(cold: Mapping[str, Any]) -> Iterator[Goal]:
    for what, name, unit, most in (
        ("start until ready, without a feature store", "plain_s", "s", _COLD_S),
        ("start until ready, with a feature store", "store_s", "s", _COLD_STORE_S),
        ("resident memory, with a feature store", "store_rss_mib", "MiB", _RSS_MIB),
    ):
        found = cold.get(name)
        yield Goal(what, f"{most:g} {unit}", "" if found is None else f"{found:.4g} {unit}", _at_most(found, most))


def _ratio(cpu_us: Mapping[tuple[str, str], float], of: tuple[str, str], to: tuple[str, str]) -> float | None:
    return cpu_us[of] / cpu_us[to] if of in cpu_us and cpu_us.get(to) else None


def _times(found: float | None) -> str:
    return "" if found is None else f"{found:.1f}x" if found >= 2 else f"{found:.2f}x"  # noqa: PLR2004 -- digits


def _at_most(found: float | None, most: float) -> bool | None:
    return None if found is None else found <= most
