"""Does the ONNX file answer what the estimator answers?

Both get the same rows as served: held-out ones and probes. A difference beyond the tolerance refuses the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fairlead.contract import Contract
from fairlead.onnx_runtime import onnxruntime
from fairlead.packaging.errors import ConversionFailed, ParityBroken
from fairlead.packaging.outputs import NamedAnswer
from fairlead.packaging.probes import Probe, probes
from fairlead.packaging.rows import feed

MOST_HELD_OUT = 20_000
"""Held-out rows compared; where there are more, as many taken evenly."""

_HELD_OUT = "a held-out row"


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely a file and its estimator agreed."""

    held_out: int
    """Held-out rows compared."""
    generated: int
    """Generated rows compared."""
    largest_error: float
    """Largest difference: absolute for probabilities, relative to the estimator's largest held-out value for values."""
    refused: tuple[str, ...]
    """Generated rows that the estimator itself refuses, such as ``plane__year = inf``; the file answers them."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    tests: str
    rows: pd.DataFrame
    output: str
    expected: NDArray[Any]
    answered: NDArray[Any]
    errors: NDArray[np.float64]


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """Load a serialized model, on one thread.

    Raises:
        ConversionFailed: ONNX Runtime does not load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConversionFailed(f"ONNX Runtime does not load the converted graph: {error}") from error


def run(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], rows: pd.DataFrame, what: str
) -> list[NDArray[Any]]:
    """Return the graph's outputs for ``rows``, each of shape [n].

    Raises:
        ParityBroken: The graph fails on them; ``what`` says in the message which rows they are.
    """
    try:
        answers: list[NDArray[Any]] = session.run(list(outputs), feed(rows))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ParityBroken(
            f"the ONNX file fails on {what}: {reason}; replace the step that the message names"
        ) from error
    return answers


def check_parity(
    estimator: Any,
    model: bytes,
    contract: Contract,
    *,
    rows: pd.DataFrame,
    answers: Sequence[NamedAnswer],
    tolerance: float,
) -> Parity:
    """Compare an estimator with the ONNX file made from it.

    Args:
        estimator: The fitted estimator.
        model: The serialized ONNX model.
        contract: The model's contract.
        rows: Held-out rows as served, in the estimator's order of columns.
        answers: The outputs to compare.
        tolerance: Largest difference allowed: absolute for probabilities, relative to the largest held-out value for
            values; labels must be equal.

    Raises:
        ParityBroken: A row differs by more, or the estimator refuses rows that serving may feed.
    """
    with threadpool_limits(limits=1):  # hundreds of small batches: threads that wait for each other cost far more
        return _check(estimator, session_of(model), contract, rows=rows, answers=answers, tolerance=tolerance)


def _check(
    estimator: Any,
    session: onnxruntime.InferenceSession,
    contract: Contract,
    *,
    rows: pd.DataFrame,
    answers: Sequence[NamedAnswer],
    tolerance: float,
) -> Parity:
    held_out = _evenly(rows, MOST_HELD_OUT)
    compare = _Comparer(estimator, session, tuple((answer, _scale(answer, estimator, held_out)) for answer in answers))
    (compared,) = compare([Probe(_HELD_OUT, held_out)])
    generated = 0
    refused: list[str] = []
    made = list(probes(estimator, held_out, contract.features, lambda some: answers[0].of(estimator, some)))
    for probe, found in _outcomes(compare, made):
        if isinstance(found, Exception):
            _refuse_if_served(probe, contract, found)
            refused.append(probe.tests)
        elif _is_served(probe, contract):
            compared += found
            generated += len(probe.rows)
    _refuse_beyond(compared, tolerance)
    largest = max(float(c.errors.max(initial=0.0)) for c in compared)
    return Parity(len(held_out), generated, largest, tuple(refused))


@dataclass(frozen=True, slots=True)
class _Comparer:
    estimator: Any
    session: onnxruntime.InferenceSession
    answers: tuple[tuple[NamedAnswer, float], ...]
    """Each answer and what its differences are relative to."""

    def __call__(self, some: Sequence[Probe]) -> list[list[_Comparison]]:
        """Compare all probes in one call of each; one list per probe, an entry per answer."""
        rows = pd.concat([probe.rows for probe in some], ignore_index=True)
        ends = np.cumsum([len(probe.rows) for probe in some])[:-1]
        with np.errstate(invalid="ignore", over="ignore"):  # infinities are among the rows
            expected = [answer.of(self.estimator, rows) for answer, _ in self.answers]
        answered = run(self.session, [answer.name for answer, _ in self.answers], rows, some[0].tests)
        found: list[list[_Comparison]] = [[] for _ in some]
        for (answer, scale), want, got in zip(self.answers, expected, answered, strict=True):
            parts = (np.split(values, ends) for values in (want, got, _errors(answer, want, got, scale)))
            for at, (probe, *part) in enumerate(zip(some, *parts, strict=True)):
                found[at].append(_Comparison(probe.tests, probe.rows, answer.name, *part))
        return found


def _outcomes(
    compare: _Comparer, some: Sequence[Probe]
) -> Iterator[tuple[Probe, list[_Comparison] | ValueError | TypeError]]:
    """Compare probes together, and those that one of the two refuses in halves, until each refusal has its probe."""
    if not some:
        return
    try:
        yield from zip(some, compare(some), strict=True)
    except (ValueError, TypeError) as error:
        if len(some) > 1:
            half = len(some) // 2
            yield from _outcomes(compare, some[:half])
            yield from _outcomes(compare, some[half:])
        elif isinstance(error, ParityBroken):
            raise
        else:
            yield some[0], error


def _scale(answer: NamedAnswer, estimator: Any, rows: pd.DataFrame) -> float:
    """Return what differences are relative to: float32 sums err by the size of their terms, not of their result."""
    if answer.meaning != "value":
        return 1.0
    values = np.abs(answer.of(estimator, rows).astype(np.float64))
    return float(np.max(values, initial=np.finfo(np.float32).tiny))


def _errors(answer: NamedAnswer, expected: NDArray[Any], answered: NDArray[Any], scale: float) -> NDArray[np.float64]:
    if answer.meaning == "label":
        return np.where(expected.astype(str) == answered.astype(str), 0.0, np.inf)
    want, got = expected.astype(np.float64), answered.astype(np.float64)
    relative_to = np.maximum(scale, np.abs(want)) if answer.meaning == "value" else scale
    with np.errstate(invalid="ignore"):
        apart = np.abs(want - got) / relative_to
    same = (want == got) | (np.isnan(want) & np.isnan(got))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _missing_names(probe: Probe) -> set[str]:
    return {str(name) for name in probe.rows.columns if probe.rows[name].isna().any()}


def _is_served(probe: Probe, contract: Contract) -> bool:
    """Whether serving may feed such rows: missing values only where the contract takes them."""
    takes_missing = {f.input for f in contract.features if f.takes_missing}
    return not probe.tests.endswith(" missing") or _missing_names(probe) <= takes_missing


def _refuse_if_served(probe: Probe, contract: Contract, error: Exception) -> None:
    if not probe.tests.endswith(" missing") or not _is_served(probe, contract):
        return
    reason = " ".join(str(error).split())[:200]
    names = ", ".join(sorted(_missing_names(probe)))
    raise ParityBroken(
        f"{probe.tests}: the estimator refuses it ({reason}), but the contract's default for {names} is a missing "
        "value; give defaults={…} for these features, impute them in the pipeline, or reject them by policy"
    ) from error


def _refuse_beyond(compared: Iterable[_Comparison], tolerance: float) -> None:
    comparisons = list(compared)
    worst = max(comparisons, key=lambda c: float(c.errors.max(initial=0.0)))
    at = int(np.argmax(worst.errors))
    if worst.errors[at] <= tolerance:
        return
    beyond = sum(int((c.errors > tolerance).sum()) for c in comparisons)
    total = sum(len(c.errors) for c in comparisons)
    row = {name: _plain(value) for name, value in worst.rows.iloc[at].items()}
    where = _HELD_OUT if worst.tests == _HELD_OUT else f"a generated row ({worst.tests})"
    raise ParityBroken(
        f"the ONNX file answers differently from the estimator: {worst.output} is {_plain(worst.answered[at])} instead "
        f"of {_plain(worst.expected[at])} on {where}, off by {worst.errors[at]:.3g} with {tolerance:g} allowed; "
        f"{beyond} of {total} answers differ; row: {row}; common causes: trees behind a scaler (drop it), trees that "
        "split on missing values (use HistGradientBoosting or impute), isotonic calibration (use sigmoid)"
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    if len(rows) <= most:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, most).astype(int)].reset_index(drop=True)
