"""Outcomes: joined by token or unit, told apart, kept until their prediction is old enough, and folded in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from fairlead.experiment.evidence import ArmEvidence
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.messages import ExposureReport, Fate, Outcome, OutcomeAnswer
from fairlead_ledger.intake.rules import Refused
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.store.fold import Backlog
from fairlead_ledger.store.schema import FATES, PENDING, UNIT_SUMS
from support.ledger_truth import Told, kept, truth
from support.ledgers import HOUR_US, NOON_US, ROOT, SALT, StillClock, arm_of, design, exposure, token

UNITS = [f"u{number}" for number in range(12)]
TREATED = next(unit for unit in UNITS if arm_of(unit) == "boosted")


def tell(ledger: Ledger, *told: dict[str, Any]) -> OutcomeAnswer:
    judged = ledger.judge([Outcome.model_validate(one) for one in told], lambda _: True)
    return ledger.take_outcomes([judged])[0]


def fate(answer: OutcomeAnswer) -> Fate:
    """Return what became of the only outcome of a batch."""
    if answer.refused:
        return answer.refused[0].fate
    return Fate.ACCEPTED if answer.accepted else Fate.DUPLICATE


def seen(ledger: Ledger, arm: str = "boosted", phase: int = 1, at_us: int = NOON_US + 2 * HOUR_US) -> ArmEvidence:
    _, evidence = ledger.evidence_of(SALT, at_us)
    found = evidence.phase(phase)
    assert found is not None
    return found.arms[arm]


def expose(ledger: Ledger, *units: str, phase: int = 1, at_us: int = NOON_US) -> None:
    parts = [exposure(unit, at_us, phase) for unit in units]
    report = ExposureReport.model_validate({"server": f"s{phase}-{at_us}-{units}", "sequence": 0, "exposures": parts})
    assert ledger.take_reports([report]) == [True]


@pytest.fixture
def declared(ledger: Ledger) -> Ledger:
    assert ledger.declare(design())
    return ledger


def test_an_actual_becomes_the_declared_metrics_of_prediction_and_actual(declared: Ledger) -> None:
    expose(declared, TREATED)
    assert tell(declared, {"prediction_id": token(TREATED, outputs=(0.25,)), "actual": 1}).accepted == 1
    brier = seen(declared).metrics["brier"]
    assert (brier.units, brier.n, brier.x) == (1, 1, 0.5625)


def test_a_covariate_is_that_of_a_units_first_exposure_in_the_whole_experiment(ledger: Ledger) -> None:
    """In a later step an arm may have changed it already."""
    ledger.declare(design(covariate="plane:age"))
    told = [exposure(TREATED, NOON_US - 9, 0, covariate=1.0), exposure(TREATED, NOON_US, 1, covariate=9.0)]
    ledger.take_reports([ExposureReport.model_validate({"server": "s1", "sequence": 0, "exposures": told})])
    tell(ledger, {"prediction_id": token(TREATED), "actual": 1})
    covariate = seen(ledger).metrics["brier"].covariate
    assert covariate is not None
    assert (covariate.units, covariate.mean) == (1, 1.0)


def test_an_outcome_told_twice_counts_once_and_the_first_one_counts(declared: Ledger) -> None:
    expose(declared, TREATED)
    told = {"prediction_id": token(TREATED), "metric": "click", "value": 1}
    assert fate(tell(declared, told)) is Fate.ACCEPTED
    assert fate(tell(declared, told | {"value": 0})) is Fate.DUPLICATE
    both = tell(declared, *[{**told, "prediction_id": token(TREATED, number=1), "value": n} for n in (1, 0)])
    assert (both.accepted, both.duplicates) == (1, 1)
    assert seen(declared).metrics["click"].x == 2


def test_metrics_of_one_prediction_are_told_one_by_one(declared: Ledger) -> None:
    expose(declared, TREATED)
    told = {"prediction_id": token(TREATED)}
    assert tell(declared, told | {"actual": 0}, told | {"metric": "click", "value": 1}).accepted == 2
    evidence = seen(declared)
    assert (evidence.metrics["brier"].n, evidence.metrics["click"].n) == (1, 1)


OTHER = KeyRing((SigningKey("k1", b"somebody else's signing key"),), b"somebody else's unit key")


WRONG: list[tuple[dict[str, Any], Fate, str]] = [
    ({"prediction_id": token("u", variant="boosted")[:-2] + "AA", "actual": 1}, Fate.FORGED, "signature"),
    ({"prediction_id": token("u", ring=OTHER), "actual": 1}, Fate.FORGED, "signature"),
    (
        {"prediction_id": token("u", ring=KeyRing((SigningKey("k9", b"x" * 16),), b"y" * 16)), "actual": 1},
        Fate.FORGED,
        "unknown key",
    ),
    ({"prediction_id": "v1.k1.AAAA", "actual": 1}, Fate.MALFORMED, "version v1"),
    ({"prediction_id": token("u").rpartition(".")[0] + ".AAAA", "actual": 1}, Fate.MALFORMED, "payload"),
    ({"prediction_id": "nonsense", "actual": 1}, Fate.MALFORMED, "v1"),
    (
        {"prediction_id": token("u", salt="flights/arrival-delay/e9"), "actual": 1},
        Fate.UNKNOWN_EXPERIMENT,
        "declared",
    ),
    ({"prediction_id": token("u", variant="other"), "actual": 1}, Fate.UNKNOWN_EXPERIMENT, "arm or phase"),
    ({"prediction_id": token("u"), "metric": "taps", "value": 1}, Fate.UNKNOWN_METRIC, "declares no such"),
    ({"prediction_id": token("u"), "metric": "brier", "value": 1}, Fate.UNKNOWN_METRIC, "post the actual"),
    ({"prediction_id": token("u"), "metric": "click", "value": 0.5}, Fate.MALFORMED, "0 or 1"),
    ({"prediction_id": token("u"), "actual": 2}, Fate.MALFORMED, "0 to 1"),
    ({"prediction_id": token("u", outputs=(), rows=1), "actual": 1}, Fate.MALFORMED, "needs the output"),
    ({"prediction_id": token("u", outputs=(0.1, 0.2)), "actual": 1}, Fate.MALFORMED, "row is needed, 0 to 1"),
    ({"prediction_id": token("u", outputs=(0.1, 0.2)), "row": 2, "actual": 1}, Fate.MALFORMED, "row is needed"),
    ({"prediction_id": token("u", rows=17, outputs=()), "row": 3, "actual": 1}, Fate.MALFORMED, "post metrics"),
    (
        {
            "prediction_id": token("u", rows=(1 << 32) - 1, outputs=()),
            "row": 1 << 31,
            "metric": "click",
            "value": 1,
        },
        Fate.MALFORMED,
        "row",
    ),
    ({"prediction_id": token("u", NOON_US - HOUR_US - 1), "actual": 1}, Fate.OUT_OF_WINDOW, "older"),
    ({"prediction_id": token("u", NOON_US + HOUR_US), "actual": 1}, Fate.OUT_OF_WINDOW, "future"),
    (
        {"experiment": SALT, "unit": "u", "at_us": NOON_US, "id": "o", "metric": "click", "value": 1},
        Fate.UNKNOWN_UNIT,
        "not exposed",
    ),
]
"""What is told, what becomes of it, and words of the reason."""


def test_what_is_wrong_with_an_outcome_is_told(declared: Ledger) -> None:
    answer = tell(declared, *(told for told, _, _ in WRONG))
    assert [(one.index, one.fate) for one in answer.refused] == [(n, fate) for n, (_, fate, _) in enumerate(WRONG)]
    assert [
        one.message for one, (_, _, words) in zip(answer.refused, WRONG, strict=True) if words not in one.message
    ] == []


def test_an_outcome_at_the_very_end_of_the_window_counts(declared: Ledger) -> None:
    assert fate(tell(declared, {"prediction_id": token("u", NOON_US - HOUR_US), "actual": 1})) is Fate.ACCEPTED


def test_an_outcome_that_was_folded_is_late_when_it_is_told_again(declared: Ledger, clock: StillClock) -> None:
    expose(declared, TREATED)
    told = {"prediction_id": token(TREATED), "actual": 1}
    assert fate(tell(declared, told)) is Fate.ACCEPTED
    clock.time_us += HOUR_US + 1
    assert seen(declared, at_us=clock.time_us).metrics["brier"].n == 1
    assert fate(tell(declared, told)) is Fate.OUT_OF_WINDOW
    clock.time_us = NOON_US  # stepped back
    assert fate(tell(declared, told)) is Fate.OUT_OF_WINDOW
    clock.time_us += 3 * HOUR_US
    assert seen(declared, at_us=clock.time_us).metrics["brier"].n == 1


def test_a_request_of_several_rows_counts_once_with_the_mean_of_those_told(declared: Ledger) -> None:
    expose(declared, TREATED)
    prediction = token(TREATED, outputs=(0.5, 0.0, 1.0))
    assert tell(declared, *({"prediction_id": prediction, "row": row, "actual": 1} for row in (0, 1))).accepted == 2
    brier = seen(declared).metrics["brier"]
    assert (brier.n, brier.x) == (1, (0.25 + 1.0) / 2)


def test_only_a_units_first_requests_count_in_order_of_prediction_time(declared: Ledger) -> None:
    expose(declared, TREATED)
    for number in (11, 4, 0, 7, 2, 9, 1, 3, 10, 5, 8, 6):
        told = {"prediction_id": token(TREATED, NOON_US + number, outputs=(number / 16,)), "actual": 0}
        assert fate(tell(declared, told)) is Fate.ACCEPTED
    brier = seen(declared).metrics["brier"]
    assert (brier.n, brier.x) == (5, sum((number / 16) ** 2 for number in range(5)))


@pytest.mark.parametrize("most_folded", [1, 7, 5000])
def test_sums_are_the_same_to_the_last_bit_however_the_fold_is_cut(
    declared: Ledger, clock: StillClock, most_folded: int
) -> None:
    source = np.random.default_rng(11)
    told = [  # some moments are shared by several predictions
        Told(
            source.choice(UNITS),
            NOON_US + number // 3,
            number=number,
            output=float(np.float32(source.random())),
            actual=1,
        )
        for number in range(90)
    ]
    tell(declared, *(told[place].outcome for place in source.permutation(len(told))))
    cut = Ledger(declared.database, ROOT, clock, most_folded=most_folded)
    cut.evidence_of(SALT, NOON_US + 2 * HOUR_US)
    assert kept(declared.database) == truth(told, most=5)


def test_an_outcome_by_unit_goes_to_the_arm_that_the_law_gives_it_and_it_was_exposed_to(declared: Ledger) -> None:
    expose(declared, TREATED)
    told = {"experiment": SALT, "unit": TREATED, "metric": "click", "value": 1}
    assert fate(tell(declared, {**told, "at_us": NOON_US - 1, "id": "early"})) is Fate.UNKNOWN_UNIT
    assert fate(tell(declared, {**told, "at_us": NOON_US, "id": "order-1"})) is Fate.ACCEPTED
    again = tell(declared, {**told, "at_us": NOON_US + 5, "id": "order-1"})
    assert fate(again) is Fate.DUPLICATE
    assert fate(tell(declared, {**told, "at_us": NOON_US, "id": "order-2"})) is Fate.ACCEPTED
    assert seen(declared).metrics["click"].n == 2
    assert tell(declared, {"experiment": SALT, "unit": TREATED, "at_us": NOON_US, "id": "x", "actual": 1}).refused


def test_an_outcome_by_unit_goes_to_the_phase_of_the_last_exposure_before_it(declared: Ledger) -> None:
    moved = next(f"m{n}" for n in range(99) if arm_of(f"m{n}", 0) != arm_of(f"m{n}", 1))
    expose(declared, moved, phase=0, at_us=NOON_US)
    expose(declared, moved, phase=1, at_us=NOON_US + 10)
    told = {"experiment": SALT, "unit": moved, "metric": "click", "value": 1}
    for at_us in (5, 10, 15):
        assert fate(tell(declared, {**told, "at_us": NOON_US + at_us, "id": str(at_us)})) is Fate.ACCEPTED
    assert seen(declared, "logistic", 0).metrics["click"].n == 1
    assert seen(declared, "boosted", 1).metrics["click"].n == 2


def test_a_unit_that_was_exposed_to_another_arm_than_its_own_is_no_witness(declared: Ledger) -> None:
    stray = exposure(TREATED) | {"variant": "logistic"}
    report = ExposureReport.model_validate({"server": "s", "sequence": 0, "exposures": [stray]})
    declared.take_reports([report])
    told = {"experiment": SALT, "unit": TREATED, "at_us": NOON_US, "id": "o", "metric": "click", "value": 1}
    answer = tell(declared, told)
    assert fate(answer) is Fate.UNKNOWN_UNIT
    assert "another arm" in answer.refused[0].message


def test_a_unit_of_two_arms_in_one_phase_counts_in_the_arm_of_each_prediction(declared: Ledger) -> None:
    tell(
        declared,
        {"prediction_id": token(TREATED, number=1, variant="logistic"), "actual": 1},
        {"prediction_id": token(TREATED, number=2, variant="boosted"), "actual": 0},
    )
    declared.evidence_of(SALT, NOON_US + 2 * HOUR_US)
    assert {(key[1], sums) for key, sums in kept(declared.database).items()} == {
        ("logistic", (1, 0.5625)),
        ("boosted", (1, 0.0625)),
    }


def test_whoever_may_not_tell_of_a_deployment_finds_it_unknown(declared: Ledger) -> None:
    judged = declared.judge([Outcome(prediction_id=token("u"), actual=1)], lambda _: False)
    assert [one.fate for one in judged if isinstance(one, Refused)] == [Fate.UNKNOWN_EXPERIMENT]


def test_what_became_of_outcomes_is_counted(declared: Ledger) -> None:
    told = {"prediction_id": token("u"), "actual": 1}
    tell(declared, told, told, {"prediction_id": "x", "actual": 1}, {"prediction_id": token("u", 0), "actual": 1})
    tell(declared, told)
    with declared.database.reading() as connection:
        rows = connection.execute(select(FATES.c.fate, FATES.c.experiment_id > 0, FATES.c.count)).all()
    assert {tuple(row) for row in rows} == {
        ("Accepted", True, 1),
        ("Duplicate", True, 2),
        ("Malformed", False, 1),
        ("OutOfWindow", True, 1),
    }


def test_nothing_is_kept_of_a_prediction_once_it_was_folded(declared: Ledger) -> None:
    for number in range(20):
        tell(declared, {"prediction_id": token(TREATED, NOON_US + number, number=number), "actual": 1})
    declared.evidence_of(SALT, NOON_US + 2 * HOUR_US)
    with declared.database.reading() as connection:
        counts = [connection.scalar(select(func.count()).select_from(table)) for table in (PENDING, UNIT_SUMS)]
    assert counts == [0, 1]


def test_what_waits_to_be_folded_is_known_with_how_long_it_could_have_been(declared: Ledger, clock: StillClock) -> None:
    assert declared.backlog() == Backlog(0, 0.0)
    for number in range(3):
        tell(declared, {"prediction_id": token(TREATED, NOON_US + number, number=number), "actual": 1})
    assert declared.backlog() == Backlog(3, 0.0), "none is older than the outcome window"
    clock.time_us = NOON_US + HOUR_US + 1 + 5_000_000
    assert declared.backlog() == Backlog(3, 5.0)
    declared.evidence_of(SALT, clock.time_us)
    assert declared.backlog() == Backlog(0, 0.0)
