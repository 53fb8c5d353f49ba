"""Reports as they travel: what was tallied, as gzipped bodies of ``POST /v1/exposures``."""

from __future__ import annotations

import asyncio
import gzip
from binascii import hexlify
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import orjson

from fairlead.feedback.messages import Arm
from fairlead_server.exposure.tally import ArmTally, Sums, Taken

MOST_ENTRIES = 2000
"""Entries of each kind in one report; well below what the ledger takes."""
_ENTRIES_PER_TURN = 250
"""After so many entries the event loop serves others."""
_GZIP_LEVEL = 1
"""Entries of a report are alike: more effort makes it a sixth smaller, at four times the time."""


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
        reports.append(Report(sequence + len(reports), await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL)))
        dropped = 0


async def _list(entries: Iterator[bytes]) -> bytes:
    """Return a JSON list, made in turns with others."""
    parts: list[bytes] = []
    while part := list(islice(entries, _ENTRIES_PER_TURN)):
        parts.extend(part)
        await asyncio.sleep(0)
    return b"[" + b",".join(parts) + b"]"


def _named(arm: Arm) -> bytes:
    """Return an arm's fields as an entry starts with them."""
    return orjson.dumps(arm.model_dump())[:-1]


def _exposures(arms: Iterable[ArmTally]) -> Iterator[bytes]:
    for of_arm in arms:
        arm = _named(of_arm.arm)
        for unit, first in of_arm.firsts.items():
            covariate = orjson.dumps(first.covariate)
            yield b'%b,"unit":"%b","at_us":%d,"covariate":%b}' % (arm, hexlify(unit), first.at_us, covariate)


def _counts(arms: Iterable[ArmTally]) -> Iterator[bytes]:
    for of_arm in arms:
        arm = _named(of_arm.arm)
        for unit, sums in of_arm.units.items():
            counted = (arm, hexlify(unit), sums.requests, sums.latency_us, sums.errors, sums.degraded)
            entry = b'%b,"unit":"%b","requests":%d,"latency_us":%d,"errors":%d,"degraded":%d' % counted
            yield entry + (b',"failures":%b}' % _failures(sums) if sums.failures else b"}")


def _failures(sums: Sums) -> bytes:
    return orjson.dumps({one.value: errors for one, errors in (sums.failures or {}).items()})


def _blocks(arms: Iterable[ArmTally]) -> Iterator[bytes]:
    for of_arm in arms:
        arm = of_arm.arm.model_dump()
        for minute, sums in of_arm.minutes.items():
            counted = {"requests": sums.requests, "latency_us": sums.latency_us, "errors": sums.errors}
            by_edge = {str(edge): requests for edge, requests in sums.latency_counts.items()}
            yield orjson.dumps(arm | counted | {"minute": minute, "latency_counts": by_edge})


def _mismatches(arms: Iterable[ArmTally]) -> Iterator[bytes]:
    return (
        orjson.dumps(of_arm.arm.model_dump() | {"requests": of_arm.mismatches}) for of_arm in arms if of_arm.mismatches
    )
