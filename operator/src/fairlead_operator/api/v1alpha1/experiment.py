"""What an experiment compares, how it is judged, and where what became of predictions is told.

Sizes of effects are texts with their unit: ``5%`` of what control has, ``0.1pp`` percentage points of a proportion, or
``0.02`` in the metric's own unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fairlead.experiment.design import ALPHA, REQUESTS_PER_UNIT, Better, Effect, Kind, Meaning, Metric, Scale, Source
from fairlead_operator.api.v1alpha1.fields import DAY_S, Duration, Label, Record, at_most, broken

SIZE_PATTERN = r"^[0-9]{1,9}([.][0-9]{1,9})?(%|pp)?$"
"""What the size of an effect looks like (RE2 and Python)."""

_FEATURE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*:[A-Za-z0-9_][A-Za-z0-9_.-]*$"
_URL = r"^https?://[A-Za-z0-9._:-]+(/[A-Za-z0-9._~/-]*)?$"
_ALL = 100


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A metric that needs no description."""

    kind: Kind
    source: Source
    meaning: Meaning | None = None
    """What the model's output must mean for it; None where that does not matter."""

    def metric(self, name: str) -> Metric:
        """Return it as a design names it; of all of them less is better."""
        return Metric(name=name, kind=self.kind, better=Better.LOWER, source=self.source)


BUILT_IN: Mapping[str, BuiltIn] = {
    "brier": BuiltIn(Kind.MEAN, Source.ACTUAL, Meaning.PROBABILITY),
    "log_loss": BuiltIn(Kind.MEAN, Source.ACTUAL, Meaning.PROBABILITY),
    "squared_error": BuiltIn(Kind.MEAN, Source.ACTUAL, Meaning.NUMBER),
    "absolute_error": BuiltIn(Kind.MEAN, Source.ACTUAL, Meaning.NUMBER),
    "latency_ms": BuiltIn(Kind.MEAN, Source.SYSTEM),
    "error": BuiltIn(Kind.PROPORTION, Source.SYSTEM),
}
"""By name."""

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
Size = Annotated[str, StringConstraints(pattern=SIZE_PATTERN, max_length=22)]


def effect(size: str) -> Effect:
    """Return what the size of an effect, such as ``5%``, ``0.1pp`` or ``0.02``, says."""
    if size.endswith("%"):
        return Effect(size=float(size[:-1]) / _ALL, scale=Scale.RELATIVE)
    if size.endswith("pp"):
        return Effect(size=float(size[:-2]) / _ALL, scale=Scale.ABSOLUTE)
    return Effect(size=float(size), scale=Scale.ABSOLUTE)


class Measured(Record):
    """A metric: one that is built in, or one that an application posts by name."""

    metric: MetricName = Field(
        description=f"Built in: {', '.join(BUILT_IN)}. Any other is posted to the ledger by this name."
    )
    kind: Literal["Mean", "Proportion", "Quantile"] | None = Field(
        default=None,
        description="What a metric that is not built in is: the mean of a number per request, a share of requests, "
        "or a quantile.",
    )
    better: Literal["Lower", "Higher"] | None = Field(
        default=None, description="Which direction is better, of a metric that is not built in."
    )
    quantile: Annotated[float, Field(ge=0.001, le=0.999)] | None = Field(
        default=None, description="Which quantile, where kind is Quantile: 0.99."
    )

    @property
    def measured(self) -> Metric:
        """The metric as a design names it."""
        if self.metric in BUILT_IN:
            return BUILT_IN[self.metric].metric(self.metric)
        return Metric(
            name=self.metric,
            kind=Kind(self.kind or Kind.MEAN),
            better=Better(self.better or Better.LOWER),
            source=Source.OUTCOME,
            quantile=self.quantile,
        )

    @model_validator(mode="after")
    def _metric_is_described(self) -> Self:
        if self.metric in BUILT_IN:
            if (self.kind, self.better, self.quantile) != (None, None, None):
                message = "is built in, so that its kind and direction are known; remove kind, better and quantile"
                raise broken(("metric",), message)
        elif self.kind is None or self.better is None:
            raise broken(("metric",), f"is not built in ({', '.join(BUILT_IN)}); say its kind and which is better")
        elif (self.kind == "Quantile") != (self.quantile is not None):
            raise broken(("quantile",), "is required where kind is Quantile, and is for that alone")
        return self

    def _misfits(self, field: str, size: str) -> None:
        given = effect_size(size)
        if given <= 0:
            raise broken((field,), "must be over 0; a difference of nothing can never be told")
        if size.endswith(("%", "pp")) and given >= _ALL:
            raise broken((field,), "must be under 100 per cent; lower it")
        if size.endswith("pp") and self.measured.kind is not Kind.PROPORTION:
            raise broken((field,), "has pp, which is for proportions; give per cent, or the metric's own unit")


def effect_size(size: str) -> float:
    """Return the number in the size of an effect, without its unit."""
    return float(size.removesuffix("%").removesuffix("pp"))


class Objective(Measured):
    """What a Treatment is to be better in."""

    minimum_effect: Size = Field(
        description="The smallest change worth shipping, whatever its direction: 5% of control, 0.1pp of a proportion, "
        '"0.02" in the metric\'s own unit. One chosen too small costs power.'
    )

    @model_validator(mode="after")
    def _effect_fits(self) -> Self:
        self._misfits("minimumEffect", self.minimum_effect)
        return self


class Guardrail(Measured):
    """What a Treatment may not be worse in by more than a margin."""

    margin: Size = Field(
        description='How much worse it may be: 10% of control, 0.1pp of a proportion, "0.02" in the metric\'s own unit.'
    )

    @model_validator(mode="after")
    def _margin_fits(self) -> Self:
        self._misfits("margin", self.margin)
        return self


class Covariate(Record):
    """A feature by which units are known to differ before the experiment; it takes that much noise away."""

    feature: Annotated[str, StringConstraints(pattern=_FEATURE, max_length=250)] = Field(
        description="A feature of the model, view:name, as it is at a unit's first exposure; never one that is made "
        "from the outcome."
    )

    @property
    def input(self) -> str:
        """Its name in the model's graph, ``view__name``."""
        return self.feature.replace(":", "__")


NOT_OF_CANARY: Mapping[str, str] = {
    "id": "is each revision's own under Canary",
    "objective": "is what a Treatment is to be better in; a new revision under Canary is judged by guardrails alone",
    "covariate": "is for an objective, which a Canary has none of",
    "maximum_duration": "ends an undecided experiment; a Canary ends with its steps",
}
"""What of an experiment a canary has no use for, by field, and why."""


class Experiment(Record):
    """An experiment: its id names the assignment and the analysis. Under Canary it has guardrails alone."""

    id: Annotated[Label, Field(max_length=40)] | None = Field(
        default=None,
        description="Last part of the salt; a new id draws all units anew. Required but under Canary, where each new "
        "revision is an experiment of its own.",
    )
    objective: Objective | None = Field(
        default=None,
        description="What a Treatment is to be better in, judged in the last step; without one somebody decides. Not "
        "under Canary.",
    )
    guardrails: tuple[Guardrail, ...] = Field(
        default=(), max_length=16, description="What a Treatment may not be worse in, judged in every step."
    )
    alpha: float = Field(
        default=ALPHA,
        ge=0.0001,
        le=0.5,
        description="How often an experiment without any difference may claim one, over all its looks.",
    )
    requests_per_unit: int = Field(
        default=REQUESTS_PER_UNIT,
        ge=1,
        le=1_000_000,
        description="Of a unit only so many of its first requests count, in each step.",
    )
    outcome_window: Annotated[Duration, at_most(366 * DAY_S)] | None = Field(
        default=None,
        description="How long after a prediction its outcome may come: a request is judged once it is older than "
        "that, and what comes later is counted but not used. Required for all metrics but latency_ms and error.",
    )
    covariate: Covariate | None = Field(default=None, description="A feature that takes noise away.")
    maximum_duration: Annotated[Duration, at_most(366 * DAY_S)] | None = Field(
        default=None,
        description="How long the last step may last; then the experiment ends undecided and Control keeps its place. "
        "Until it is decided if left out.",
    )

    @property
    def is_judged(self) -> bool:
        """Whether anything is compared, rather than only drawn."""
        return self.objective is not None or bool(self.guardrails)

    @property
    def measured(self) -> Iterator[tuple[tuple[str | int, ...], Measured]]:
        """Every metric with the place of it: the objective, then the guardrails."""
        if self.objective is not None:
            yield ("objective",), self.objective
        for index, guardrail in enumerate(self.guardrails):
            yield ("guardrails", index), guardrail

    @property
    def meaning(self) -> Meaning | None:
        """What the model's output must mean for its metrics; None where that does not matter."""
        found = (BUILT_IN[one.metric].meaning for _, one in self.measured if one.metric in BUILT_IN)
        return next((meaning for meaning in found if meaning is not None), None)

    @model_validator(mode="after")
    def _metrics_fit(self) -> Self:
        seen: set[str] = set()
        for place, one in self.measured:
            if one.metric in seen:
                raise broken((*place, "metric"), f"{one.metric} is judged twice; name each metric once")
            seen.add(one.metric)
        meanings = {BUILT_IN[name].meaning for name in seen if name in BUILT_IN} - {None}
        if len(meanings) > 1:
            message = "brier and log_loss are for probabilities, squared_error and absolute_error for numbers"
            raise broken(("guardrails",), f"{message}; keep those of one kind")
        waits = any(name not in BUILT_IN or BUILT_IN[name].source is not Source.SYSTEM for name in seen)
        if waits and self.outcome_window is None:
            message = "is required where outcomes are waited for; say how long after a prediction they come"
            raise broken(("outcomeWindow",), message)
        return self


class LedgerAddress(Record):
    """A ledger."""

    url: Annotated[str, StringConstraints(pattern=_URL)] | None = Field(
        default=None,
        max_length=512,
        description="Its address; the operator's own default if left out. Another one is sent no API key of the "
        "operator's, so that it must be open to whoever reaches it.",
    )


class Feedback(Record):
    """Where servers tell whom they answered, and applications what became of it."""

    ledger: LedgerAddress = Field(default=LedgerAddress(), description="The ledger.")
