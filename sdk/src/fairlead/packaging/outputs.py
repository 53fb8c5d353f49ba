"""What a packaged model answers: which parts of an estimator's prediction become named graph outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor

from fairlead.packaging.errors import EstimatorRefused

_BINARY = 2


@dataclass(frozen=True, slots=True)
class Probability:
    """The probability of one class, 0 to 1."""

    of: Any
    """The class, as in the estimator's ``classes_``."""


@dataclass(frozen=True, slots=True)
class Label:
    """The most probable class."""


@dataclass(frozen=True, slots=True)
class Value:
    """A regression's estimate."""


Answer = Probability | Label | Value


@dataclass(frozen=True, slots=True)
class NamedAnswer:
    """An answer under the name of its graph output."""

    name: str
    answer: Answer
    column: int
    """Column of the class in ``predict_proba``; 0 where there is none."""

    @property
    def meaning(self) -> Literal["probability", "label", "value"]:
        """What the output means, as the contract says it."""
        match self.answer:
            case Probability():
                return "probability"
            case Label():
                return "label"
            case _:
                return "value"

    def of(self, estimator: Any, rows: pd.DataFrame) -> NDArray[Any]:
        """Return the estimator's own answer for ``rows``, shape [n]."""
        match self.answer:
            case Probability():
                answers = estimator.predict_proba(rows)[:, self.column]
            case _:
                answers = estimator.predict(rows)
        return np.asarray(answers).reshape(len(rows))


def named_answers(estimator: Any, outputs: str | Mapping[str, Answer]) -> tuple[NamedAnswer, ...]:
    """Resolve ``outputs`` against a fitted estimator.

    Args:
        estimator: A fitted classifier or regressor.
        outputs: Answers by output name; a bare name stands for the probability of a binary classifier's second
            class, or for a regressor's value.

    Raises:
        EstimatorRefused: The estimator cannot give what was asked.
    """
    if not outputs:
        raise EstimatorRefused("outputs: name at least one, such as outputs='probability_late'")
    wanted = {outputs: _only_answer(estimator)} if isinstance(outputs, str) else outputs
    return tuple(NamedAnswer(name, answer, _column(estimator, name, answer)) for name, answer in wanted.items())


def _only_answer(estimator: Any) -> Answer:
    if is_regressor(estimator):
        return Value()
    classes = list(getattr(estimator, "classes_", ()))
    if is_classifier(estimator) and len(classes) == _BINARY:
        return Probability(classes[1])
    raise EstimatorRefused(
        f"outputs: a single name stands for a regressor or a binary classifier, and this has classes {classes}; "
        "give a mapping, such as {'probability_red': Probability('red')}"
    )


def _column(estimator: Any, name: str, answer: Answer) -> int:
    kind = type(answer).__name__
    if isinstance(answer, Value):
        if not is_regressor(estimator):
            raise EstimatorRefused(f"output {name}: {kind} needs a regressor; a classifier has Probability and Label")
        return 0
    if not is_classifier(estimator):
        raise EstimatorRefused(f"output {name}: {kind} needs a classifier; a regressor has Value")
    if isinstance(answer, Label):
        return 0
    if not hasattr(estimator, "predict_proba"):
        raise EstimatorRefused(
            f"output {name}: {type(estimator).__name__} has no predict_proba; wrap it in CalibratedClassifierCV"
        )
    classes = list(estimator.classes_)
    if answer.of not in classes:
        raise EstimatorRefused(f"output {name}: {answer.of!r} is not among the estimator's classes {classes}")
    return classes.index(answer.of)
