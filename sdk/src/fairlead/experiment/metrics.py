"""The metrics that need no declaration, and what a metric's name means.

Of prediction and actual: *proper* scores only, those that a model makes best by saying what it believes (Gneiting,
Raftery 2007, Strictly Proper Scoring Rules). The mean of |p - y| is none: always saying 0 may beat an honest model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fairlead.experiment.design import Better, Design, Kind, Meaning, Metric, Scale, Source
from fairlead.experiment.errors import UnfitActual, UnfitDesign, UnknownMetric
from fairlead.experiment.sums import Array

LEAST_PROBABILITY = 2.0**-24
"""A probability nearer than that to 0 or 1 counts as that in log_loss; float32 has nothing between it and 1."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of prediction and actual."""

    meaning: Meaning
    """Of the output that it is for."""
    of: Callable[[Array, Array], Array]
    is_bounded: bool = False


SCORES: Mapping[str, Score] = {
    "brier": Score(Meaning.PROBABILITY, lambda p, y: (p - y) ** 2, is_bounded=True),
    "log_loss": Score(
        Meaning.PROBABILITY,
        lambda p, y: -(y * np.log(_inside(p)) + (1 - y) * np.log1p(-_inside(p))),
    ),
    "squared_error": Score(Meaning.NUMBER, lambda p, y: (p - y) ** 2),
    "absolute_error": Score(Meaning.NUMBER, lambda p, y: np.abs(p - y)),
}
SYSTEM: Mapping[str, Kind] = {"latency_ms": Kind.MEAN, "error": Kind.PROPORTION}
_LATENCY_QUANTILE = re.compile(r"latency_ms_p([1-9][0-9]{1,3})")


def metric_of(name: str, *, meaning: Meaning | None, declared: Mapping[str, Metric]) -> Metric:
    """Return what a metric's name means in a design.

    Args:
        name: Built in (brier, log_loss, squared_error, absolute_error, latency_ms, latency_ms_p99, error), or declared.
        meaning: Of the model's output; None if tokens carry none.
        declared: Metrics that are posted by name.

    Raises:
        UnknownMetric: There is none, or it does not fit the output; the message says which do.
    """
    if name in declared:
        if is_built_in(name):
            raise UnknownMetric(f"{name}: is built in; give the declared metric another name")
        return declared[name]
    if name in SYSTEM:
        return Metric(name=name, kind=SYSTEM[name], better=Better.LOWER, source=Source.SYSTEM)
    if quantile := _LATENCY_QUANTILE.fullmatch(name):
        digits = quantile[1]
        return Metric(
            name=name,
            kind=Kind.QUANTILE,
            better=Better.LOWER,
            source=Source.SYSTEM,
            quantile=int(digits) / 10 ** len(digits),
        )
    if name not in SCORES:
        known = ", ".join([*SCORES, *SYSTEM, "latency_ms_p99", *declared])
        raise UnknownMetric(f"{name}: no such metric; known are {known}; declare others with kind and better")
    _check_meaning(name, meaning)
    return Metric(name=name, kind=Kind.MEAN, better=Better.LOWER, source=Source.ACTUAL)


def is_built_in(name: str) -> bool:
    """Return whether a name is one of ours."""
    return name in SCORES or name in SYSTEM or _LATENCY_QUANTILE.fullmatch(name) is not None


def is_bounded(metric: Metric) -> bool:
    """Return whether a request's value cannot leave fixed bounds."""
    score = SCORES.get(metric.name) if metric.source is Source.ACTUAL else None
    return metric.kind is Kind.PROPORTION or (score is not None and score.is_bounded)


def score(name: str, prediction: ArrayLike, actual: ArrayLike) -> Array:
    """Return a metric of predictions and actuals, elementwise.

    Args:
        name: One of ``SCORES``.
        prediction: What was predicted.
        actual: What came true; 0 to 1 for a probability.

    Raises:
        UnknownMetric: It is not a metric of prediction and actual.
        UnfitActual: A number is not finite, or not a probability where it must be one.
    """
    if name not in SCORES:
        raise UnknownMetric(f"{name}: is not computed from prediction and actual; those are {', '.join(SCORES)}")
    p, y = np.asarray(prediction, np.float64), np.asarray(actual, np.float64)
    if not (np.isfinite(p).all() and np.isfinite(y).all()):
        raise UnfitActual(f"{name}: prediction and actual are finite numbers")
    if SCORES[name].meaning is Meaning.PROBABILITY and any(((one < 0) | (one > 1)).any() for one in (p, y)):
        raise UnfitActual(f"{name}: prediction and actual of a probability are 0 to 1")
    return np.asarray(SCORES[name].of(p, y), np.float64)


def check(design: Design) -> None:
    """See that a design can be judged.

    Raises:
        UnfitDesign: It cannot; the message names the field and the fix.
    """
    if design.objective is None and not design.guardrails:
        raise UnfitDesign("an experiment needs an objective, or guardrails: there is nothing to judge")
    names = [one.metric.name for one in design.guardrails] + (
        [design.objective.metric.name] if design.objective else []
    )
    if len(set(names)) < len(names):
        raise UnfitDesign("each metric is either the objective or one guardrail")
    if design.control in design.treatments or len(set(design.treatments)) < len(design.treatments):
        raise UnfitDesign("control and treatments are different variants")
    if design.objective and design.objective.metric.kind is Kind.QUANTILE:
        raise UnfitDesign(f"{names[-1]}: a quantile can be a guardrail; as an objective take a mean or a proportion")
    for metric in design.metrics.values():
        if metric.source is Source.ACTUAL:
            _check_score(metric, design.meaning)
    _check_sizes(design)


def _check_score(metric: Metric, meaning: Meaning | None) -> None:
    if metric.name not in SCORES:
        raise UnfitDesign(f"{metric.name}: is not computed from prediction and actual; those are {', '.join(SCORES)}")
    try:
        _check_meaning(metric.name, meaning)
    except UnknownMetric as wrong:
        raise UnfitDesign(str(wrong)) from None


def _check_meaning(name: str, meaning: Meaning | None) -> None:
    if meaning is SCORES[name].meaning:
        return
    fitting = [one for one, each in SCORES.items() if each.meaning is meaning]
    if meaning is None:
        raise UnknownMetric(f"{name}: needs to know what the output means; the model's contract does not say")
    if name == "absolute_error":
        raise UnknownMetric(
            "absolute_error: is improper on a probability: a model that always says 0 can beat one that says what it "
            "believes; take brier or log_loss"
        )
    raise UnknownMetric(f"{name}: is not for an output that is a {meaning.value.lower()}; take {' or '.join(fitting)}")


def _check_sizes(design: Design) -> None:
    """See that no relative effect takes a metric down by all of it or more."""
    sized = [(one.metric, one.margin, -1) for one in design.guardrails]
    if design.objective:
        sized.append((design.objective.metric, design.objective.minimum_effect, 1))
    for metric, effect, direction in sized:
        goes_down = (metric.better is Better.LOWER) == (direction > 0)
        if effect.scale is Scale.RELATIVE and effect.size >= 1 and goes_down:
            raise UnfitDesign(f"{metric.name}: no metric falls by {effect.size:.0%}; take less than 100 %")


def _inside(p: Array) -> Array:
    return np.clip(p, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
