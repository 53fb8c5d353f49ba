"""Looks and decisions on SQLite and on PostgreSQL alike, and when many decide at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairlead.experiment import record as records
from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.design import Effect, Guardrail, Scale
from fairlead.experiment.evidence import Evidence
from fairlead.feedback.messages import ExposureReport
from fairlead_ledger.analysis.analyses import Analyses
from fairlead_ledger.errors import Conflict, NotFound, Unreadable
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from support.ledgers import MINUTE_US, NOON_US, ROOT, SALT, StillClock, arm_in, design, digest
from support.postgresql import PostgresqlServer, postgresql_server
from support.reports import ERROR

UNITS = 40
NO_ERRORS = Guardrail(metric=ERROR, margin=Effect(size=0.01, scale=Scale.ABSOLUTE))


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    with postgresql_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def analyses(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Analyses]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    database = Database(url)
    versions.upgrade(database)
    ledger = Ledger(database, ROOT, StillClock())
    ledger.declare(design())
    yield Analyses(ledger)
    database.close()


def expose(analyses: Analyses, sequence: int = 0, *, units: int = UNITS, failing: str = "", salt: str = SALT) -> None:
    names = [f"u{sequence}-{number}" for number in range(units)]
    places = [
        {
            "salt": salt,
            "phase": 1,
            "revision": "r1",
            "variant": arm_in(design(salt=salt), name, 1),
            "unit": digest(name, salt),
        }
        for name in names
    ]
    now_us = analyses.ledger.clock.now_us()
    block = {"salt": salt, "phase": 1, "revision": "r1", "variant": "logistic", "minute": now_us // MINUTE_US}
    told = {
        "server": f"s-{salt.rpartition('/')[2]}",
        "sequence": sequence,
        "exposures": [{**place, "at_us": now_us} for place in places],
        "counts": [
            {**place, "requests": 2, "errors": 2 * (place["variant"] == failing), "latency_us": 9000}
            for place in places
        ],
        "blocks": [{**block, "requests": 2 * units, "latency_us": 9000 * units}],
    }
    assert analyses.ledger.take_reports([ExposureReport.model_validate(told)]) == [True]


def requests(evidence: Evidence) -> int:
    return sum(arm.requests for phase in evidence.phases for arm in phase.arms.values())


def wait(analyses: Analyses, time_us: int) -> None:
    clock = analyses.ledger.clock
    assert isinstance(clock, StillClock)
    clock.time_us += time_us


def decision(action: Action, *, phase: int = 1) -> Decision:
    return Decision(action=action, reason="Requested", phase=phase, at_us=NOON_US)


def test_looks_are_kept_and_shown_and_a_decision_ends_them(analyses: Analyses) -> None:
    for sequence in range(3):
        expose(analyses, sequence)
        report = analyses.report(SALT, 1)
        analyses.report(SALT, 1)
        wait(analyses, 2 * MINUTE_US)
    assert sum(arm.units for arm in report.arms) == 3 * UNITS
    assert [one.at_us for one in analyses.everything(SALT).looks[1]] == [NOON_US + 2 * n * MINUTE_US for n in range(3)]
    record, is_new = analyses.decide(SALT, decision(Action.ROLLBACK))
    records.check(record)
    assert is_new
    wait(analyses, 10 * MINUTE_US)
    after = analyses.everything(SALT)
    assert after.reports[-1] == record.report
    assert analyses.report(SALT, 1).at_us == record.report.at_us  # it says what it said at its end
    assert len(analyses.everything(SALT).looks[1]) == 3
    assert analyses.record(SALT) == record
    assert analyses.evidence(SALT) == record.evidence


def test_a_record_holds_the_look_that_was_decided_on_and_what_was_seen_by_the_end(analyses: Analyses) -> None:
    salt = "flights/arrival-delay/failing"
    guarded = design(salt=salt, objective=None, guardrails=(NO_ERRORS,), outcome_window_s=0)
    analyses.ledger.declare(guarded)
    expose(analyses, units=400, failing="boosted", salt=salt)
    seen = analyses.report(salt, 1)
    assert seen.reason == "GuardrailBreached"
    wait(analyses, MINUTE_US)
    expose(analyses, 1, salt=salt)  # before the decision arrives
    breached = Decision(action=Action.ROLLBACK, reason=seen.reason, phase=1, at_us=seen.at_us)
    record, _ = analyses.decide(salt, breached)
    records.check(record)
    assert record.report == seen == analyses.report(salt, 1) == analyses.everything(salt).reports[-1]
    assert record.at_end == record.kept == analyses.evidence(salt)
    assert [requests(one) for one in (record.evidence, record.kept)] == [2 * 400, 2 * (400 + UNITS)]


def test_a_list_says_of_each_experiment_what_was_said_last_without_an_analysis(analyses: Analyses) -> None:
    def last() -> tuple[int, str, str | None] | None:
        said = analyses.ledger.verdict(analyses.ledger.experiment(SALT).id)
        return None if said is None else (said.phase, said.reason, said.action)

    assert last() is None
    assert analyses.report(SALT, 0).reason == "NotYetMature"
    assert last() == (0, "NotYetMature", None)
    expose(analyses)
    later = analyses.report(SALT, 1).reason
    wait(analyses, 2 * MINUTE_US)
    analyses.report(SALT, 0)
    assert last() == (1, later, None), "of the later phase, though the earlier was looked at afterwards"
    analyses.decide(SALT, decision(Action.HOLD))
    assert last() == (1, later, "Hold")
    analyses.report(SALT, 1)
    assert last() == (1, later, None), "it goes on"
    record, _ = analyses.decide(SALT, decision(Action.ROLLBACK, phase=0))
    assert last() == (0, record.report.reason, "Rollback")
    analyses.report(SALT, 1)
    assert last() == (0, record.report.reason, "Rollback")


def test_what_was_asked_for_rests_on_what_is_known_then(analyses: Analyses) -> None:
    expose(analyses)
    analyses.report(SALT, 1)
    wait(analyses, MINUTE_US)
    record, _ = analyses.decide(SALT, decision(Action.ROLLBACK))
    assert record.report.at_us == analyses.ledger.clock.now_us()
    assert record.at_end is None


def test_of_many_that_decide_at_once_one_makes_the_record(analyses: Analyses) -> None:
    expose(analyses)

    def decide(action: Action) -> bool | None:
        try:
            return analyses.decide(SALT, decision(action))[1]
        except Conflict:
            return None

    actions = [Action.PROMOTE, Action.ROLLBACK] * 4
    with ThreadPoolExecutor(len(actions)) as threads:
        made = list(threads.map(decide, actions))
    assert made.count(True) == 1
    assert (made.count(False), made.count(None)) == (3, 4)
    assert analyses.record(SALT).decision.action == actions[made.index(True)]


def test_holds_are_followed_by_a_decision_and_by_none_afterwards(analyses: Analyses) -> None:
    with pytest.raises(NotFound):
        analyses.record(SALT)
    with pytest.raises(Unreadable, match="phase 9 is not planned; 2 are, from 0"):
        analyses.decide(SALT, decision(Action.HOLD, phase=9))
    assert [analyses.decide(SALT, decision(Action.HOLD))[1] for _ in range(2)] == [True, False]
    assert analyses.decide(SALT, decision(Action.PROMOTE))[1]
    assert analyses.record(SALT).decision.action == "Promote"
    with pytest.raises(Conflict):
        analyses.decide(SALT, decision(Action.HOLD))
