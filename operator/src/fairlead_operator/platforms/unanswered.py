"""Requests of an experiment that no server has answered: what Envoy logs of them, and what the ledger is told.

Envoy writes a line for each such request; one that was retried and answered has none. They are errors of the arm that
their unit belongs to. Everything here is pure; who reads the lines, and how each is told once, is a platform's matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fairlead.assignment import assign
from fairlead.feedback.keys import KeyRing, deployment_of
from fairlead.feedback.messages import Block, Exposure, ExposureReport, Failure, UnitCounts
from fairlead.route import EXPERIMENT_HEADER, ExperimentRoute, RouteError, RouteKey, verify

_Counted = TypeVar("_Counted", UnitCounts, Block)

UNIT_COPY: Final = "x-fairlead-unit"
"""Request header in which an experiment's destinations name the unit again, under one name for the log."""

UNANSWERED_FLAGS: Final = ("LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "URX", "UPE", "UMSDR", "NC", "DT")
"""Envoy's flags of requests that no server has answered; a client that went away (DC) is none of them."""

_MINUTE_US = 60_000_000
_LONGEST_US = 3_600_000_000
_SUMMED = ("requests", "errors", "latency_us")
_LONGEST_US = 3_600_000_000
_SUMMED = ("requests", "errors", "latency_us")


def access_log(path: str, *, mark: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the access log of Envoy's HTTP connection manager: a line of JSON per unanswered request.

    Args:
        path: Where it is written.
        mark: More fields of each line, the same in all.
    """
    named = {"header_filter": {"header": {"name": EXPERIMENT_HEADER, "present_match": True}}}
    fields = {
        "at_ms": "%START_TIME(%s%3f)%",
        "experiment": f"%REQ({EXPERIMENT_HEADER})%",
        "unit": f"%REQ({UNIT_COPY})%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"and_filter": {"filters": [named, {"response_flag_filter": {"flags": list(UNANSWERED_FLAGS)}}]}},
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": {**(mark or {}), **fields}},
        },
    }


@dataclass(frozen=True, slots=True)
class Unanswered:
    """One request."""

    route: ExperimentRoute
    unit: str | None
    """None if it cannot be read from the log."""
    latency_us: int
    """From its arrival until the gateway gave up."""
    at_us: int | None = None
    """When it came, microseconds since 1970-01-01 UTC; None if that is not known by the experiment's clock."""


def read_line(line: bytes, keys: Mapping[str, RouteKey], *, at_us: int | None = None) -> Unanswered | None:
    """Return the request of a line of the log; None if the line is not whole, or its header not signed with ``keys``.

    Args:
        line: As Envoy wrote it.
        keys: Known keys by id.
        at_us: When it was written, if the time of requests is that of the gateway's clock.
    """
    try:
        fields = json.loads(line)
        route = verify(fields["experiment"], keys)
        latency_us = int(fields["duration_ms"]) * 1000
        begun_us = None if at_us is None else _begun_us(int(fields["at_ms"]) * 1000, at_us)
    except (ValueError, KeyError, TypeError, AttributeError, RouteError):
        return None
    unit = fields.get("unit")
    known = isinstance(unit, str) and assign(unit, route.salt, route.layout) == route.variant
    return Unanswered(route, unit if known else None, latency_us, begun_us)


def _begun_us(said_us: int, written_us: int) -> int:
    """Return when a request came, as far as it can be: a line is written after it, and soon."""
    return min(max(said_us, written_us - _LONGEST_US), written_us)


def report_of(
    requests: Iterable[Unanswered], ring_of: Callable[[str], KeyRing], *, server: str, sequence: int, now_us: int
) -> ExposureReport:
    """Return what the ledger is told of requests: an error each, and that their units were drawn.

    Args:
        requests: At most ``MOST_EXPOSURES``.
        ring_of: Gives the key ring of a deployment, ``namespace/name``.
        server: Who tells.
        sequence: Number of the report.
        now_us: Of requests that the log does not date, by the experiment's clock; microseconds since 1970-01-01 UTC.
    """
    exposures: dict[tuple[str, int, str], Exposure] = {}
    counts: dict[tuple[str, int, str, str], UnitCounts] = {}
    blocks: dict[tuple[str, int, str, int], Block] = {}
    for request in requests:
        route, at_us = request.route, now_us if request.at_us is None else request.at_us
        arm = {"salt": route.salt, "phase": route.phase, "variant": route.variant, "revision": route.revision}
        told = {"requests": 1, "errors": 1, "latency_us": request.latency_us}
        block = Block.model_validate({**arm, "minute": at_us // _MINUTE_US, **told})
        at = (route.salt, route.phase, route.revision)
        blocks[*at, block.minute] = _sum(blocks.get((*at, block.minute)), block)
        if request.unit is not None:
            digest = ring_of(deployment_of(route.salt)).unit(request.unit.encode(), route.salt).hex()
            exposure = Exposure.model_validate({**arm, "unit": digest, "at_us": at_us})
            exposures[*at[:2], digest] = _earlier(exposures.get((*at[:2], digest)), exposure)
            count = UnitCounts.model_validate({**arm, "unit": digest, **told, "failures": {Failure.NO_ANSWER: 1}})
            counts[*at, digest] = _sum(counts.get((*at, digest)), count)
    return ExposureReport(
        server=server,
        sequence=sequence,
        exposures=tuple(exposures.values()),
        counts=tuple(counts.values()),
        blocks=tuple(blocks.values()),
    )


def _earlier(before: Exposure | None, one: Exposure) -> Exposure:
    return one if before is None or one.at_us < before.at_us else before


def _sum(before: _Counted | None, one: _Counted) -> _Counted:
    if before is None:
        return one
    sums: dict[str, Any] = {name: getattr(before, name) + getattr(one, name) for name in _SUMMED}
    if isinstance(one, UnitCounts):  # whose errors are all of one kind
        sums["failures"] = {Failure.NO_ANSWER: sums["errors"]}
    return one.model_copy(update=sums)
