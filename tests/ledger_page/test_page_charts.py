"""Where things lie in the drawings of intervals."""

from __future__ import annotations

import pytest

from fairlead_ledger.page.charts import WIDTH, Against, Interval, Look, Threshold, drawn, drawn_path

DAY_US = 86_400_000_000


def label(effect: float) -> str:
    return f"{effect:+.0%}"


FIVE_LOWER = Against(Threshold.MINIMUM, -0.05, lower_is_better=True, label=label)
TEN_MORE = Against(Threshold.MARGIN, 0.1, lower_is_better=True, label=label)


def test_an_interval_lies_between_its_ends_with_zero_and_threshold_in_sight() -> None:
    drawing = drawn([Interval("boosted", -0.08, -0.02, -0.06)], FIVE_LOWER)
    (bar,) = drawing.bars
    assert 0 < bar.low < bar.estimate < bar.high < drawing.zero < WIDTH
    assert bar.low < drawing.threshold < bar.high
    assert not bar.cut_low
    assert not bar.cut_high
    assert "-5%" in {tick.label for tick in drawing.ticks}


def test_what_is_worth_shipping_lies_on_the_better_side_and_what_breaks_the_margin_on_the_worse() -> None:
    interval = [Interval("boosted", -0.02, 0.02, 0.0)]
    worth, broken = drawn(interval, FIVE_LOWER), drawn(interval, TEN_MORE)
    assert worth.zone_from + worth.zone_width == pytest.approx(worth.threshold)
    assert worth.threshold < worth.zero
    assert broken.zone_from == broken.threshold > broken.zero
    higher = drawn(interval, Against(Threshold.MINIMUM, 0.05, lower_is_better=False, label=label))
    assert higher.zone_from == higher.threshold > higher.zero


def test_an_end_that_is_unbounded_or_far_out_is_cut_off_with_an_arrow() -> None:
    (open_,) = drawn([Interval("boosted", None, 0.02, 0.0)], TEN_MORE).bars
    assert (open_.cut_low, open_.cut_high) == (True, False)
    (wide,) = drawn([Interval("boosted", -9.0, 9.0, 5.0)], FIVE_LOWER).bars
    assert wide.cut_low
    assert wide.cut_high
    assert wide.low < wide.estimate < wide.high  # which is in sight however far out it is


@pytest.mark.parametrize("interval", [(0.0, 0.0, 0.0), (-1e-9, 1e-9, 0.0), (-1.0, 1e6, 3.0)])
def test_any_interval_can_be_drawn(interval: tuple[float, float, float]) -> None:
    low, high, estimate = interval
    drawing = drawn([Interval("boosted", low, high, estimate)], FIVE_LOWER)
    assert 2 <= len(drawing.ticks) <= 9
    assert all(0 <= at <= WIDTH for bar in drawing.bars for at in (bar.low, bar.high))


def looks(*known: float | None) -> list[Look]:
    at = [None if one is None else Interval("", one - 0.05, one + 0.05, one) for one in known]
    return [Look(number * DAY_US, one) for number, one in enumerate(at)]


def test_moments_in_which_nothing_could_be_said_are_gaps() -> None:
    drawing = drawn_path(looks(None, -0.02, -0.03, None, -0.05), FIVE_LOWER)
    assert drawing is not None
    assert len(drawing.stretches) == 2
    assert [tick.label for tick in drawing.times] == [f"{day} Jan" for day in range(1, 6)]


def test_a_single_look_has_no_course_to_draw() -> None:
    assert drawn_path(looks(-0.05), FIVE_LOWER) is None
    assert drawn_path(looks(None, None, -0.05), FIVE_LOWER) is None
    assert drawn_path([], FIVE_LOWER) is None


def test_the_decision_is_marked_where_it_was_made() -> None:
    drawing = drawn_path(looks(-0.01, -0.02, -0.03), FIVE_LOWER, decided_us=2 * DAY_US)
    assert drawing is not None
    assert drawing.decided == drawing.right


def test_a_course_of_minutes_is_labelled_with_the_time_of_day() -> None:
    near = [Look(number * 60_000_000, Interval("", -0.1, 0.1, 0.0)) for number in range(8)]
    drawing = drawn_path(near, FIVE_LOWER)
    assert drawing is not None
    assert "00:05" in {tick.label for tick in drawing.times}
