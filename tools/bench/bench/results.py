"""What the rounds come to: one record for each case and system, as JSON."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

QUIET = 0.15
"""CPUs that others may use in a round whose rate and latency still say something."""


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of one system in one case."""

    case: str
    system: str
    requests: int
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """CPU time of the server's processes per request, user and system."""
    errors: int
    others: float
    """CPUs that neither server nor load used, but somebody else did, of the two."""


@dataclass(frozen=True, slots=True)
class Record:
    """Medians of one system in one case."""

    case: str
    system: str
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float


def records(rounds: Iterable[Round]) -> list[Record]:
    """Return medians by case and system: of CPU time over all rounds, of the rest over those that nobody disturbed."""
    found: dict[tuple[str, str], list[Round]] = defaultdict(list)
    for one in rounds:
        found[one.case, one.system].append(one)
    return [_record(case, system, of) for (case, system), of in found.items()]


def write(path: Path, rows: Sequence[Record]) -> None:
    """Write records as JSON, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(asdict(row)) for row in rows) + "\n]\n")


def read(path: Path) -> list[Record]:
    """Read what ``write`` wrote."""
    return [Record(**row) for row in json.loads(path.read_text())]


def _record(case: str, system: str, rounds: Sequence[Round]) -> Record:
    quiet = [one for one in rounds if one.others < QUIET] or rounds
    return Record(
        case,
        system,
        round(statistics.median(one.requests_per_s for one in quiet), 1),
        round(statistics.median(one.p50_us for one in quiet), 1),
        round(statistics.median(one.p99_us for one in quiet), 1),
        round(statistics.median(one.cpu_us for one in rounds), 2),
    )
