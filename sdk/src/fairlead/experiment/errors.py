"""What can be wrong with an experiment.

ExperimentError
├── UnfitDesign      the design cannot be judged by the evidence that is kept
├── UnfitEvidence    the evidence is not of this design, or no evidence at all
├── UnknownMetric    no metric has that name
└── AlteredRecord    a decision record is not what was written
"""

from __future__ import annotations


class ExperimentError(ValueError):
    """Something about an experiment is wrong; trying again does not help. The message says what would."""


class UnfitDesign(ExperimentError):
    """The design cannot be judged: the message names the metric or the field and the fix."""


class UnfitEvidence(ExperimentError):
    """The evidence is not of this design, or holds what no units can sum to."""


class UnknownMetric(ExperimentError):
    """No metric has that name, or none that this output allows."""


class UnfitActual(ExperimentError):
    """An actual that no metric can be computed from."""


class AlteredRecord(ExperimentError):
    """A decision record differs from what was written."""
