"""What an analysis says: a verdict with its reason, and every figure that it rests on.

Served by the ledger, shown on the experiment's page, acted on by the operator, held by a decision record. It is a pure
function of design, evidence, phase and time.
"""

from __future__ import annotations

from enum import StrEnum

from fairlead.experiment.design import Better, Effect, Kind, Part, Scale
from fairlead.feedback.messages import Count, Failure, Finite, MetricName, Salt, TimeUs, VariantName


class Verdict(StrEnum):
    """What the evidence of a phase allows to be done."""

    PASS = "Pass"  # noqa: S105 -- a verdict
    """The winner may replace control; before the last phase: nothing stands against the next one."""
    FAIL = "Fail"
    """Control stays."""
    INSUFFICIENT = "Insufficient"
    """Not decided (yet)."""
    NO_DATA = "NoData"
    """There is nothing to judge: neither promote nor roll back."""
    INVALID = "Invalid"
    """The comparison itself is broken: hold."""


class Reason(StrEnum):
    """Why a verdict is as it is."""

    SUPERIOR = "Superior"
    """Pass: better in the objective, and no worse than the margin in any guardrail."""
    NON_INFERIOR = "NonInferior"
    """Pass: no worse than the margin in any guardrail; there is no objective, or it is not judged in this phase."""
    HARMFUL = "Harmful"
    """Fail: worse in the objective."""
    GUARDRAIL_BREACHED = "GuardrailBreached"
    """Fail: worse in a guardrail by more than its margin."""
    NO_WORTHWHILE_EFFECT = "NoWorthwhileEffect"
    """Fail: whatever the effect is, it is smaller than the smallest change worth shipping."""
    TOO_FEW_EFFECTIVE_UNITS = "TooFewEffectiveUnits"
    """Insufficient: below the gate, or more units are needed to tell."""
    NOT_YET_MATURE = "NotYetMature"
    """Insufficient, NoData: nobody was exposed yet, or no outcome is old enough."""
    HORIZON_REACHED = "HorizonReached"
    """Insufficient: the maximum duration is over, and the evidence does not decide."""
    SAMPLE_RATIO = "SampleRatio"
    """Invalid: the arms' units are not in the planned shares."""
    LABEL_COVERAGE = "LabelCoverage"
    """Invalid: outcomes are missing more often in one arm."""
    SOURCE_DOWN = "SourceDown"
    """NoData: a source has stopped telling."""


class Role(StrEnum):
    """What a metric is in a design."""

    OBJECTIVE = "Objective"
    GUARDRAIL = "Guardrail"
    ACTIVITY = "Activity"
    """Requests per unit: if it moves, a ratio may move with nobody's quality changed."""


class Finding(StrEnum):
    """What is shown of one metric of one treatment, by itself."""

    SUPERIOR = "Superior"
    """Better than control."""
    HARMFUL = "Harmful"
    """Worse than control (objective)."""
    NOT_WORTHWHILE = "NotWorthwhile"
    """Better by less than the minimum effect, if at all."""
    NON_INFERIOR = "NonInferior"
    """No worse than the margin (guardrail)."""
    BREACHED = "Breached"
    """Worse by more than the margin (guardrail)."""
    DIFFERENT = "Different"
    """Activity that is not the same in both arms."""
    OPEN = "Open"
    """The interval allows for more than one of these."""
    GATED = "Gated"
    """Too few effective units for an interval."""
    NO_DATA = "NoData"
    """Not a single request that counts in one of the arms."""


class Method(StrEnum):
    """What an interval was computed by."""

    UNITS = "Units"
    """Variance over units."""
    BLOCKS = "Blocks"
    """Variance over servers and minutes, which was the larger: many units were struck at once."""
    FIRST_VALUES = "FirstValues"
    """Exact, over one value per unit: the sample is too small for the normal approximation."""
    QUANTILE = "Quantile"
    """Shares above thresholds, inverted."""


class Interval(Part):
    """An estimate and the bounds that hold at every look at once; always treatment against control."""

    estimate: Finite
    low: Finite | None = None
    """None: unbounded."""
    high: Finite | None = None


class Gate(Part):
    """Whether there are enough units for the approximation to hold, of each arm."""

    needed: float
    """Effective units."""
    control: float
    """Effective units seen: n_eff, the inverse kurtosis of unit residuals."""
    treatment: float
    control_units: Count
    treatment_units: Count
    is_open: bool


class Point(Part):
    """One look, for a figure over time: in the scale of the metric's ``limit``."""

    at_us: TimeUs
    effect: Finite | None
    low: Finite | None
    high: Finite | None


class MetricReport(Part):
    """One metric of one treatment against control."""

    metric: MetricName
    role: Role
    treatment: VariantName
    kind: Kind
    better: Better
    quantile: float | None = None
    limit: Effect | None = None
    """Minimum effect of the objective, margin of a guardrail; None for activity."""
    finding: Finding
    message: str
    """One sentence with the figures."""
    control_value: Finite | None = None
    """The metric of the arm, in its own unit; never adjusted."""
    treatment_value: Finite | None = None
    relative: Interval | None = None
    """Treatment / control - 1; None below the gate, or where a value is not positive."""
    absolute: Interval | None = None
    """Treatment - control in the metric's own unit; None below the gate."""
    scale: Scale
    """Which of the two is judged."""
    gate: Gate
    method: Method
    alpha: float
    """Share of wrong claims allowed over all looks, of this interval."""
    p_value: float | None = None
    """Always valid, at this look, against no difference: 1 / e-value."""
    log_e_harm: float | None = None
    """Guardrails: ln of the e-value against "worse by the margin at most"; the alarm is at ``log_e_alarm``."""
    log_e_alarm: float | None = None
    log_e_safe: float | None = None
    """Guardrails: ln of the e-value against "worse by the margin at least"; shown safe at ``log_e_needed``."""
    log_e_needed: float | None = None
    covariate: str | None = None
    """What the interval was adjusted by; None if the design names nothing, or the arms differ in it."""
    variance_ratio: float | None = None
    """Adjusted variance over unadjusted."""
    planned_units: Count | None = None
    """Of both arms together that the minimum effect needs at 80 % power, from the variance seen so far."""

    def point(self, at_us: int) -> Point:
        """Return this look as a point of a figure over time."""
        judged = self.judged
        return Point(
            at_us=at_us,
            effect=judged.estimate if judged else None,
            low=judged.low if judged else None,
            high=judged.high if judged else None,
        )

    @property
    def judged(self) -> Interval | None:
        """The interval in the scale that is judged."""
        return self.relative if self.scale is Scale.RELATIVE else self.absolute


class ArmReport(Part):
    """One arm in this phase."""

    variant: VariantName
    units: Count
    first_exposures: Count
    share: float
    """Of this phase's first exposures, 0 to 1."""
    target: float
    """Planned share."""
    requests: Count
    requests_per_unit: float
    matured_units: Count
    labelled_units: Count
    label_coverage: float | None
    """Labelled of matured units; None without matured ones."""
    matured_requests: Count
    labelled_requests: Count
    pending_requests: Count
    """Outcomes that wait until their request is old enough."""
    missing_requests: Count
    """Matured, and no outcome came in time: none ever will."""
    errors: Count
    """Of the requests, those that were answered with an error of ours, or not at all."""
    failures: dict[Failure, Count]
    """Of the errors, how many by who failed; of the rest it was not told."""
    left_out: dict[str, Count]
    """Seen and not counted, by why."""


class Check(Part):
    """A sequential test of whether the comparison itself is sound."""

    log_e: float
    """ln of the e-value; grows with the evidence against."""
    log_alarm: float
    """It is broken from here on."""
    is_broken: bool
    p_value: float
    """Always valid."""


class Plan(Part):
    """What the experiment needs, and what it has."""

    planned_units: Count | None
    """Over all arms, for 80 % power at the minimum effect; None while the variance is unknown."""
    seen_units: Count
    """Over all arms, in this phase."""
    elapsed_s: float
    """Of this phase, since its first request."""
    planned_s: float | None
    """At the rate of new units seen so far, with the outcome window; None while unknown."""
    maximum_s: float | None
    """As designed."""


class Report(Part):
    """What an analysis says of one phase."""

    salt: Salt
    design_digest: str
    phase: int
    is_final: bool
    """Whether it is the phase in which the objective is judged."""
    at_us: TimeUs
    verdict: Verdict
    reason: Reason
    message: str
    """One sentence for whoever reads nothing else."""
    winner: VariantName | None = None
    """Treatment that passed, in the last phase."""
    arms: tuple[ArmReport, ...]
    """Control first."""
    metrics: tuple[MetricReport, ...]
    """Of each treatment: objective, guardrails in the design's order, activity."""
    sample_ratio: Check
    label_coverage: Check | None = None
    """None where no outcome is expected, or none is mature."""
    estimand: str
    """What the objective's effect is an effect on, in words."""
    plan: Plan

    def of(self, treatment: str, role: Role) -> tuple[MetricReport, ...]:
        """Return what is said of a treatment's metrics in a role."""
        return tuple(one for one in self.metrics if one.treatment == treatment and one.role is role)
