"""What a metric's name means, what is computed of prediction and actual, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.experiment import metrics
from fairlead.experiment.design import Better, Guardrail, Kind, Meaning, Metric, Objective, Source
from fairlead.experiment.errors import UnfitActual, UnfitDesign, UnknownMetric
from support.experiment_worlds import BRIER, CLICKS, LATENCY, absolute, design_of, relative


@pytest.mark.parametrize(
    ("name", "prediction", "actual", "value"),
    [
        ("brier", 0.8, 1.0, 0.04),
        ("log_loss", 0.8, 1.0, -np.log(0.8)),
        ("log_loss", 0.8, 0.0, -np.log(0.2)),
        ("log_loss", 0.0, 1.0, 24 * np.log(2)),
        ("squared_error", 3.0, 5.0, 4.0),
        ("absolute_error", 3.0, 5.0, 2.0),
    ],
)
def test_scores(name: str, prediction: float, actual: float, value: float) -> None:
    assert metrics.score(name, prediction, actual) == pytest.approx(value)


def test_scores_work_on_arrays() -> None:
    assert metrics.score("brier", [0.1, 0.9], [0.0, 0.0]).tolist() == pytest.approx([0.01, 0.81])


@pytest.mark.parametrize("name", ["brier", "log_loss"])
def test_on_a_probability_saying_what_one_believes_scores_best(name: str) -> None:
    belief = 0.3
    said = np.linspace(0.01, 0.99, 99)
    expected = belief * metrics.score(name, said, np.ones(99)) + (1 - belief) * metrics.score(name, said, np.zeros(99))
    assert said[expected.argmin()] == pytest.approx(belief)


@pytest.mark.parametrize(("prediction", "actual"), [(1.2, 1.0), (0.5, -1.0), (float("nan"), 1.0), (0.5, float("inf"))])
def test_what_is_no_probability_has_no_brier_score(prediction: float, actual: float) -> None:
    with pytest.raises(UnfitActual):
        metrics.score("brier", prediction, actual)


def test_the_mean_absolute_error_of_a_probability_is_refused_with_the_reason() -> None:
    with pytest.raises(UnknownMetric, match=r"improper.*brier or log_loss"):
        metrics.metric_of("absolute_error", meaning=Meaning.PROBABILITY, declared={})


@pytest.mark.parametrize(
    ("name", "meaning", "says"),
    [
        ("squared_error", Meaning.PROBABILITY, "take brier or log_loss"),
        ("brier", Meaning.NUMBER, "take squared_error or absolute_error"),
        ("brier", None, "contract does not say"),
        ("clicks", Meaning.NUMBER, "declare others"),
    ],
)
def test_a_metric_that_does_not_fit_says_which_does(name: str, meaning: Meaning | None, says: str) -> None:
    with pytest.raises(UnknownMetric, match=says):
        metrics.metric_of(name, meaning=meaning, declared={})


def test_system_metrics_need_no_declaration() -> None:
    assert metrics.metric_of("latency_ms", meaning=None, declared={}) == Metric(
        name="latency_ms", kind=Kind.MEAN, better=Better.LOWER, source=Source.SYSTEM
    )
    assert metrics.metric_of("error", meaning=None, declared={}).kind is Kind.PROPORTION
    assert metrics.metric_of("latency_ms_p99", meaning=None, declared={}).quantile == 0.99
    assert metrics.metric_of("latency_ms_p999", meaning=None, declared={}).quantile == 0.999


def test_a_declared_metric_is_what_it_was_declared_as() -> None:
    assert metrics.metric_of("clicks", meaning=None, declared={"clicks": CLICKS}) is CLICKS
    with pytest.raises(UnknownMetric, match="built in"):
        metrics.metric_of("error", meaning=None, declared={"error": CLICKS})


def test_bounded_metrics_are_known() -> None:
    assert metrics.is_bounded(BRIER)
    assert metrics.is_bounded(CLICKS)
    assert not metrics.is_bounded(LATENCY)


QUANTILE = Metric(name="wait", kind=Kind.QUANTILE, better=Better.LOWER, source=Source.OUTCOME, quantile=0.9)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"objective": None, "guardrails": ()}, "nothing to judge"),
        ({"guardrails": (Guardrail(metric=BRIER, margin=relative(0.1)),)}, "either the objective or one guardrail"),
        ({"treatments": ("logistic",)}, "different variants"),
        ({"objective": Objective(metric=QUANTILE, minimum_effect=relative(0.1))}, "can be a guardrail"),
        ({"meaning": Meaning.NUMBER}, "take squared_error or absolute_error"),
        ({"objective": Objective(metric=BRIER, minimum_effect=relative(1.0))}, "less than 100 %"),
        ({"guardrails": (Guardrail(metric=CLICKS, margin=relative(1.5)),)}, "less than 100 %"),
    ],
)
def test_a_design_that_cannot_be_judged_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UnfitDesign, match=says):
        metrics.check(design_of(**wrong))  # type: ignore[arg-type]  # fields by name


def test_a_latency_may_double_and_a_rate_may_not_halve_twice() -> None:
    metrics.check(design_of(guardrails=(Guardrail(metric=LATENCY, margin=relative(1.5)),)))
    metrics.check(design_of(guardrails=(Guardrail(metric=CLICKS, margin=absolute(1.5)),)))
