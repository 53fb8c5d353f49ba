"""Findings for people, and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fairlead_operator.doctor.examine import Examined
from fairlead_operator.doctor.findings import Level

SIGNS = {Level.GOOD: "✓", Level.DOUBT: "!", Level.BAD: "✗"}


def lines(examined: Examined) -> Iterator[str]:
    """Yield the lines of one area; none if there was nothing to look at."""
    if examined.findings:
        yield examined.area
    for finding in examined.findings:
        yield f"  {SIGNS[finding.level]} {finding.subject}: {finding.seen}"
        if finding.fix:
            yield f"      fix: {finding.fix}"


def summary(all_examined: Iterable[Examined]) -> str:
    """Return the last line."""
    count = counts(all_examined)
    total = sum(count.values())
    told = ", ".join(f"{count[level]} {SIGNS[level]}" for level in Level)
    verdict = "something keeps Fairlead from working" if count[Level.BAD] else "nothing stands in the way"
    return f"{total} looked at: {told}; {verdict}"


def document(all_examined: Sequence[Examined]) -> dict[str, Any]:
    """Return everything as JSON-like data."""
    findings = [
        {
            "area": examined.area,
            "level": finding.level.value,
            "subject": finding.subject,
            "seen": finding.seen,
            **({"fix": finding.fix} if finding.fix else {}),
        }
        for examined in all_examined
        for finding in examined.findings
    ]
    return {"summary": {level.value: count for level, count in counts(all_examined).items()}, "findings": findings}


def counts(all_examined: Iterable[Examined]) -> dict[Level, int]:
    """Return how many findings there are of each level."""
    levels = [finding.level for examined in all_examined for finding in examined.findings]
    return {level: levels.count(level) for level in Level}
