"""Reports as they travel: what was tallied, as gzipped bodies of ``POST /v1/exposures``."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from fairlead_server.exposure.tally import ArmTally, Taken

MOST_ENTRIES = 2000
"""Entries of each kind in one report; well below what the ledger takes."""
_ENTRIES_PER_TURN = 250
"""After so many entries the event loop serves others."""

_Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """One report, ready to travel."""

    sequence: int
    body: bytes
    """JSON, gzipped."""


async def reports_of(taken: Taken, server: str, sequence: int) -> list[Report]:
    """Return what was taken as reports, none if there is nothing to tell.

    Args:
        taken: What happened.
        server: Names the process, anew with each start.
        sequence: Number of the first report; those after it follow on.
    """
    kinds = {
        "exposures": _exposures(taken.arms),
        "counts": _counts(taken.arms),
        "blocks": _blocks(taken.arms),
        "mismatches": _mismatches(taken.arms),
    }
    reports: list[Report] = []
    dropped = taken.dropped
    while True:
        fields = {kind: await _list(islice(entries, MOST_ENTRIES)) for kind, entries in kinds.items()}
        told = {kind: text for kind, text in fields.items() if len(text) > len(b"[]")}
        if not told and not dropped:
            return reports
        head = {"server": server, "sequence": sequence + len(reports), "dropped": dropped}
        body = orjson.dumps(head | {kind: orjson.Fragment(text) for kind, text in told.items()})
        reports.append(Report(sequence + len(reports), await asyncio.to_thread(gzip.compress, body, 6)))
        dropped = 0


async def _list(entries: Iterator[_Entry]) -> bytes:
    """Return a JSON list, made in turns with others."""
    parts: list[bytes] = []
    while part := list(islice(entries, _ENTRIES_PER_TURN)):
        parts.append(orjson.dumps(part)[1:-1])
        await asyncio.sleep(0)
    return b"[" + b",".join(parts) + b"]"


def _exposures(arms: Iterable[ArmTally]) -> Iterator[_Entry]:
    for of_arm in arms:
        arm = of_arm.arm.model_dump()
        for unit, first in of_arm.firsts.items():
            yield arm | {"unit": unit.hex(), "at_us": first.at_us, "covariate": first.covariate}


def _counts(arms: Iterable[ArmTally]) -> Iterator[_Entry]:
    for of_arm in arms:
        arm = of_arm.arm.model_dump()
        for unit, sums in of_arm.units.items():
            counted: dict[str, Any] = {"requests": sums.requests, "latency_us": sums.latency_us}
            counted |= {"errors": sums.errors, "degraded": sums.degraded}
            if sums.failures:
                counted["failures"] = {one.value: errors for one, errors in sums.failures.items()}
            yield arm | counted | {"unit": unit.hex()}


def _blocks(arms: Iterable[ArmTally]) -> Iterator[_Entry]:
    for of_arm in arms:
        arm = of_arm.arm.model_dump()
        for minute, sums in of_arm.minutes.items():
            counted = {"requests": sums.requests, "latency_us": sums.latency_us}
            counted["errors"] = sums.errors
            by_edge = {str(edge): requests for edge, requests in sums.latency_counts.items()}
            yield arm | counted | {"minute": minute, "latency_counts": by_edge}


def _mismatches(arms: Iterable[ArmTally]) -> Iterator[_Entry]:
    return (of_arm.arm.model_dump() | {"requests": of_arm.mismatches} for of_arm in arms if of_arm.mismatches)
