"""What a design says of outcomes, made ready to be looked up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from fairlead.assignment import Layout, assign
from fairlead.experiment.design import Design, Kind, Metric, Source
from fairlead.experiment.errors import UnfitActual
from fairlead.experiment.metrics import score
from fairlead.feedback.messages import Fate, Outcome
from fairlead_ledger.store.experiments import Experiment

LARGEST = 1e30
"""Values beyond it could not be squared twice and summed."""

Values = tuple[tuple[int, float], ...]
"""Number of each metric, and its value."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An outcome that is not taken."""

    fate: Fate
    message: str
    experiment_id: int = 0
    """0 where it is not known."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One experiment's."""

    id: int
    design: Design
    window_us: int
    """How long outcomes are waited for."""
    layouts: Mapping[int, Layout]
    """By phase."""
    places: Mapping[str, tuple[int, Metric]]
    """By metric: its place among the design's, which is its number."""

    @classmethod
    def of(cls, experiment: Experiment, design: Design) -> Self:
        """Make an experiment's design ready."""
        places = {name: (place, metric) for place, (name, metric) in enumerate(design.metrics.items())}
        return cls(experiment.id, design, experiment.window_us, cls.layouts_of(design), places)

    @staticmethod
    def layouts_of(design: Design) -> Mapping[int, Layout]:
        """Return how the arms lie over the buckets in each phase.

        Raises:
            LayoutError: A weight does not fit.
        """
        return {
            phase.number: Layout.of(design.control, {arm: phase.weights_bp.get(arm, 0) for arm in design.treatments})
            for phase in design.phases
        }

    def has(self, variant: str, phase: int) -> bool:
        """Return whether the design has such an arm, and such a phase."""
        return variant in self.design.arms and phase in self.layouts

    def arm(self, unit: str, phase: int) -> str:
        """Return the arm that the law gives a unit."""
        return assign(unit, self.design.salt, self.layouts[phase])

    def values(self, outcome: Outcome, predicted: float | None) -> Values | Refused:
        """Return the metrics that an outcome has.

        Args:
            outcome: With a metric's value, or an actual.
            predicted: What was predicted; None where it is not known.
        """
        if outcome.metric is not None and outcome.value is not None:
            return self._posted(outcome.metric, outcome.value)
        return self._computed(outcome.actual or 0.0, predicted)

    def _posted(self, name: str, value: float) -> Values | Refused:
        place, metric = self.places.get(name, (0, None))
        if metric is None:
            return self._refused(Fate.UNKNOWN_METRIC, "the design declares no such metric")
        if metric.source is not Source.OUTCOME:
            why = "post the actual" if metric.source is Source.ACTUAL else "servers and gateway count it"
            return self._refused(Fate.UNKNOWN_METRIC, f"the metric is not posted: {why}")
        if metric.kind is Kind.PROPORTION and value not in (0.0, 1.0):
            return self._refused(Fate.MALFORMED, "value of a proportion is 0 or 1")
        return self._bounded(((place, value),))

    def _computed(self, actual: float, predicted: float | None) -> Values | Refused:
        names = [name for name, (_, metric) in self.places.items() if metric.source is Source.ACTUAL]
        if not names:
            return self._refused(Fate.UNKNOWN_METRIC, "the design declares no metric of prediction and actual")
        if predicted is None:
            message = "an actual needs the output that was predicted, and no token carries it here: post metrics"
            return self._refused(Fate.MALFORMED, message)
        try:
            return self._bounded(tuple((self.places[name][0], float(score(name, predicted, actual))) for name in names))
        except UnfitActual as error:
            return self._refused(Fate.MALFORMED, str(error))

    def _bounded(self, values: Values) -> Values | Refused:
        if any(not abs(value) <= LARGEST for _, value in values):
            return self._refused(Fate.MALFORMED, f"a value is beyond {LARGEST:g}")
        return values

    def _refused(self, fate: Fate, message: str) -> Refused:
        return Refused(fate, message, self.id)
