"""Accounts of load in `make e2e`: nothing lost, nothing counted twice, everybody answered by the arm of their unit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from e2e.accounts import Balance, Split, Tally, misassigned, wrong_arms
from e2e.counting import counters_of
from e2e.errors import NotSeen
from e2e.steps.scaling import weights_while_scaling
from e2e.trial import gained

from fairlead import Layout, assign
from support.autoscaling import BEFORE, CONTROL, MOST, SHARE, TREATMENT, Sight
from support.gateway_load import Sample

SALT = "flights/arrival-delay/e1"
LOW, HIGH = (Layout.of("logistic", {"boosted": weight}) for weight in (1000, 5000))


def _sample(unit: str, variant: str, sent_s: float = 0.0, problem: str = "") -> Sample:
    return Sample("REST", unit, sent_s, sent_s + 0.1, variant, problem)


def _moved() -> str:
    """Return a unit that a higher weight moves into the treatment."""
    units = (f"unit-{number}" for number in range(1000))
    return next(unit for unit in units if assign(unit, SALT, LOW) != assign(unit, SALT, HIGH))


def _balance(**changes: object) -> Balance:
    samples = (_sample("a", "logistic"), _sample("b", "logistic"))
    whole = Balance(samples, misassigned=(), counted=2, failed=0, mismatched=0, retried=0)
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_a_unit_is_answered_by_its_arm_at_a_weight_of_that_time() -> None:
    unit = _moved()
    splits = [Split(LOW, 0.0, until_s=100.0), Split(HIGH, 99.0)]
    right = [_sample(unit, "logistic", 50), _sample(unit, "logistic", 102), _sample(unit, "boosted", 102)]
    early, late = _sample(unit, "boosted", 50), _sample(unit, "logistic", 106)
    assert misassigned([*right, early, late], splits, SALT) == [early, late]


def test_what_was_not_answered_is_lost_and_not_misassigned() -> None:
    lost = _sample("a", "", problem="503")
    assert misassigned([lost], [Split(LOW, 0.0)], SALT) == []
    assert _balance(samples=(lost,)).lost == [lost]


def test_units_that_land_elsewhere_are_named_with_their_arm() -> None:
    expected = {"a": "logistic", "b": "boosted", "c": "boosted"}
    assert wrong_arms({"a": "logistic", "b": "logistic"}, expected) == {
        "b": ("logistic", "boosted"),
        "c": ("", "boosted"),
    }


def test_a_whole_account_passes_and_is_told() -> None:
    balance = _balance()
    balance.check()
    seen = balance.seen("ten changes")
    assert seen.sentence.startswith("ten changes; 2 sent = 2 answered = 2 counted, 0 lost, 0 misassigned")
    assert (seen.figures["sent"], seen.figures["counted"]) == (2, 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples": ()}, "nothing was sent"),
        ({"samples": (_sample("a", "", problem="503"), _sample("b", "x"))}, "1 of 2 lost: REST a 503"),
        ({"misassigned": (_sample("a", "boosted"),)}, "1 of 2 misassigned: REST a boosted"),
        ({"mismatched": 1}, "servers count 1 requests of another arm's units"),
        ({"failed": 1}, "servers count 1 failures, the gateway 0 retries"),
        ({"counted": 1}, "answered 2, servers count 1"),
        ({"counted": 4, "retried": 1}, "answered 2, servers count 4; 1 retries"),
    ],
)
def test_an_account_that_does_not_add_up_says_where(changes: dict[str, object], told: str) -> None:
    with pytest.raises(NotSeen, match=told):
        _balance(**changes).check()


def test_a_gap_without_pods_is_excused_only_where_it_is_expected_and_for_so_long() -> None:
    lost = tuple(_sample(unit, "", sent_s, "503 no healthy upstream") for unit, sent_s in (("a", 1.0), ("b", 2.0)))
    balance = _balance(samples=(*lost, _sample("c", "logistic")), counted=1)
    balance.check(gap_s=1.2)
    assert "1.1 s without a pod" in balance.seen("a restart").sentence
    for gap_s, problem in ((0.0, "503 no healthy upstream"), (1.0, "503 no healthy upstream"), (5.0, "reset")):
        samples = tuple(replace(sample, problem=problem) for sample in lost)
        with pytest.raises(NotSeen, match="2 of 2 lost"):
            _balance(samples=samples, counted=0).check(gap_s=gap_s)


def test_a_retried_request_may_be_counted_twice() -> None:
    _balance(counted=3, failed=1, retried=1).check()


def test_counters_are_summed_over_pods_that_come_end_and_start_again() -> None:
    tally = Tally()
    tally.take("old", 10, new=False)
    tally.take("old", 15, new=False)  # 5, and it ends
    for value in (2, 7, 3):  # 7 by its first process, 3 by its second
        tally.take("new", value, new=True)
    assert tally.gained == 15


def test_a_servers_counters_are_read_from_its_metrics() -> None:
    text = """# HELP fairlead_requests_total Requests answered, by HTTP status or gRPC code.
# TYPE fairlead_requests_total counter
fairlead_requests_total{model="m",variant="v",protocol="v1-rest",code="200"} 7.0
fairlead_requests_total{model="m",variant="v",protocol="v2-grpc",code="OK"} 5.0
fairlead_requests_total{model="m",variant="v",protocol="v1-rest",code="503"} 1.0
# HELP fairlead_exposures_total Requests by what their experiment header came to.
# TYPE fairlead_exposures_total counter
fairlead_exposures_total{model="m",variant="v",outcome="exposed"} 12.0
fairlead_exposures_total{model="m",variant="v",outcome="mismatched"} 2.0
fairlead_exposures_total{model="m",variant="v",outcome="rejected"} 3.0
python_info{version="3.11"} 1.0
"""
    assert counters_of(text) == {"counted": 12.0, "failed": 1.0, "mismatched": 2.0, "exposed": 12.0}


def test_weights_are_looked_at_from_the_first_one_given_until_control_has_all_of_its_pods() -> None:
    def sight(weight: int, pods: int) -> Sight:
        return Sight(weight, {CONTROL: pods, TREATMENT: 1}, {CONTROL: 1, TREATMENT: 1})

    beginning = [sight(0, 0), sight(0, 1), sight(BEFORE, 1), sight(BEFORE, 2)]
    end = [sight(BEFORE, MOST), sight(SHARE, MOST)]
    assert weights_while_scaling([*beginning, *end]) == [BEFORE]
    assert weights_while_scaling([*beginning, sight(0, 2), *end]) == [BEFORE, 0]


def test_retries_of_clusters_that_are_gone_take_nothing_off() -> None:
    before = {"old": 7, "kept": 2, "again": 5}
    assert gained(before, {"kept": 3, "again": 1, "new": 4}) == 5
