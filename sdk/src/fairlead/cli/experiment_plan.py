"""What an experiment will take: of a manifest only what planning needs is read, the rest is the operator's business."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fairlead.cli.errors import USAGE, CommandError
from fairlead.cli.ledger import Ledger, Told
from fairlead.experiment import words
from fairlead.experiment.design import (
    ALPHA,
    REQUESTS_PER_UNIT,
    Better,
    Design,
    Effect,
    Kind,
    Metric,
    Phase,
    Scale,
    Source,
)
from fairlead.experiment.design import Objective as Aim
from fairlead.experiment.errors import ExperimentError
from fairlead.experiment.metrics import SCORES, is_built_in, metric_of
from fairlead.experiment.planning import Baseline, Need, need

_ALL = 100
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Text = Annotated[str, StringConstraints(min_length=1)]
Size = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}([.][0-9]{1,9})?(%|pp)?$")]
Duration = Annotated[str, StringConstraints(pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$")]
_DURATION = re.compile(r"([0-9.]+)(ms|s|m|h|d)")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class _Objective(_Part):
    metric: Text
    minimum_effect: Size = Field(alias="minimumEffect")
    kind: Literal["Mean", "Proportion"] | None = None
    better: Literal["Lower", "Higher"] | None = None


class _Experiment(_Part):
    id: Text
    objective: _Objective
    alpha: float = Field(default=ALPHA, gt=0, le=0.5)
    requests_per_unit: int = Field(default=REQUESTS_PER_UNIT, ge=1, alias="requestsPerUnit")
    outcome_window: Duration | None = Field(default=None, alias="outcomeWindow")
    maximum_duration: Duration | None = Field(default=None, alias="maximumDuration")


class _Variant(_Part):
    name: Text
    role: Literal["Control", "Treatment", "Shadow"]


class _Step(_Part):
    weights: dict[str, float]


class _Rollout(_Part):
    steps: tuple[_Step, ...] = ()
    weights: dict[str, float] = {}


class _Spec(_Part):
    variants: tuple[_Variant, ...] = Field(min_length=2)
    rollout: _Rollout = _Rollout()
    experiment: _Experiment


class _Metadata(_Part):
    name: Text
    namespace: Text = "default"


class _Manifest(_Part):
    kind: Literal["ModelDeployment"]
    metadata: _Metadata
    spec: _Spec


@dataclass(frozen=True, slots=True)
class Planned:
    """What is planned, and where it was read."""

    file: Path
    design: Design
    """Of the last step alone."""

    @property
    def objective(self) -> Aim:
        """What is to be found."""
        if self.design.objective is None:
            raise CommandError(f"{self.file}: spec.experiment.objective: is missing; there is nothing to plan", USAGE)
        return self.design.objective


def read(file: Path) -> Planned:
    """Return what a ModelDeployment plans.

    Raises:
        CommandError: There is no such file, or a field is missing or wrong; the message names it.
    """
    try:
        found: Any = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise CommandError(f"{file}: {(error.strerror or 'cannot be read').lower()}", USAGE) from None
    except (yaml.YAMLError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = f":{line + 1}" if line is not None else ""
        raise CommandError(f"{file}{place}: is no YAML; mend it", USAGE) from None
    if _is_canary(found):
        message = "a canary has guardrails alone and ends with its steps; there is nothing to plan"
        raise CommandError(f"{file}: spec.rollout.strategy: {message}", USAGE)
    try:
        manifest = _Manifest.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise CommandError(f"{file}: {place}: {first['msg'].lower()}", USAGE) from None
    return Planned(file, _design(file, manifest))


def _is_canary(found: Any) -> bool:
    """Return whether a manifest, sound or not, rolls out revisions of one variant."""
    for name in ("spec", "rollout", "strategy"):
        found = found.get(name) if isinstance(found, dict) else None
    return bool(found == "Canary")


def baseline_given(planned: Planned, baseline: float | None, sigma: float | None) -> Baseline:
    """Return what is known of the objective's metric from the command line.

    Raises:
        CommandError: It is not enough.
    """
    metric = planned.objective.metric
    if metric.kind is Kind.PROPORTION and baseline is not None:
        if not 0 < baseline < 1:
            raise CommandError(f"--baseline {baseline:g}: {metric.name} is a proportion; give it as 0 to 1", USAGE)
        known = Baseline.of_proportion(baseline)
        return known if sigma is None else Baseline(baseline, sigma)
    is_relative = planned.objective.minimum_effect.scale is Scale.RELATIVE
    missing = [
        name
        for name, value, needed in (("--baseline", baseline, is_relative), ("--sigma", sigma, True))
        if needed and value is None
    ]
    if missing:
        how = "or --like NAMESPACE/NAME for those of an earlier experiment"
        raise CommandError(f"{' and '.join(missing)}: needed to plan for {metric.name}; give them, {how}", USAGE)
    return Baseline(baseline if baseline is not None else 1.0, sigma if sigma is not None else 0.0)


def baseline_like(ledger: Ledger, told: Told, planned: Planned) -> Baseline:
    """Return what control showed in an earlier experiment, in the step where most of it was seen.

    Raises:
        CommandError: It has nothing of the metric.
    """
    name = planned.objective.metric.name
    control = told.design.control if told.design else ""
    sums = [
        phase.arms[control].metrics[name]
        for phase in ledger.evidence(told.salt).phases
        if control in phase.arms and name in phase.arms[control].metrics
    ]
    best = max(sums, key=lambda one: one.units, default=None)
    if best is None or best.units < 2:  # noqa: PLR2004 -- of one there is no variance
        raise CommandError(
            f"--like {told.salt}: nothing of {name} was judged in it; name another, or give --baseline and --sigma"
        )
    return Baseline.of(best.moments)


def need_of(planned: Planned, baseline: Baseline, units_per_day: float) -> Need:
    """Return what the objective takes.

    Raises:
        CommandError: It cannot be planned for.
    """
    try:
        return need(planned.design, baseline, units_per_day=units_per_day)
    except ExperimentError as wrong:
        raise CommandError(f"{planned.file}: {wrong}", USAGE) from None


def document(planned: Planned, known: Need) -> dict[str, Any]:
    """Return the plan as JSON has it."""
    return {
        "salt": planned.design.salt,
        "metric": planned.objective.metric.name,
        "units": known.units,
        "median_units": known.median_units,
        "days": round(known.days, 2) if math.isfinite(known.days) else None,
        "maximum_days": _maximum_days(planned),
        "fits": known.fits,
    }


def lines(planned: Planned, known: Need, units_per_day: float) -> Iterator[str]:
    """Yield the plan in words."""
    design, aim = planned.design, planned.objective
    least = words.size(aim.minimum_effect, aim.metric.kind)
    window_d = design.outcome_window_s / _SECONDS["d"]
    typical = known.median_units / units_per_day + window_d
    waited = f", {words.duration(design.outcome_window_s)} of them waiting for outcomes" if window_d else ""
    yield f"{design.salt}: to find a change of {least} in {aim.metric.name}, the smallest worth shipping, takes"
    yield f"  {known.units:>9,} units  in {_days(known.days)} of the last step{waited}, to find 4 of 5 such changes"
    yield f"  {known.median_units:>9,} units  in {_days(typical)}, to find half of them: the typical stop"
    most = _maximum_days(planned)
    if most is not None:
        yield f"  maximumDuration is {_days(most)}: {'enough' if known.fits else 'not enough'}"
    yield "A larger minimumEffect takes fewer units, by its square; one too small costs power, and never decides."


def warning(planned: Planned, known: Need) -> str:
    """Return what is said where the maximum duration is too short."""
    most = _maximum_days(planned) or 0.0
    return (
        f"{planned.file}: spec.experiment.maximumDuration: {_days(most)} is shorter than the {_days(known.days)} that "
        "are needed; raise it, choose a larger minimumEffect, or expect to end undecided"
    )


def _maximum_days(planned: Planned) -> float | None:
    most = planned.design.maximum_duration_s
    return None if most is None else most / _SECONDS["d"]


def _days(days: float) -> str:
    if not math.isfinite(days):
        return "no number of days"
    return f"{days:,.1f} days" if days < _ALL else f"{days:,.0f} days"


def _design(file: Path, manifest: _Manifest) -> Design:
    spec, metadata = manifest.spec, manifest.metadata
    experiment = spec.experiment
    control = [one.name for one in spec.variants if one.role == "Control"]
    treatments = tuple(one.name for one in spec.variants if one.role == "Treatment")
    if len(control) != 1 or not treatments:
        raise CommandError(f"{file}: spec.variants: needs one Control and at least one Treatment", USAGE)
    weights = spec.rollout.steps[-1].weights if spec.rollout.steps else spec.rollout.weights
    if not weights:
        raise CommandError(f"{file}: spec.rollout.steps: are missing; say what share the Treatments get", USAGE)
    try:
        return Design(
            salt=f"{metadata.namespace}/{metadata.name}/{experiment.id}",
            control=control[0],
            treatments=treatments,
            phases=(Phase(number=0, weights_bp={arm: round(_ALL * share) for arm, share in weights.items()}),),
            objective=Aim(metric=_metric(file, experiment.objective), minimum_effect=_effect(experiment.objective)),
            alpha=experiment.alpha,
            requests_per_unit=experiment.requests_per_unit,
            outcome_window_s=_seconds(experiment.outcome_window) or 0.0,
            maximum_duration_s=_seconds(experiment.maximum_duration),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CommandError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}", USAGE) from None


def _metric(file: Path, objective: _Objective) -> Metric:
    name = objective.metric
    try:
        if is_built_in(name):
            meaning = SCORES[name].meaning if name in SCORES else None
            return metric_of(name, meaning=meaning, declared={})
    except ExperimentError as wrong:
        raise CommandError(f"{file}: spec.experiment.objective.metric: {wrong}", USAGE) from None
    if objective.kind is None or objective.better is None:
        raise CommandError(f"{file}: spec.experiment.objective: {name} is not built in; say kind and better", USAGE)
    return Metric(name=name, kind=Kind(objective.kind), better=Better(objective.better), source=Source.OUTCOME)


def _effect(objective: _Objective) -> Effect:
    size = objective.minimum_effect
    if size.endswith("%"):
        return Effect(size=float(size[:-1]) / _ALL, scale=Scale.RELATIVE)
    if size.endswith("pp"):
        return Effect(size=float(size[:-2]) / _ALL, scale=Scale.ABSOLUTE)
    return Effect(size=float(size), scale=Scale.ABSOLUTE)


def _seconds(duration: str | None) -> float | None:
    if duration is None:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))
