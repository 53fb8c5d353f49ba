"""A report in plain words: the same on the experiment's page and in a terminal.

Pure. Signs and blanks are typographic: a minus is U+2212, and no line breaks between a number and its unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from fairlead.clock import from_us
from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.design import Better, Design, Effect, Kind, Metric, Scale, Source
from fairlead.experiment.report import ArmReport, Finding, Interval, MetricReport, Reason, Report, Role, Verdict
from fairlead.feedback.messages import Failure

MINUS = "\N{MINUS SIGN}"
BLANK = "\N{NO-BREAK SPACE}"
DASH = "\N{EN DASH}"

_TINY = 1e-12


class Tone(StrEnum):
    """How a verdict is to be felt; never told by colour alone."""

    GOOD = "good"
    BAD = "bad"
    WAIT = "wait"
    VOID = "void"


TONES: Mapping[Verdict, Tone] = {
    Verdict.PASS: Tone.GOOD,
    Verdict.FAIL: Tone.BAD,
    Verdict.INSUFFICIENT: Tone.WAIT,
    Verdict.NO_DATA: Tone.WAIT,
    Verdict.INVALID: Tone.VOID,
}

ACTIONS: Mapping[Action, str] = {
    Action.PROMOTE: "promoted",
    Action.ROLLBACK: "rolled back",
    Action.HOLD: "held",
    Action.END: "ended by hand",
}
"""What was decided, in a word or two."""

_FAILURES: Mapping[Failure, str] = {
    Failure.MODEL: "the model failed",
    Failure.FEATURE_STORE: "the feature store failed",
    Failure.NOT_READY: "the server was not ready",
    Failure.NO_ANSWER: "no server answered",
}

_UNUSABLE = "Not that the figures below may be used with care: they may not be used."

_OF_OBJECTIVE = "Not that the objective is worse: a guardrail alone is enough to stop."

_NOT_MEANT: Mapping[Reason, tuple[str, ...]] = {
    Reason.SUPERIOR: (
        "Not that the gain is exactly the estimate: any value in the interval fits, and stopping early overstates it.",
        "Not that the gain lasts: it was seen with these units, on these days.",
    ),
    Reason.NON_INFERIOR: ("Not that it is better, nor that nothing changes: only that no margin is exceeded.",),
    Reason.HARMFUL: (
        "Not that the harm is exactly the estimate: any value in the interval fits, and stopping early overstates it.",
        "Not that every unit is worse off: the figures are averages.",
    ),
    Reason.GUARDRAIL_BREACHED: (
        "Not that the harm is exactly the estimate: any value in the interval fits, and stopping early overstates it.",
        _OF_OBJECTIVE,
    ),
    Reason.NO_WORTHWHILE_EFFECT: (
        "Not that there is no effect: one smaller than the smallest change worth shipping remains possible.",
    ),
    Reason.TOO_FEW_EFFECTIVE_UNITS: (
        "Not that the arms are the same, and not that they differ: nothing is claimed either way.",
    ),
    Reason.NOT_YET_MATURE: (
        "Not that the arms are the same, and not that they differ: nothing could be judged until now.",
    ),
    Reason.HORIZON_REACHED: (
        "Not that there is no effect: the evidence that the time allowed for decides neither way.",
    ),
    Reason.SAMPLE_RATIO: (
        "Not that a variant is bad: the groups are not alike, so no difference between them is the variants' doing.",
        _UNUSABLE,
    ),
    Reason.LABEL_COVERAGE: (
        "Not that a variant is bad: the outcomes that are missing in one arm may be the ones that differ.",
        _UNUSABLE,
    ),
    Reason.SOURCE_DOWN: (
        "Not that anything is wrong with a variant: a source of evidence is silent, and silence decides nothing.",
    ),
}

_HEADLINES: Mapping[Reason, str] = {
    Reason.SUPERIOR: "{who} is better than {control}: {change}.",
    Reason.NON_INFERIOR: "{who} {be} not worse than {control} by more than the margins allow.",
    Reason.HARMFUL: "{who} does harm: {change} than with {control}.",
    Reason.GUARDRAIL_BREACHED: "{who} breaks a guardrail: {change}, where {limit} is allowed.",
    Reason.NO_WORTHWHILE_EFFECT: "No change worth shipping: {who} {do} not improve {objective} by {least}.",
    Reason.HORIZON_REACHED: "Undecided: the time is up, and the evidence decides neither way.",
    Reason.TOO_FEW_EFFECTIVE_UNITS: "Not decided yet: it takes more units to judge {open}.",
    Reason.NOT_YET_MATURE: "Not decided yet: nothing is old enough to be judged.",
    Reason.SAMPLE_RATIO: "Invalid: the arms did not get the units that they should have, so they cannot be compared.",
    Reason.LABEL_COVERAGE: "Invalid: outcomes are missing more often in one arm, so the arms cannot be compared.",
    Reason.SOURCE_DOWN: "No data: a source of evidence is silent, so nothing is decided.",
}


def not_meant(report: Report) -> tuple[str, ...]:
    """Return what a verdict does not mean."""
    has_objective = any(one.role is Role.OBJECTIVE for one in report.metrics)
    return tuple(one for one in _NOT_MEANT[report.reason] if has_objective or one != _OF_OBJECTIVE)


def badge(report: Report, design: Design) -> str:
    """Return the verdict and its reason, and the step unless it is the last: ``Pass · superior``."""
    return badge_of(report.verdict, report.reason, report.phase, design)


def badge_of(verdict: Verdict, reason: Reason, phase: int, design: Design) -> str:
    """Return the same of a verdict without its report."""
    said = f"{spaced(verdict)} · {spaced(reason).lower()}"
    return said if phase == design.phases[-1].number else f"{step_number(design, phase)} · {said.lower()}"


def spaced(word: str) -> str:
    """Return ``NoWorthwhileEffect`` as ``No worthwhile effect``."""
    parts = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in word).strip()
    return parts[:1].upper() + parts[1:]


def headline(report: Report, design: Design) -> str:
    """Return the verdict as one plain sentence, with the figure that it rests on."""
    if report.reason is Reason.NON_INFERIOR and not report.is_final:
        return "Nothing speaks against the next step: no guardrail is worse than its margin."
    if report.reason is Reason.TOO_FEW_EFFECTIVE_UNITS and design.is_canary:
        return "No guardrail is breached; it takes more units to show that none is worse than its margin."
    culprit = _told(report)
    named = [report.winner] if report.winner else [culprit.treatment] if culprit else list(design.treatments)
    alone = len(named) == 1
    return _HEADLINES[report.reason].format(
        who=listed(named),
        be="is" if alone else "are",
        do="does" if alone else "do",
        control=design.control,
        change=_change(culprit),
        limit=_limit(culprit),
        objective=design.objective.metric.name if design.objective else "the guardrails",
        open=_open(report, design),
        least=_least(design),
    )


def _open(report: Report, design: Design) -> str:
    """Return the metrics that keep a step from passing."""
    wanted = {Role.GUARDRAIL: Finding.NON_INFERIOR} | ({Role.OBJECTIVE: Finding.SUPERIOR} if report.is_final else {})
    names = [one.metric for one in report.metrics if one.role in wanted and one.finding is not wanted[one.role]]
    return listed(list(dict.fromkeys(names or design.metrics)))


def _told(report: Report) -> MetricReport | None:
    """Return the metric that a verdict rests on, where it is one."""
    wanted = {
        Reason.SUPERIOR: (Role.OBJECTIVE, Finding.SUPERIOR),
        Reason.HARMFUL: (Role.OBJECTIVE, Finding.HARMFUL),
        Reason.GUARDRAIL_BREACHED: (Role.GUARDRAIL, Finding.BREACHED),
    }.get(report.reason)
    fitting = [one for one in report.metrics if (one.role, one.finding) == wanted]
    return next((one for one in fitting if one.treatment == report.winner), next(iter(fitting), None))


def _limit(metric: MetricReport | None) -> str:
    return size(metric.limit, metric.kind) if metric and metric.limit else "the margin"


def _least(design: Design) -> str:
    return size(design.objective.minimum_effect, design.objective.metric.kind) if design.objective else "enough"


def _change(metric: MetricReport | None) -> str:
    if metric is None:
        return "see below"
    judged = metric.judged
    if judged is None:
        return f"{metric.metric} differs"
    direction = "lower" if judged.estimate < 0 else "higher"
    told = change(abs(judged.estimate), metric.scale, metric.kind, signed=False)
    return f"{metric.metric} is {told} {direction}{_between(metric, judged)}"


def _between(metric: MetricReport, judged: Interval) -> str:
    """Return the ends of an interval without signs, where both are on one side of no change."""
    if judged.low is None or judged.high is None or judged.low * judged.high <= 0:
        return ""
    ends = (change(end, metric.scale, metric.kind, signed=False) for end in sorted((abs(judged.low), abs(judged.high))))
    return f" ({' to '.join(ends)})"


def interval(known: Interval | None, scale: Scale, kind: Kind) -> str:
    """Return an interval: ``2.1 % to 9.1 %`` with their signs."""
    if known is None:
        return DASH
    low, high = (change(end, scale, kind) if end is not None else None for end in (known.low, known.high))
    if low is None or high is None:
        return f"at least {low}" if low else f"at most {high}" if high else "anything"
    return f"{low} to {high}"


def change(value: float, scale: Scale, kind: Kind, *, signed: bool = True) -> str:
    """Return an effect in its scale: per cent, percentage points of a proportion, or the metric's own unit."""
    if scale is Scale.RELATIVE:
        return f"{_number(100 * value, signed=signed)}{BLANK}%"
    if kind is Kind.PROPORTION:
        return f"{_number(100 * value, signed=signed)}{BLANK}pp"
    return _number(value, signed=signed)


def size(effect: Effect, kind: Kind) -> str:
    """Return the size of an effect as a user wrote it: ``5 %``, ``0.1 pp``, ``0.02``."""
    number = effect.size if effect.scale is Scale.ABSOLUTE and kind is not Kind.PROPORTION else 100 * effect.size
    unit = "" if number == effect.size else f"{BLANK}{'%' if effect.scale is Scale.RELATIVE else 'pp'}"
    return f"{number:.6g}{unit}"


def level(value: float | None, kind: Kind) -> str:
    """Return a metric's value in an arm."""
    if value is None:
        return DASH
    if kind is Kind.PROPORTION:
        return f"{_number(100 * value, signed=False)}{BLANK}%"
    return _number(value, signed=False)


def share(part: float | None) -> str:
    """Return a share of 0 to 1 in per cent."""
    return DASH if part is None else f"{100 * part:.1f}{BLANK}%"


def chance(part: float) -> str:
    """Return a chance in per cent, as it was given."""
    return f"{100 * part:.4g}{BLANK}%"


def count(number: float | None) -> str:
    """Return a count with its thousands parted."""
    return DASH if number is None else f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Return a duration in its largest fitting unit."""
    if seconds is None:
        return DASH
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{float(f'{seconds / length:.3g}'):g}{BLANK}{unit}"
    return f"{float(f'{seconds:.3g}'):g}{BLANK}s"


def p_value(value: float | None) -> str:
    """Return a p-value."""
    if value is None:
        return DASH
    return "< 0.0001" if value < 1e-4 else f"{float(f'{value:.4f}'):g}"  # noqa: PLR2004 -- as many digits as are shown


def better(direction: Better) -> str:
    """Return which direction is better."""
    return "lower is better" if direction is Better.LOWER else "higher is better"


def _number(value: float, *, signed: bool) -> str:
    """Return a number with three digits that matter, its sign typographic."""
    size_ = abs(value)
    if size_ < _TINY:
        return "0"
    digits = f"{size_:,.0f}" if size_ >= 1000 else f"{size_:.3g}"  # noqa: PLR2004 -- from there on thousands are parted
    if "e" in digits:
        mantissa, _, power = digits.partition("e")
        digits = f"{mantissa}e{MINUS if int(power) < 0 else ''}{abs(int(power))}"
    sign = MINUS if value < 0 else "+" if signed else ""
    return sign + digits


def estimand(metric: Metric, design: Design) -> str:
    """Return what a metric's effect is an effect on, where a report does not say it."""
    first = f"each unit's first {design.requests_per_unit:,} requests"
    if metric.source is Source.SYSTEM:
        first = f"each unit's requests, a unit weighing {design.requests_per_unit:,} of them at most,"
    what = {
        Kind.MEAN: f"Average {metric.name} over {first}",
        Kind.PROPORTION: f"Share of {metric.name} among {first}",
        Kind.QUANTILE: f"{quantile_name(metric.quantile)} of {metric.name} over {first}",
    }[metric.kind]
    return f"{what} in this step alone; {better(metric.better)}."


def quantile_name(quantile: float | None) -> str:
    """Return ``0.99`` as ``99th percentile``."""
    if quantile is None:
        return "Quantile"
    number = f"{100 * quantile:g}"
    ending = {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th") if number[-2:-1] != "1" else "th"
    return f"{number}{ending} percentile"


FINDINGS: Mapping[Finding, str] = {
    Finding.SUPERIOR: "better",
    Finding.HARMFUL: "worse",
    Finding.NOT_WORTHWHILE: "no change worth shipping",
    Finding.NON_INFERIOR: "within the margin",
    Finding.BREACHED: "beyond the margin",
    Finding.DIFFERENT: "differs",
    Finding.OPEN: "still open",
    Finding.GATED: "too few effective units",
    Finding.NO_DATA: "no data",
}
"""What is found of one metric, in two or three words."""


def step_name(design: Design, phase: int) -> str:
    """Return a phase as people count, with its shares: ``Step 2 of 2: 50 % boosted``."""
    weights = next((one.weights_bp for one in design.phases if one.number == phase), {})
    given = ", ".join(f"{weight / 100:g}{BLANK}% {arm}" for arm, weight in weights.items() if weight)
    return f"{step_number(design, phase)}: {given}" if given else step_number(design, phase)


def step_number(design: Design, phase: int) -> str:
    """Return a phase as people count: ``Step 2 of 2``."""
    numbers = [one.number for one in design.phases]
    return f"Step {numbers.index(phase) + 1} of {len(numbers)}" if phase in numbers else f"Step {phase + 1}"


def failures(arms: Sequence[ArmReport]) -> Mapping[Failure, str]:
    """Return who failed in any of the arms, and how that is said."""
    seen = {failure for one in arms for failure, errors in one.failures.items() if errors}
    return {failure: said for failure, said in _FAILURES.items() if failure in seen}


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def decided(decision: Decision, design: Design) -> str:
    """Return what was done by a decision."""
    winner = decision.winner or "the treatment"
    what = {
        Action.PROMOTE: f"{winner} was promoted and takes over from {design.control}.",
        Action.ROLLBACK: f"rolled back: {design.control} has everything again.",
        Action.HOLD: "held: shares stay as they are until somebody decides.",
        Action.END: "ended by hand: what it says moved no weight by itself.",
    }[decision.action]
    asked = "" if decision.reason in set(Reason) else f" ({spaced(decision.reason)})"
    return f"{what}{asked}"


def not_decided(design: Design, last: Report | None, *, has_ended: bool) -> str:
    """Return what was done where nothing was decided.

    Args:
        design: As planned.
        last: Report on the last step that has begun, if one has.
        has_ended: Whether the experiment is over.
    """
    what = "canary" if design.is_canary else "experiment"
    if has_ended:
        return f"Nothing was decided: the {what} has ended, and {design.control} is control as before."
    if last is not None and last.is_final and last.verdict in (Verdict.PASS, Verdict.FAIL):
        return "No decision has been recorded yet."
    return f"Nothing was decided yet: the {what} goes on, and {design.control} keeps its place."


def moment(time_us: int) -> str:
    """Return a time for people, in UTC."""
    at = from_us(time_us)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"
