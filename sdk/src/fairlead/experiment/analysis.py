"""From a design and the evidence of a phase to a verdict."""

from __future__ import annotations

from fairlead.experiment.design import Design
from fairlead.experiment.evidence import Evidence
from fairlead.experiment.report import Report


def analyse(design: Design, evidence: Evidence, *, phase: int, now_us: int) -> Report:
    """Return what the evidence of one phase says.

    Args:
        design: As planned.
        evidence: Of that design, with every phase that has begun.
        phase: Number of the phase to judge, by itself.
        now_us: By the experiment's clock, microseconds since 1970-01-01 UTC.

    Raises:
        UnfitDesign: The design cannot be judged.
        UnfitEvidence: The evidence is of another design, or that phase has not begun.
    """
    raise NotImplementedError  # follows; the types are settled
