"""Evidence comes from the real ledger, behind the reconciles' backs; a dead one is told and changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.report import Reason as Why
from fairlead.experiment.report import Verdict
from fairlead_operator.api.conditions import Reason
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.evidence import Evidence, noted
from fairlead_operator.core.record import Decision as Decided
from fairlead_operator.core.record import Record, Registered, Run, State, Untold
from fairlead_operator.runtime.evidence import LedgerEvidence, Terms
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.ledger import (
    DesignConflict,
    ExperimentUnknown,
    LedgerClient,
    LedgerError,
    LedgerRefused,
)
from support.ledger_stand import LedgerStand
from support.ledgers import NOON_US, SALT, design
from support.world import experiment, steps

URL = "http://ledger.test"
KEY = ObjectKey("flights", "arrival-delay")
BLOCK: dict[str, Any] = {
    "id": "e1",
    "objective": {"metric": "brier", "minimumEffect": "5%"},
    "guardrails": [{"metric": "error", "margin": "0.1pp"}],
    "outcomeWindow": "1h",
}
RAMP = steps(({"boosted": 10}, "10m"), ({"boosted": 50}, None))


@pytest.fixture
def stand(tmp_path: Path) -> LedgerStand:
    return LedgerStand(tmp_path / "ledger")


def client_of(
    stand: LedgerStand, *, key: str | None = None, calls: list[tuple[str, str]] | None = None
) -> LedgerClient:
    def observe(call: str, code: str, duration_s: float) -> None:
        assert duration_s >= 0
        if calls is not None:
            calls.append((call, code))

    return LedgerClient(stand.session(), 0.05, lambda: key, observe)


async def test_a_design_is_registered_as_often_as_one_likes_and_another_is_refused_by_name(stand: LedgerStand) -> None:
    client = client_of(stand)
    await client.register(URL, design())
    await client.register(f"{URL}/", design())
    with pytest.raises(DesignConflict, match="alpha"):
        await client.register(URL, design(alpha=0.1))


async def test_an_analysis_is_a_report_of_the_phase_that_was_asked_for(stand: LedgerStand) -> None:
    client = client_of(stand)
    with pytest.raises(ExperimentUnknown):
        await client.analysis(URL, SALT, 0)
    await client.register(URL, design())
    report = await client.analysis(URL, SALT, 1)
    assert (report.salt, report.phase, report.verdict, report.reason) == (SALT, 1, Verdict.NO_DATA, Why.NOT_YET_MATURE)
    with pytest.raises(LedgerRefused, match="phase 7 is not planned"):
        await client.analysis(URL, SALT, 7)


async def test_a_decision_has_one_record_whose_hash_is_answered(stand: LedgerStand) -> None:
    client = client_of(stand)
    await client.register(URL, design())
    decision = Decision(action=Action.ROLLBACK, reason="Requested", phase=0, at_us=NOON_US)
    first = await client.decide(URL, SALT, decision)
    assert first == await client.decide(URL, SALT, decision)
    record = (await stand.session().get(first.address)).json()
    assert (record["hash"], record["decision"]["reason"]) == (first.digest, "Requested")
    other = await client.decide(URL, SALT, decision.model_copy(update={"reason": "Superseded"}))
    assert (other.address, other.digest) == (first.address, None)


async def test_the_api_key_is_sent_and_every_call_is_counted(stand: LedgerStand) -> None:
    calls: list[tuple[str, str]] = []
    client = client_of(stand, key="operator.secret", calls=calls)
    await client.register(URL, design())
    assert stand.headers["authorization"] == "Bearer operator.secret"
    stand.hangs = True
    with pytest.raises(LedgerError, match="no answer within"):
        await client.analysis(URL, SALT, 0)
    stand.hangs, stand.fault = False, httpx.ConnectError("refused")
    with pytest.raises(LedgerError, match="refused"):
        await client.analysis(URL, SALT, 0)
    assert calls == [("register", "201"), ("analysis", "timeout"), ("analysis", "connection")]


async def test_what_answers_and_is_no_ledger_is_not_quoted() -> None:
    secret = httpx.MockTransport(lambda _: httpx.Response(403, json={"detail": "the vault's own words"}))
    async with httpx.AsyncClient(transport=secret) as session:
        with pytest.raises(LedgerRefused, match="HTTP 403: an answer that is no ledger's"):
            await LedgerClient(session, 1, lambda: None).register(URL, design())


async def test_what_is_no_report_is_no_evidence() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={}))) as session:
        with pytest.raises(LedgerError, match="is no report"):
            await LedgerClient(session, 1, lambda: None).analysis(URL, SALT, 0)


class Asking:
    """A deployment that is looked at by hand, in a time that passes by hand."""

    def __init__(self, stand: LedgerStand, url: str | None = URL) -> None:
        self.stand = stand
        self.now_s = 0.0
        self.news = 0
        self.desired: Desired = experiment(RAMP, named=BLOCK)
        self.record = Record("0.1.0")
        dice = random.Random(1)  # noqa: S311 -- spreads pauses
        self.source = LedgerEvidence(client_of(stand), Terms(15, lambda: url), lambda: self.now_s, dice)

    async def look(self) -> Evidence:
        """Look, let what was begun by it end, and note what is known then as a reconcile does."""
        self.source.look(self.desired, self.record, self._changed)
        await self.settle()
        evidence = self.source.look(self.desired, self.record, self._changed)
        await self.settle()
        self.record = noted(self.desired, self.record, evidence)
        return evidence

    async def settle(self) -> None:
        await asyncio.gather(*(known.task for known in self.source._known.values() if known.task is not None))

    def ramps(self, step: int) -> None:
        """Have the experiment's step be in force."""
        run = Run(SALT, State.RAMPING, started_s=0, since_s=0, step=step, in_force=True)
        self.record = dataclasses.replace(self.record, run=run)

    def _changed(self) -> None:
        self.news += 1


async def test_the_design_is_registered_before_anything_is_asked(stand: LedgerStand) -> None:
    asking = Asking(stand)
    evidence = await asking.look()
    assert asking.desired.design is not None
    assert evidence.registered == asking.desired.design.digest
    assert evidence.page == f"{URL}/experiments/{SALT}"
    assert asking.record.registered == Registered(SALT, asking.desired.design.digest)
    assert stand.asked == [("PUT", f"/v1/experiments/{SALT}")]
    assert asking.news == 1
    assert asking.source.due_s(KEY) is None  # nothing is to be asked before a step is in force


async def test_the_analysis_of_every_step_so_far_is_asked_for_at_an_interval(stand: LedgerStand) -> None:
    asking = Asking(stand)
    await asking.look()
    asking.ramps(1)
    asking.now_s += 15
    evidence = await asking.look()
    assert sorted(evidence.reports) == [0, 1]
    asked = len(stand.asked)
    assert asking.source.due_s(KEY) == 15
    await asking.look()
    assert len(stand.asked) == asked
    asking.now_s += 15
    await asking.look()
    assert len(stand.asked) == asked + 2


async def test_one_failure_is_no_news_and_two_are(stand: LedgerStand) -> None:
    asking = Asking(stand)
    await asking.look()
    asking.ramps(0)
    asking.now_s += 15
    before = await asking.look()
    stand.fault = httpx.ConnectError("refused")
    asking.now_s += 15
    assert (await asking.look()).trouble is None
    asking.now_s += 15
    evidence = await asking.look()
    assert evidence.trouble is not None
    assert evidence.trouble.reason is Reason.LEDGER_UNREACHABLE
    assert evidence.reports == before.reports
    stand.fault = None
    asking.now_s += 60
    assert (await asking.look()).trouble is None


async def test_pauses_between_failures_grow_to_a_minute(stand: LedgerStand) -> None:
    asking = Asking(stand)
    stand.fault = httpx.ConnectError("refused")
    pauses = []
    for _ in range(6):
        evidence = await asking.look()
        assert evidence.trouble is not None  # an experiment that waits for it is told at once
        due_s = asking.source.due_s(KEY)
        assert due_s is not None
        pauses.append(due_s)
        asking.now_s += due_s
    assert [7.5 <= pauses[0] <= 15, 30 <= pauses[-1] <= 60] == [True, True]


async def test_a_ledger_that_is_known_to_answer_again_is_asked_without_a_pause(stand: LedgerStand) -> None:
    asking = Asking(stand)
    stand.fault = httpx.ConnectError("refused")
    for _ in range(3):
        await asking.look()
        asking.now_s = asking.now_s + (asking.source.due_s(KEY) or 0.0)
    await asking.look()
    stand.fault = None
    assert (await asking.look()).registered is None
    asking.source.ask_again()
    evidence = await asking.look()
    assert evidence.registered is not None
    assert evidence.trouble is None


async def test_another_design_under_the_id_is_a_conflict_that_names_the_field(stand: LedgerStand) -> None:
    asking = Asking(stand)
    assert asking.desired.design is not None
    await client_of(stand).register(URL, asking.desired.design.model_copy(update={"alpha": 0.2}))
    evidence = await asking.look()
    assert evidence.trouble is not None
    assert evidence.trouble.reason is Reason.DESIGN_CONFLICT
    assert "alpha" in evidence.trouble.message
    assert asking.record.registered is None


async def test_a_ledger_that_has_forgotten_is_told_again(stand: LedgerStand, tmp_path: Path) -> None:
    asking = Asking(stand)
    await asking.look()
    fresh = LedgerStand(tmp_path / "fresh")
    asking.source.client = client_of(fresh)
    asking.ramps(0)
    asking.now_s += 15
    await asking.look()
    evidence = await asking.look()
    assert [method for method, _ in fresh.asked] == ["GET", "PUT", "GET"]
    assert evidence.trouble is None
    assert sorted(evidence.reports) == [0]


async def test_a_decision_is_told_at_once_and_once(stand: LedgerStand) -> None:
    asking = Asking(stand)
    await asking.look()
    decision = Decided("Rollback", "GuardrailBreached", 1.5, phase=0)
    run = Run(SALT, State.STABLE, started_s=0, since_s=0, decision=decision)
    asking.record = dataclasses.replace(asking.record, run=run, untold=(Untold(SALT, decision),))
    await asking.look()
    assert asking.record.untold == ()
    assert asking.record.run is not None
    assert asking.record.run.decision is not None
    assert asking.record.run.decision.record is not None
    assert asking.record.run.decision.record.digest is not None
    asking.now_s += 100
    await asking.look()
    assert [method for method, _ in stand.asked] == ["PUT", "POST", "GET"]  # and what it was decided on


async def test_what_was_decided_is_asked_for_once_by_an_operator_that_knows_nothing(stand: LedgerStand) -> None:
    before = Asking(stand)
    await before.look()
    decision = Decided("Rollback", "Requested", 1.5, phase=1)
    run = Run(SALT, State.STABLE, started_s=0, since_s=0, step=1, decision=decision)
    before.record = dataclasses.replace(before.record, run=run, untold=(Untold(SALT, decision),))
    before.now_s += 15
    await before.look()
    asking = Asking(stand)
    asking.record = before.record
    evidence = await asking.look()
    assert sorted(evidence.reports) == [0, 1]
    asked = len(stand.asked)
    asking.now_s += 100
    await asking.look()
    assert len(stand.asked) == asked
    assert asking.source.due_s(KEY) is None


async def test_a_decision_about_what_the_ledger_never_knew_is_not_told_for_ever(stand: LedgerStand) -> None:
    asking = Asking(stand)
    decision = Decided("Rollback", "Superseded", 1.5)
    asking.record = dataclasses.replace(asking.record, untold=(Untold("flights/arrival-delay/e0", decision),))
    await asking.look()
    assert asking.record.untold == ()


async def test_without_a_ledger_it_is_said_which_field_is_missing(stand: LedgerStand) -> None:
    asking = Asking(stand, url=None)
    evidence = await asking.look()
    assert evidence.trouble is not None
    assert evidence.trouble.reason is Reason.LEDGER_MISSING
    assert "spec.feedback.ledger.url" in evidence.trouble.message
    assert stand.asked == []


async def test_where_nothing_is_compared_nobody_is_asked(stand: LedgerStand) -> None:
    asking = Asking(stand)
    asking.desired = experiment(RAMP)
    assert await asking.look() == Evidence()
    assert stand.asked == []


async def test_what_is_being_asked_ends_with_the_source(stand: LedgerStand) -> None:
    asking = Asking(stand)
    stand.hangs = True
    asking.source.look(asking.desired, asking.record, _never)
    await asking.source.close()
    assert asking.source.client.session.is_closed


def _never() -> None:
    raise AssertionError
