"""Reports of servers: each counts once, whatever is told twice, in another order, or after a long silence."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy import func, select

from fairlead.experiment.evidence import ArmEvidence
from fairlead.feedback.messages import ExposureReport
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.store import reports
from fairlead_ledger.store.experiments import State
from fairlead_ledger.store.schema import REPORTS, SERVERS
from support.ledgers import HOUR_US, MINUTE_US, NOON_US, SALT, StillClock, arm, arm_of, design, exposure

TREATED = [unit for unit in (f"u{number}" for number in range(40)) if arm_of(unit) == "boosted"]


def report(sequence: int = 0, server: str = "s1", **parts: Any) -> ExposureReport:
    return ExposureReport.model_validate({"server": server, "sequence": sequence, **parts})


def counts(unit: str, requests: int, **more: Any) -> dict[str, Any]:
    return arm(unit, requests=requests, **more)


def block(minute: int, requests: int, **more: Any) -> dict[str, Any]:
    return arm(minute=NOON_US // MINUTE_US + minute, requests=requests, variant="boosted", **more)


def seen(ledger: Ledger, phase: int = 1, at_us: int = NOON_US) -> ArmEvidence:
    _, evidence = ledger.evidence_of(SALT, at_us)
    found = evidence.phase(phase)
    assert found is not None
    return found.arms["boosted"]


@pytest.fixture
def declared(ledger: Ledger) -> Ledger:
    ledger.declare(design(covariate="plane:age"))
    return ledger


def test_a_report_told_again_counts_once(declared: Ledger) -> None:
    one = report(exposures=[exposure(TREATED[0])], counts=[counts(TREATED[0], 3)], blocks=[block(0, 3)])
    assert declared.take_reports([one, one]) == [True, False]
    assert declared.take_reports([one]) == [False]
    evidence = seen(declared)
    assert (evidence.units, evidence.requests, evidence.blocks["error"][0].n) == (1, 3, 3)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_units_first_value_is_that_of_its_first_request_whoever_tells_first(
    declared: Ledger, order: tuple[int, int], *, together: bool
) -> None:
    unit, died_us = TREATED[0], NOON_US - MINUTE_US
    server = report(server="s1", exposures=[exposure(unit)], counts=[counts(unit, 3)])
    died = report(server="g1", exposures=[exposure(unit, died_us)], counts=[counts(unit, 1, errors=1)])
    both = [(server, died)[one] for one in order]
    for some in [both] if together else [[one] for one in both]:
        assert declared.take_reports(some) == [True] * len(some)
    evidence = seen(declared)
    assert (evidence.units, evidence.requests, evidence.first_values["error"].total) == (1, 4, 1.0)


def test_reports_may_come_in_any_order_and_their_numbers_are_forgotten_once_none_is_missing(declared: Ledger) -> None:
    declared.take_reports([report(server="other", exposures=[exposure(TREATED[0])])])
    for number, order in enumerate(permutations(range(3))):
        server = f"s{number}"
        told = [report(sequence, server, counts=[counts(TREATED[0], 1)]) for sequence in order]
        assert [declared.take_reports([one])[0] for one in (*told, *told)] == [True] * 3 + [False] * 3
    assert seen(declared).requests == 18
    with declared.database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(REPORTS)) == 0
        assert sorted(connection.scalars(select(SERVERS.c.told_until))) == [1, *[3] * 6]


def test_a_report_that_never_comes_is_given_up(declared: Ledger) -> None:
    ahead = reports.MOST_AHEAD
    assert declared.take_reports([report(0), report(ahead + 5)]) == [True, True]
    assert declared.take_reports([report(2), report(ahead + 4)]) == [False, True]


def test_the_earliest_exposure_counts_with_its_covariate(declared: Ledger) -> None:
    told = [(NOON_US + 9, 3.0), (NOON_US + 5, 1.0), (NOON_US + 7, 2.0)]
    for number, (at_us, covariate) in enumerate(told):
        declared.take_reports([report(number, exposures=[exposure(TREATED[0], at_us, covariate=covariate)])])
    _, evidence = declared.evidence_of(SALT, NOON_US)
    assert evidence.phases[0].started_us == NOON_US + 5


def test_counts_and_blocks_add_up_over_reports_and_servers(declared: Ledger) -> None:
    for number, server in ((0, "s1"), (1, "s1"), (0, "s2")):
        unit = counts(TREATED[0], 2, errors=1, degraded=1, latency_us=3000)
        declared.take_reports([report(number, server, counts=[unit], blocks=[block(0, 2, errors=1, latency_us=3000)])])
    evidence = seen(declared)
    assert (evidence.requests, evidence.metrics["error"].x, evidence.metrics["latency_ms"].x) == (6, 2.5, 7.5)  # of 5
    minutes, *_ = evidence.blocks["latency_ms"]
    assert (minutes.units, minutes.n, minutes.x) == (2, 6, 9.0)
    assert evidence.activity is not None
    assert (evidence.activity.n, evidence.activity.x) == (1, 6)
    assert evidence.left_out == {"BeyondRequestsPerUnit": 1}


def test_a_unit_that_no_server_saw_has_errors_of_its_arm_and_is_not_exposed(declared: Ledger) -> None:
    declared.take_reports([report(server="gateway", counts=[counts(TREATED[0], 2, errors=2)])])
    declared.take_reports([report(exposures=[exposure(TREATED[1])])])
    found = seen(declared)
    assert (found.units, found.metrics["error"].x, found.first_values["error"].total) == (1, 2, 1)


def test_errors_are_told_apart_by_who_failed_as_far_as_that_was_told(declared: Ledger) -> None:
    told = [{"Model": 1, "NoAnswer": 1}, {"Model": 2}, {}]
    for number, failures in enumerate(told):
        units = [counts(unit, 5, errors=3, failures=failures) for unit in TREATED[:2]]
        declared.take_reports([report(number, exposures=[exposure(TREATED[1])], counts=units)])
    evidence = seen(declared)
    assert (evidence.errors, evidence.failures) == (18, {"Model": 6, "NoAnswer": 2})
    declared.erase(SALT, TREATED[0])
    assert (seen(declared).errors, seen(declared).failures) == (9, {"Model": 3, "NoAnswer": 1})


@pytest.mark.parametrize("failures", [{"Model": 3}, {"Weather": 1}, {"Model": -1}])
def test_failures_that_cannot_be_are_refused(failures: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        report(counts=[counts(TREATED[0], 5, errors=2, failures=failures)])


def test_first_exposures_are_of_the_whole_experiment_and_units_of_the_phase(declared: Ledger) -> None:
    always = [unit for unit in (f"u{number}" for number in range(99)) if arm_of(unit, 0) == "boosted"]
    declared.take_reports([report(0, exposures=[exposure(unit, phase=0) for unit in always])])
    declared.take_reports([report(1, exposures=[exposure(unit, NOON_US + 5) for unit in (*always, TREATED[0])])])
    first, last = seen(declared, 0), seen(declared, 1)
    assert (first.first_exposures, first.units) == (len(always), len(always))
    new = TREATED[0] not in always
    assert (last.first_exposures, last.units) == (int(new), len({*always, TREATED[0]}))
    _, evidence = declared.evidence_of(SALT, NOON_US)
    assert [(one.started_us, one.ended_us) for one in evidence.phases] == [(NOON_US, NOON_US + 5), (NOON_US + 5, None)]


def test_requests_mature_once_the_outcome_window_is_over_since_they_were_told(
    declared: Ledger, clock: StillClock
) -> None:
    told = [counts(TREATED[0], 4), counts(TREATED[1], 9)]
    declared.take_reports([report(exposures=[exposure(unit) for unit in TREATED[:2]], counts=told)])
    assert seen(declared, at_us=NOON_US + HOUR_US).matured_requests == 0
    clock.time_us += 2 * HOUR_US
    mature = seen(declared, at_us=clock.time_us)
    assert (mature.matured_units, mature.matured_requests, mature.labelled_requests) == (2, 9, 0)
    assert mature.coverage is not None
    assert (mature.coverage.units, mature.coverage.n, mature.coverage.x) == (2, 9, 0)


def test_mismatches_are_told_as_left_out(declared: Ledger) -> None:
    declared.take_reports([report(exposures=[exposure(TREATED[0])], mismatches=[arm(requests=7, variant="boosted")])])
    assert seen(declared).left_out == {"AssignmentMismatch": 7}


def test_what_is_told_before_an_experiment_is_declared_is_kept(ledger: Ledger) -> None:
    ledger.take_reports([report(exposures=[exposure(TREATED[0])])])
    assert ledger.experiment(SALT).state is State.UNDECLARED
    assert ledger.declare(design())
    assert ledger.experiment(SALT).state is State.RUNNING
    assert seen(ledger).units == 1


def test_evidence_is_made_anew_only_when_something_was_told(declared: Ledger) -> None:
    declared.take_reports([report(0, exposures=[exposure(TREATED[0])])])
    before = seen(declared)
    assert seen(declared).metrics is before.metrics
    declared.take_reports([report(1, exposures=[exposure(TREATED[1])])])
    assert seen(declared).units == 2


def test_many_units_sum_to_what_numpy_says(declared: Ledger) -> None:
    source = np.random.default_rng(3)
    requests = source.integers(1, 40, len(TREATED))
    latency = requests * source.integers(500, 9000, len(TREATED))
    told = [counts(unit, int(n), latency_us=int(x)) for unit, n, x in zip(TREATED, requests, latency, strict=True)]
    declared.take_reports([report(exposures=[exposure(unit) for unit in TREATED], counts=told)])
    weight = np.minimum(requests, 5)
    latency_ms = seen(declared).metrics["latency_ms"]
    assert latency_ms.n == weight.sum()
    assert latency_ms.x == pytest.approx((latency / 1000 * weight / requests).sum())


def test_the_largest_numbers_that_are_taken_can_be_summed(declared: Ledger) -> None:
    most = reports.MOST
    largest: dict[str, Any] = {"requests": most, "errors": most, "latency_us": most}
    told = report(
        reports._LAST_SEQUENCE,
        exposures=[exposure(TREATED[0], covariate=1e300)],
        counts=[counts(TREATED[0], degraded=most, **largest)],
        blocks=[arm(minute=reports._LAST_MINUTE, variant="boosted", latency_counts={10**9: most}, **largest)],
        mismatches=[arm(requests=most, variant="boosted")],
        dropped=most,
    )
    assert reports.misfit(told) is None
    assert declared.take_reports([told]) == [True]
    assert seen(declared).requests == most
