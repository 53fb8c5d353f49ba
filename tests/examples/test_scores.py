"""Labels arrive when flights land, and scores are proper."""

import numpy as np
import pytest

from flights.scores import Labels, score
from flights.traffic import NEVER_US


def test_labels_arrive_once_each_when_time_reaches_their_landing() -> None:
    labels = Labels(np.array([30, 10, NEVER_US, 20]))
    assert labels.deliver_until(9).tolist() == []
    assert labels.deliver_until(20).tolist() == [1, 3]
    assert labels.deliver_until(20).tolist() == []
    assert labels.deliver_until(10**15).tolist() == [0]


def test_a_known_score() -> None:
    scored = score(np.array([0.9, 0.2]), np.array([1, 0], dtype=np.int8))
    assert scored.brier == pytest.approx((0.01 + 0.04) / 2)
    assert scored.log_loss == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)


def test_rows_without_an_answer_are_left_out() -> None:
    assert score(np.array([np.nan, 1.0]), np.array([1, 1], dtype=np.int8)).labelled == 1


def test_without_labels_there_is_no_score() -> None:
    assert score(np.array([]), np.array([], dtype=np.int8)).brier is None


def test_a_wrong_certainty_is_bad_but_finite() -> None:
    scored = score(np.array([0.0]), np.array([1], dtype=np.int8))
    assert scored.brier == 1.0
    assert scored.log_loss is not None
    assert np.isfinite(scored.log_loss)
