"""Whether a decision record is what was written, follows from its evidence, and agrees with the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from fairlead.cli.errors import FAILED, USAGE, CommandError
from fairlead.cli.experiment import ERASED
from fairlead.cli.ledger import Ledger, ledger_of
from fairlead.experiment import record as records
from fairlead.experiment.analysis import analyse
from fairlead.experiment.errors import AlteredRecord, ExperimentError
from fairlead.experiment.evidence import Evidence
from fairlead.experiment.record import DecisionRecord

_SHOWN = 5
"""Differences that are named."""
_RECORD = "/record"
_EXPERIMENTS = "/v1/experiments/"


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a check."""

    lines: tuple[str, ...]
    exit_code: int = 0


def checked(where: str, ledger: Ledger | None, api_key: Path | None) -> Checked:
    """Check a record by itself, and against a ledger if there is one.

    Args:
        where: A file, or the address of a record in a ledger, which then is the one that is asked.
        ledger: The ledger; None to check the record alone.
        api_key: File with the API key.

    Raises:
        CommandError: There is no record there, or it is not as it was written.
    """
    if where.startswith(("http://", "https://")):
        ledger, text = _fetched(where, api_key)
    else:
        text = _read(Path(where))
    try:
        record = records.read(text)
    except AlteredRecord as wrong:
        raise CommandError(f"{where}: {wrong}", USAGE) from None
    try:
        records.check(record)
    except AlteredRecord as wrong:
        raise CommandError(f"{where}: {wrong}", FAILED) from None
    told = (
        f"hash      {record.hash}: the record is as it was written",
        f"evidence  gives {record.report.verdict}, {record.report.reason}, as recorded",
    )
    against = _against(record, ledger) if ledger else Checked(("ledger    not asked: give --ledger",))
    return Checked((*told, *against.lines), against.exit_code)


def _against(record: DecisionRecord, ledger: Ledger) -> Checked:
    salt = record.design.salt
    told = ledger.experiment(salt)
    if told.design != record.design:
        return Checked((f"ledger    differs: {ledger.address} has another design of {salt}",), FAILED)
    if told.state == "Purged":
        return Checked((f"ledger    has removed the units of {salt}, as its retention says; the record stands alone",))
    if told.ended_us is None:
        return Checked((f"ledger    {salt} goes on since, so its evidence is no longer that of the record",))
    now = _as_then(record.kept, ledger.evidence(salt))
    differing = list(islice(_differences(record, now), _SHOWN))
    if not differing:
        return Checked((_agrees(record, ledger.address),))
    gone = _units(record.kept) - _units(now)
    if told.erased and 0 < gone <= told.erased and _is_less(record.kept, now):
        units = "unit was" if gone == 1 else "units were"
        line = f"ledger    {gone:,} {units} erased since, so its evidence is smaller now; the record stands alone"
        return Checked((line,), ERASED)
    return Checked(tuple(f"ledger    differs: {one}" for one in differing), FAILED)


def _agrees(record: DecisionRecord, address: str) -> str:
    if record.at_end is None:
        return f"ledger    {address} agrees: the same evidence gives the same report"
    more = sum(_requests(record.at_end)) - sum(_requests(record.evidence))
    return f"ledger    {address} agrees: its evidence is that of the end, {more:,} requests after what was decided on"


def _requests(evidence: Evidence) -> Iterator[int]:
    return (arm.requests for phase in evidence.phases for arm in phase.arms.values())


def _as_then(then: Evidence, now: Evidence) -> Evidence:
    """Return a ledger's evidence with what only the moment knew: who was silent, and a step that nobody had reached."""
    empty = [phase for phase in then.phases if not phase.arms and now.phase(phase.number) is None]
    phases = tuple(sorted((*now.phases, *empty), key=lambda phase: phase.number))
    return now.model_copy(update={"phases": phases, "down": then.down})


def _differences(record: DecisionRecord, now: Evidence) -> Iterator[str]:
    """Yield where the ledger's evidence, or what follows from it, is not the record's."""
    name = "evidence" if record.at_end is None else "at_end"
    yield from (f"{name}.{one}" for one in records.differences(record.kept, now))
    if record.at_end is not None:
        return
    try:
        report = analyse(record.design, now, phase=record.report.phase, now_us=record.report.at_us)
    except ExperimentError as wrong:
        yield f"report: {wrong}"
        return
    yield from (f"report.{one}" for one in records.differences(record.report, report))


def _units(evidence: Evidence) -> int:
    """Return the units that were exposed: each was for the first time in exactly one phase and arm."""
    return sum(arm.first_exposures for phase in evidence.phases for arm in phase.arms.values())


def _is_less(before: Evidence, now: Evidence) -> bool:
    """Say whether no arm has more units now: what erasure leaves."""
    return all(
        seen.units <= phase.arms[arm].units
        for phase in before.phases
        if (later := now.phase(phase.number)) is not None
        for arm, seen in later.arms.items()
        if arm in phase.arms
    )


def _fetched(where: str, api_key: Path | None) -> tuple[Ledger, bytes]:
    parts = urlsplit(where)
    salt = parts.path.removesuffix(_RECORD).removeprefix(_EXPERIMENTS)
    if not (parts.path.startswith(_EXPERIMENTS) and parts.path.endswith(_RECORD) and salt.count("/") == 2):  # noqa: PLR2004
        raise CommandError(f"{where}: is no record; its address ends in {_EXPERIMENTS}NAMESPACE/NAME/ID/record", USAGE)
    ledger = ledger_of(f"{parts.scheme}://{parts.netloc}", api_key, Path())
    text = ledger.record(salt) if ledger else None
    if ledger is None or text is None:
        raise CommandError(f"{where}: nothing was decided of {salt} yet, or it is not known there", USAGE)
    return ledger, text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        raise CommandError(f"{path}: {why}; give a decision record, or its address", USAGE) from None
