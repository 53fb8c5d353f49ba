"""Decision records: what was known, what was concluded, what was done; anyone can check it later.

A record holds all that its verdict follows from, so that a reader needs nothing else to recompute it, and names itself
by the hash of its canonical JSON, so that a changed digit is found. The hash protects against change, not against a
forger who makes the whole anew: keep the hash elsewhere (the operator writes it into the deployment's status).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from fairlead.experiment.analysis import analyse
from fairlead.experiment.decision import Decision
from fairlead.experiment.design import Design, Part, canonical
from fairlead.experiment.errors import AlteredRecord, ExperimentError
from fairlead.experiment.evidence import Evidence
from fairlead.experiment.report import Report

TOLERANCE = 1e-9
"""Relative difference of figures that other processors' libraries may make."""
_NO_HASH = ""
_PROSE = {"message", "estimand"}
"""Fields that are sentences: each release may say them in its own words."""


class DecisionRecord(Part):
    """One decision with everything it followed from."""

    version: Literal[1] = 1
    design: Design
    evidence: Evidence
    """What the report follows from: of the look that was decided on."""
    report: Report
    decision: Decision
    at_end: Evidence | None = None
    """What had been seen when the experiment ended, a moment after that look; None if it was the same."""
    hash: str
    """``sha256:`` and 64 hex digits of the record's canonical JSON with this field empty."""

    @model_validator(mode="after")
    def _is_of_one_experiment(self) -> Self:
        ends = [self.at_end.salt] if self.at_end else []
        if len({self.design.salt, self.evidence.salt, self.report.salt, *ends}) > 1:
            raise ValueError("design, evidence and report are of different experiments")
        if self.decision.phase != self.report.phase:
            raise ValueError("decision and report are of different phases")
        return self

    @property
    def kept(self) -> Evidence:
        """The evidence that a ledger keeps from the end on."""
        return self.at_end or self.evidence

    @property
    def json_text(self) -> str:
        """The record as it is written: canonical JSON."""
        return canonical(self).decode()


def make(
    design: Design, evidence: Evidence, report: Report, decision: Decision, at_end: Evidence | None = None
) -> DecisionRecord:
    """Return the record of a decision.

    Args:
        design: Of the experiment.
        evidence: What ``report`` follows from.
        report: What was decided on.
        decision: What was decided.
        at_end: What had been seen by then, if that is more.
    """
    end = None if at_end == evidence else at_end
    record = DecisionRecord(
        design=design, evidence=evidence, report=report, decision=decision, at_end=end, hash=_NO_HASH
    )
    return record.model_copy(update={"hash": hash_of(record)})


def hash_of(record: DecisionRecord) -> str:
    """Return what a record's hash must be."""
    return f"sha256:{hashlib.sha256(canonical(record.model_copy(update={'hash': _NO_HASH}))).hexdigest()}"


def read(text: str | bytes) -> DecisionRecord:
    """Return a record as written.

    Raises:
        AlteredRecord: It is no record, or what it holds cannot be.
    """
    try:
        return DecisionRecord.model_validate_json(text)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise AlteredRecord(f"is no decision record: {where}: {first['msg']}") from None


def check(record: DecisionRecord) -> None:
    """See that a record is as it was written, and that its verdict follows from its evidence.

    Raises:
        AlteredRecord: Its hash differs, or the report that its evidence gives does; the message names the first field.
    """
    if record.hash != (right := hash_of(record)):
        raise AlteredRecord(f"{record.design.salt}: the record says {record.hash} of itself, and is {right}")
    try:
        again = analyse(record.design, record.evidence, phase=record.report.phase, now_us=record.report.at_us)
    except ExperimentError as wrong:
        raise AlteredRecord(f"{record.design.salt}: its evidence cannot be judged: {wrong}") from None
    if found := next(differences(record.report, again), None):
        raise AlteredRecord(f"{record.design.salt}: its evidence gives another report: {found}")


def differences(mine: Part, other: Part, *, tolerance: float = TOLERANCE) -> Iterator[str]:
    """Yield where two reports, or two states of evidence, differ: ``path: this, and that``.

    Sentences are not compared: what they say is in the other fields, too.
    """
    return _differences("", json.loads(canonical(mine)), json.loads(canonical(other)), tolerance)


def _differences(path: str, mine: Any, other: Any, tolerance: float) -> Iterator[str]:
    if isinstance(mine, dict) and isinstance(other, dict):
        for name in sorted(mine.keys() | other.keys()):
            if name not in _PROSE:
                yield from _differences(f"{path}.{name}".lstrip("."), mine.get(name), other.get(name), tolerance)
    elif isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        for index, (one, two) in enumerate(zip(mine, other, strict=True)):
            yield from _differences(f"{path}[{index}]", one, two, tolerance)
    elif not _is_same(mine, other, tolerance):
        yield f"{path}: {mine}, and {other}"


def _is_same(mine: Any, other: Any, tolerance: float) -> bool:
    if isinstance(mine, float) and isinstance(other, float):
        return math.isclose(mine, other, rel_tol=tolerance, abs_tol=tolerance)
    return bool(mine == other)
