"""All checks of a cluster, one after another: none can hang, and none's crash ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_operator.doctor.findings import Check, Finding, Level, Scope, bad, doubt
from fairlead_operator.doctor.reader import Reader

_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Examined:
    """What one check found."""

    area: str
    findings: tuple[Finding, ...]


async def examine(
    checks: Sequence[Check[Any]], reader: Reader, scope: Scope, *, deadline_s: float = _DEADLINE_S
) -> AsyncIterator[Examined]:
    """Yield what each check finds, in order; after a first check that finds only trouble, no other is tried.

    Args:
        checks: The first one says whether the cluster can be reached at all.
        reader: Reads the cluster.
        scope: What was asked about.
        deadline_s: Longest time for one check.
    """
    for index, check in enumerate(checks):
        findings = await _examined(check, reader, scope, deadline_s)
        yield Examined(check.area, findings)
        if index == 0 and findings and all(finding.level is Level.BAD for finding in findings):
            return


async def _examined(check: Check[Any], reader: Reader, scope: Scope, deadline_s: float) -> tuple[Finding, ...]:
    try:
        async with asyncio.timeout(deadline_s):
            facts = await check.gather(reader, scope)
        return tuple(check.judge(facts))
    except TimeoutError:
        return (
            bad(check.area, f"could not be looked at within {deadline_s:g} s", "see whether the API server is slow"),
        )
    except Exception as error:  # noqa: BLE001 -- the top of a loop: what a cluster holds may be of any shape
        told = f"{type(error).__name__}: {error}"
        return (doubt(check.area, f"the check itself failed: {told}", "look by hand, and report it"),)
