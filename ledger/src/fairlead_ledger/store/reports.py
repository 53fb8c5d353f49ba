"""What servers tell: exposures, what units' requests came to, and blocks of a minute. Each report counts once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, delete, or_, select, tuple_, update

from fairlead.experiment.tail import HIGHEST_EDGE, LOWEST_EDGE
from fairlead.feedback.messages import Arm, Block, Exposure, ExposureReport, Mismatch, UnitCounts
from fairlead_ledger.intake.rules import LARGEST
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.directory import Directory
from fairlead_ledger.store.experiments import Cell
from fairlead_ledger.store.schema import (
    BLOCKS,
    CELLS,
    EXPERIMENTS,
    FAILURES,
    REPORTS,
    REVISIONS,
    RIPENING,
    SERVERS,
    UNITS,
)

MOST_AHEAD = 100_000
"""Reports of a server that may follow a missing one, until the missing one is given up."""

MOST = 1 << 40
"""Largest count of one entry: sums of millions of such fit 64 bits."""

_LAST_SEQUENCE = 1 << 52
_LAST_MINUTE = 1 << 36
_MINUTE_US = 60_000_000
_Key = tuple[Any, ...]
_Rows = dict[_Key, dict[str, Any]]


def take(database: Database, directory: Directory, reports: Sequence[ExposureReport], now_us: int) -> list[bool]:
    """Add reports to what is kept, in one transaction; return of each whether it was new."""
    parts = [part for report in reports for part in _parts(report)]
    ids = directory.ids({part.salt for part in parts}, now_us)
    places = {_place(part): Cell(ids[part.salt], part.phase, part.variant) for part in parts}
    numbers = directory.cells(set(places.values()))
    with database.writing() as connection:
        for id_ in sorted(set(ids.values())):
            database.share(connection, id_)
        servers = _servers(database, connection, reports, now_us)
        new = _register(database, connection, reports, servers)
        fresh = [report for report, is_new in zip(reports, new, strict=True) if is_new]
        ended = _ended(connection, ids.values())
        cells = {place: numbers[cell] for place, cell in places.items() if cell.experiment_id not in ended}
        sums = _summed(fresh, cells, {name: id_ for name, (id_, _) in servers.items()})
        _add(database, connection, sums, now_us // _MINUTE_US)
        _touch(connection, {places[_place(part)].experiment_id for report in fresh for part in _parts(report)}, now_us)
        return new


def misfit(report: ExposureReport) -> str | None:
    """Return what of a report no database can keep; None if all of it can be kept."""
    counts = [getattr(part, name) for part in report.counts for name in _COUNTED]
    blocks = [getattr(block, name) for block in report.blocks for name in _SYSTEM]
    latencies = [count for block in report.blocks for count in block.latency_counts.values()]
    others = [report.dropped, *(part.requests for part in report.mismatches)]
    if max((*counts, *blocks, *latencies, *others)) > MOST:
        return f"a count is larger than {MOST}"
    if report.sequence > _LAST_SEQUENCE or max((block.minute for block in report.blocks), default=0) > _LAST_MINUTE:
        return "sequence or minute is larger than can be"
    if "\0" in report.server or any("\0" in part.revision for part in _parts(report)):
        return "a name has a zero byte"
    return None


def _parts(report: ExposureReport) -> tuple[Arm, ...]:
    return (*report.exposures, *report.counts, *report.blocks, *report.mismatches)


def _place(arm: Arm) -> _Key:
    return (arm.salt, arm.phase, arm.variant)


def _servers(
    database: Database, connection: Connection, reports: Iterable[ExposureReport], now_us: int
) -> Mapping[str, tuple[int, int]]:
    """Return number and first missing report of each server; nobody else takes reports of them meanwhile."""
    rows = [{"name": name, "told_until": 0, "seen_us": now_us} for name in sorted({one.server for one in reports})]
    insert = database.insert(SERVERS)
    upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"seen_us": insert.excluded.seen_us})
    found = connection.execute(upsert.returning(SERVERS.c.name, SERVERS.c.id, SERVERS.c.told_until), rows)
    return {row.name: (row.id, row.told_until) for row in found}


def _register(
    database: Database,
    connection: Connection,
    reports: Sequence[ExposureReport],
    servers: Mapping[str, tuple[int, int]],
) -> list[bool]:
    keys = [(servers[report.server][0], report.sequence) for report in reports]
    untold = [key for key, report in zip(keys, reports, strict=True) if report.sequence >= servers[report.server][1]]
    if not untold:
        return [False] * len(reports)
    rows = [{"server_id": server, "sequence": sequence} for server, sequence in sorted(set(untold))]
    insert = database.insert(REPORTS).on_conflict_do_nothing()
    inserted = connection.execute(insert.returning(REPORTS.c.server_id, REPORTS.c.sequence), rows)
    new = {(row.server_id, row.sequence) for row in inserted}
    for id_, told_until in servers.values():
        _advance(connection, id_, told_until, {sequence for server, sequence in new if server == id_})
    answers = []
    for key in keys:  # of one that is there twice, the first is new
        answers.append(key in new)
        new.discard(key)
    return answers


def _advance(connection: Connection, server_id: int, told_until: int, new: set[int]) -> None:
    """Forget reports one by one once every report before them is in, or has been waited for long enough."""
    if not new:
        return
    of_server = REPORTS.c.server_id == server_id
    until = max(told_until, max(new) - MOST_AHEAD)
    if until in new:
        ahead = select(REPORTS.c.sequence).where(of_server, REPORTS.c.sequence >= until).order_by(REPORTS.c.sequence)
        for sequence in connection.scalars(ahead):
            if sequence != until:
                break
            until += 1
    if until > told_until:
        connection.execute(delete(REPORTS).where(of_server, REPORTS.c.sequence < until))
        connection.execute(update(SERVERS).where(SERVERS.c.id == server_id).values(told_until=until))


def _ended(connection: Connection, ids: Iterable[int]) -> set[int]:
    where = and_(EXPERIMENTS.c.id.in_(set(ids)), EXPERIMENTS.c.ended_us.is_not(None))
    return set(connection.scalars(select(EXPERIMENTS.c.id).where(where)))


def _summed(reports: Iterable[ExposureReport], cells: Mapping[_Key, int], servers: Mapping[str, int]) -> _Sums:
    sums = _Sums(cells)
    for report in reports:
        sums.add(report, servers[report.server])
    return sums


def _add(database: Database, connection: Connection, sums: _Sums, minute: int) -> None:
    _upsert_units(database, connection, sums.units)
    _upsert_failures(database, connection, sums.failures)
    _ripen(database, connection, sums.units.values(), minute)
    _upsert_blocks(database, connection, sums.blocks, sums.latencies)
    if sums.revisions:
        rows = [{"cell_id": cell, "revision": revision} for cell, revision in sorted(sums.revisions)]
        connection.execute(database.insert(REVISIONS).on_conflict_do_nothing(), rows)
    for cell, requests in sorted(sums.mismatched.items()):
        more = {"mismatched": CELLS.c.mismatched + requests}
        connection.execute(update(CELLS).where(CELLS.c.id == cell).values(more))
    for server, requests in sorted(sums.dropped.items()):
        more = {"dropped": SERVERS.c.dropped + requests}
        connection.execute(update(SERVERS).where(SERVERS.c.id == server).values(more))


class _Sums:
    """What several reports add, each row of a table once."""

    def __init__(self, cells: Mapping[_Key, int]) -> None:
        self._cells = cells
        self.units: _Rows = {}
        self._first: dict[_Key, ExposureReport] = {}
        """Of a unit, the report that tells of its first exposure."""
        self.failures: Counter[_Key] = Counter()
        self.blocks: _Rows = {}
        self.latencies: dict[_Key, Counter[int]] = defaultdict(Counter)
        self.revisions: set[tuple[int, str]] = set()
        self.mismatched: Counter[int] = Counter()
        self.dropped: Counter[int] = Counter()

    def add(self, report: ExposureReport, server: int) -> None:
        self.dropped[server] += report.dropped
        for part in _parts(report):
            cell = self._cells.get(_place(part))
            if cell is None:
                continue  # its experiment has ended
            self.revisions.add((cell, part.revision))
            match part:
                case Exposure():
                    self._expose(cell, part, report)
                case UnitCounts():
                    self._count(cell, part, report)
                case Block():
                    key = (cell, part.minute, server)
                    _grow(self.blocks.setdefault(key, _block(*key)), part, _SYSTEM)
                    self.latencies[key].update(_on_grid(part.latency_counts))
                case Mismatch():
                    self.mismatched[cell] += part.requests

    def _expose(self, cell: int, exposure: Exposure, report: ExposureReport) -> None:
        row = self._unit(cell, exposure.unit)
        if row["exposed_us"] is None or exposure.at_us < row["exposed_us"]:
            row |= {"exposed_us": exposure.at_us, "covariate": _summable(exposure.covariate)}
            self._first[cell, row["unit"]] = report

    def _count(self, cell: int, counts: UnitCounts, report: ExposureReport) -> None:
        row = self._unit(cell, counts.unit)
        is_first = self._first.get((cell, row["unit"])) is report
        if counts.requests and (is_first or row["first_error"] is None):
            row["first_error"] = counts.errors / counts.requests
        _grow(row, counts, _COUNTED)
        for failure, errors in counts.failures.items():
            self.failures[cell, row["unit"], failure.value] += errors

    def _unit(self, cell: int, unit: str) -> dict[str, Any]:
        key = (cell, bytes.fromhex(unit))
        if key not in self.units:
            empty = {"exposed_us": None, "covariate": None, "first_error": None}
            self.units[key] = {"cell_id": cell, "unit": key[1], **empty, **dict.fromkeys(_COUNTED, 0)}
        return self.units[key]


_SYSTEM = ("requests", "errors", "latency_us")
_BLOCK = ("cell_id", "minute", "server_id")
_COUNTED = ("requests", "errors", "degraded", "latency_us")


def _block(cell: int, minute: int, server: int) -> dict[str, Any]:
    return {"cell_id": cell, "minute": minute, "server_id": server, **dict.fromkeys(_SYSTEM, 0)}


def _summable(covariate: float | None) -> float | None:
    """Return a covariate, unless its square could not be summed."""
    return None if covariate is None or abs(covariate) > LARGEST else covariate


def _grow(row: dict[str, Any], counts: Arm, names: Iterable[str]) -> None:
    for name in names:
        row[name] += getattr(counts, name)


def _upsert_units(database: Database, connection: Connection, rows: _Rows) -> None:
    if not rows:
        return
    insert = database.insert(UNITS)
    new, old = insert.excluded, UNITS.c
    is_earlier = and_(new.exposed_us.is_not(None), or_(old.exposed_us.is_(None), new.exposed_us < old.exposed_us))
    merged = {name: case((is_earlier, new[name]), else_=old[name]) for name in ("exposed_us", "covariate")}
    # A gateway tells later than servers do: what a unit met with first is not what was told first.
    is_first = and_(new.first_error.is_not(None), or_(is_earlier, old.first_error.is_(None)))
    merged["first_error"] = case((is_first, new.first_error), else_=old.first_error)
    summed = {name: old[name] + new[name] for name in _COUNTED}
    upsert = insert.on_conflict_do_update(index_elements=["cell_id", "unit"], set_={**merged, **summed})
    connection.execute(upsert, [rows[key] for key in sorted(rows)])  # in order, so that no two writers wait in a circle


def _upsert_failures(database: Database, connection: Connection, failures: Mapping[_Key, int]) -> None:
    if not failures:
        return
    names = ("cell_id", "unit", "failure")
    rows = [{**dict(zip(names, key, strict=True)), "errors": errors} for key, errors in sorted(failures.items())]
    insert = database.insert(FAILURES)
    summed = {"errors": FAILURES.c.errors + insert.excluded.errors}
    connection.execute(insert.on_conflict_do_update(index_elements=names, set_=summed), rows)


def _ripen(database: Database, connection: Connection, units: Iterable[Mapping[str, Any]], minute: int) -> None:
    """Keep in mind when requests were told: so long after that they are older than the outcome window."""
    rows = [
        {"cell_id": row["cell_id"], "minute": minute, "unit": row["unit"], "requests": row["requests"]}
        for row in units
        if row["requests"]
    ]
    if not rows:
        return
    insert = database.insert(RIPENING)
    summed = {"requests": RIPENING.c.requests + insert.excluded.requests}
    upsert = insert.on_conflict_do_update(index_elements=["cell_id", "minute", "unit"], set_=summed)
    connection.execute(upsert, sorted(rows, key=lambda row: (row["cell_id"], row["unit"])))


def _upsert_blocks(
    database: Database, connection: Connection, rows: _Rows, latencies: Mapping[_Key, Counter[int]]
) -> None:
    if not rows:
        return
    insert = database.insert(BLOCKS)
    changed: dict[str, Any] = {name: BLOCKS.c[name] + insert.excluded[name] for name in _SYSTEM}
    upsert = insert.on_conflict_do_update(
        index_elements=_BLOCK, set_=changed | {"histogram": insert.excluded.histogram}
    )
    kept = _kept_latencies(connection, rows)
    for key, row in rows.items():
        row["histogram"] = _dumped(kept.get(key, Counter()) + latencies.get(key, Counter()))
    connection.execute(upsert, [rows[key] for key in sorted(rows)])


def _kept_latencies(connection: Connection, keys: Iterable[_Key]) -> Mapping[_Key, Counter[int]]:
    """Return the counts of blocks so far; nobody else adds to those of the same servers meanwhile."""
    query = select(*(BLOCKS.c[name] for name in _BLOCK), BLOCKS.c.histogram)
    asked = tuple_(*(BLOCKS.c[name] for name in _BLOCK)).in_(sorted(keys))
    rows = connection.execute(query.where(asked, BLOCKS.c.histogram.is_not(None)))
    return {tuple(row[:3]): Counter({int(edge): n for edge, n in json.loads(row.histogram).items()}) for row in rows}


def _dumped(counts: Mapping[int, int]) -> str | None:
    return json.dumps(dict(sorted(counts.items()))) if counts else None


def _on_grid(counts: Mapping[int, int]) -> Counter[int]:
    """Return counts by the edges that there are."""
    found: Counter[int] = Counter()
    for edge, count in counts.items():
        found[min(max(edge, LOWEST_EDGE), HIGHEST_EDGE)] += count
    return found


def _touch(connection: Connection, ids: Iterable[int], now_us: int) -> None:
    for id_ in sorted(ids):
        more = {"touched_us": now_us, "changes": EXPERIMENTS.c.changes + 1}
        connection.execute(update(EXPERIMENTS).where(EXPERIMENTS.c.id == id_).values(more))
