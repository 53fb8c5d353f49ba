"""Records as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from bench.cases import CASES
from bench.results import Record


def tables(records: Sequence[Record], left_out: Mapping[str, str]) -> Iterator[Table]:
    """Return a table for each case, the cheapest first, and one of those that are left out."""
    for case in CASES:
        rows = sorted((row for row in records if row.case == case.name), key=lambda row: row.cpu_us)
        if not rows:
            continue
        table = Table("system", "CPU us", "of fairlead", "requests/s", "p50 us", "p99 us", title=case.title)
        ours = next((row.cpu_us for row in rows if row.system == "fairlead"), None)
        for row in rows:
            ratio = f"{row.cpu_us / ours:.2f}" if ours else ""
            cells = f"{row.cpu_us:.1f}", ratio, f"{row.requests_per_s:,.0f}", f"{row.p50_us:,.0f}", f"{row.p99_us:,.0f}"
            table.add_row(row.system, *cells)
        yield table
    if left_out:
        table = Table("left out", "why")
        for system, why in left_out.items():
            table.add_row(system, why)
        yield table
