"""Decision records: whole in themselves, and any change is found."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.experiment import record
from fairlead.experiment.analysis import analyse
from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.errors import AlteredRecord
from fairlead.experiment.record import DecisionRecord
from support.experiment_worlds import HOUR_US, START_US, Arm, design_of, evidence_of, two

NOW_US = START_US + 10 * HOUR_US


@pytest.fixture(scope="module")
def made() -> DecisionRecord:
    design, evidence = design_of(), evidence_of(two(treatment=Arm(brier=0.18, seed=2)))
    report = analyse(design, evidence, phase=1, now_us=NOW_US)
    return record.make(
        design,
        evidence,
        report,
        Decision(action=Action.PROMOTE, reason=report.reason, winner="boosted", phase=report.phase, at_us=NOW_US),
    )


def test_a_record_agrees_with_itself(made: DecisionRecord) -> None:
    record.check(made)


def test_a_record_read_again_is_the_same(made: DecisionRecord) -> None:
    again = record.read(made.json_text)
    assert again == made
    record.check(again)


def test_a_record_of_a_release_with_other_words_agrees(made: DecisionRecord) -> None:
    report = made.report.model_copy(update={"estimand": "Said otherwise.", "message": "So is this."})
    record.check(record.make(made.design, made.evidence, report, made.decision))


def test_a_record_is_of_one_phase(made: DecisionRecord) -> None:
    fields = json.loads(made.json_text)
    fields["decision"]["phase"] = 0
    with pytest.raises(AlteredRecord, match="different phases"):
        record.read(json.dumps(fields))


def test_how_its_json_is_laid_out_does_not_matter(made: DecisionRecord) -> None:
    record.check(record.read(json.dumps(json.loads(made.json_text), indent=2)))


@settings(max_examples=60)
@given(pick=st.integers(0, 10**6), digit=st.integers(1, 9))
def test_a_changed_digit_is_found(made: DecisionRecord, pick: int, digit: int) -> None:
    text = made.json_text
    places = [match.start() for match in re.finditer(r"\d", text)]
    at = places[pick % len(places)]
    changed = text[:at] + str((int(text[at]) + digit) % 10) + text[at + 1 :]
    try:
        read = record.read(changed)
    except AlteredRecord:
        return
    if read == made:  # a digit beyond a float's precision
        return
    with pytest.raises(AlteredRecord):
        record.check(read)


def test_a_verdict_that_does_not_follow_is_found_even_with_a_fitting_hash(made: DecisionRecord) -> None:
    arm = made.evidence.phases[0].arms["boosted"].model_copy(update={"units": 3999})
    phase = made.evidence.phases[0].model_copy(update={"arms": {**made.evidence.phases[0].arms, "boosted": arm}})
    evidence = made.evidence.model_copy(update={"phases": (phase,)})
    forged = record.make(made.design, evidence, made.report, made.decision)
    with pytest.raises(AlteredRecord, match=r"another report: arms\[1\]"):
        record.check(forged)


def test_a_record_of_two_experiments_is_none(made: DecisionRecord) -> None:
    other = json.loads(made.json_text)
    other["design"]["salt"] = "flights/arrival-delay/e2"
    with pytest.raises(AlteredRecord, match="different experiments"):
        record.read(json.dumps(other))


def test_evidence_that_cannot_be_judged_is_told(made: DecisionRecord) -> None:
    emptied = record.make(made.design, made.evidence.model_copy(update={"phases": ()}), made.report, made.decision)
    with pytest.raises(AlteredRecord, match="has not begun"):
        record.check(emptied)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 2}'])
def test_what_is_no_record_is_told(text: str) -> None:
    with pytest.raises(AlteredRecord, match="no decision record"):
        record.read(text)


def test_differences_name_where(made: DecisionRecord) -> None:
    other = made.report.model_copy(update={"phase": 7})
    assert list(record.differences(made.report, other)) == ["phase: 1, and 7"]
    assert not list(record.differences(made.evidence, made.evidence))


def test_rounding_of_another_processor_is_no_difference(made: DecisionRecord) -> None:
    check = made.report.sample_ratio
    near = check.model_copy(update={"log_e": check.log_e * (1 + 1e-13)})
    assert not list(record.differences(check, near))
