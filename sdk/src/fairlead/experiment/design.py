"""The design of an experiment: everything that is fixed before the first unit is exposed.

The operator writes it from a ModelDeployment, the ledger keeps it, the analysis reads it, a decision record holds it.
Nothing in it changes while the experiment runs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fairlead.feedback.messages import MetricName, Salt, VariantName

REQUESTS_PER_UNIT = 50
"""Requests of a unit that count in one phase, unless the design says otherwise."""
ALPHA = 0.05


class Kind(StrEnum):
    """What a metric is over requests."""

    MEAN = "Mean"
    """A number per request; compared as the ratio of sums over units."""
    PROPORTION = "Proportion"
    """0 or 1 per request."""
    QUANTILE = "Quantile"
    """A number per request, of which a quantile is compared."""


class Better(StrEnum):
    """Which direction is better."""

    LOWER = "Lower"
    HIGHER = "Higher"


class Source(StrEnum):
    """Who tells a metric."""

    ACTUAL = "Actual"
    """Computed by the ledger from prediction and actual."""
    OUTCOME = "Outcome"
    """Posted by name."""
    SYSTEM = "System"
    """Counted by servers and gateway: latency_ms, error."""


class Meaning(StrEnum):
    """What the output that a token carries means."""

    PROBABILITY = "Probability"
    NUMBER = "Number"


class Scale(StrEnum):
    """What an effect is a difference of."""

    RELATIVE = "Relative"
    """Treatment over control, less 1."""
    ABSOLUTE = "Absolute"
    """Treatment less control, in the metric's own unit."""


class Part(BaseModel):
    """A part of a design: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(Part):
    """What is measured of each request."""

    name: MetricName
    kind: Kind
    better: Better
    source: Source
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """Which, for ``Kind.QUANTILE``."""

    @model_validator(mode="after")
    def _has_its_quantile(self) -> Self:
        if (self.quantile is None) == (self.kind is Kind.QUANTILE):
            raise ValueError("quantile is for metrics of kind Quantile, and they need one")
        return self


class Effect(Part):
    """The size of a difference, whatever its direction."""

    size: float = Field(gt=0, lt=1e12)
    """0.05 for 5 % if relative; in the metric's own unit if absolute."""
    scale: Scale


class Objective(Part):
    """What a treatment is to be better in."""

    metric: Metric
    minimum_effect: Effect
    """The smallest change worth shipping."""


class Guardrail(Part):
    """What a treatment may not be worse in by more than a margin."""

    metric: Metric
    margin: Effect


class Phase(Part):
    """A planned step."""

    number: int = Field(ge=0, lt=1 << 16)
    weights_bp: dict[VariantName, Annotated[int, Field(ge=0, le=10_000)]]
    """Basis points of each treatment; control has the rest."""


class Design(Part):
    """One experiment as it was planned."""

    salt: Salt
    """``namespace/name/experiment-id``."""
    control: VariantName
    treatments: tuple[VariantName, ...] = Field(min_length=1, max_length=32)
    phases: tuple[Phase, ...] = Field(min_length=1, max_length=1 << 10)
    """In order; the objective is judged in the last one alone."""
    objective: Objective | None = None
    guardrails: tuple[Guardrail, ...] = Field(default=(), max_length=32)
    alpha: float = Field(default=ALPHA, gt=0, le=0.5)
    requests_per_unit: int = Field(default=REQUESTS_PER_UNIT, ge=1, le=1_000_000)
    """Of each unit only so many of its first requests count, in each phase."""
    outcome_window_s: float = Field(default=0.0, ge=0, le=366 * 86400)
    """A request is judged once it is older than that, with the outcome that came until then."""
    maximum_duration_s: float | None = Field(default=None, gt=0)
    """Of the last phase; then the experiment ends undecided."""
    covariate: str | None = Field(default=None, max_length=253)
    """Feature recorded at a unit's first exposure."""
    meaning: Meaning | None = None
    """Of the output that tokens carry; None where they carry none."""
    digests: dict[VariantName, str] = Field(default={})
    """What each arm predicts with: its prediction digest."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric of it by name."""
        objectives = [self.objective.metric] if self.objective else []
        return {metric.name: metric for metric in (*objectives, *(one.metric for one in self.guardrails))}

    @property
    def arms(self) -> tuple[str, ...]:
        """Control and treatments."""
        return (self.control, *self.treatments)

    def shares(self, phase: int) -> Mapping[str, float]:
        """Return the planned share of units of each arm in a phase, 0 to 1."""
        weights = next(one.weights_bp for one in self.phases if one.number == phase)
        shares = {arm: weights.get(arm, 0) / 10_000 for arm in self.treatments}
        return {self.control: 1.0 - math.fsum(shares.values()), **shares}

    @property
    def is_canary(self) -> bool:
        """Whether its arms are revisions of one variant; its id is then that of :func:`canary_id`."""
        id_, (new, *others) = self.salt.rpartition("/")[2], self.treatments
        named, _, second = id_.rpartition("-")
        same = self.control.rpartition("-")[0] == new.rpartition("-")[0] != ""
        return not others and same and named == new and second.isdecimal()

    @property
    def digest(self) -> str:
        """What names this design and no other: ``sha256:`` and 64 hex digits of its canonical JSON."""
        return f"sha256:{hashlib.sha256(canonical(self)).hexdigest()}"


def canary_id(candidate: str, second: int) -> str:
    """Return the id under which a new revision is compared with the one that serves: another one for each attempt.

    Args:
        candidate: The revision, ``<deployment>-<variant>-<hash>``.
        second: When that began, Unix time.
    """
    return f"{candidate}-{second}"


def canonical(part: BaseModel) -> bytes:
    """Return the one JSON text of a design or a record: keys sorted, no blanks, UTF-8."""
    fields = part.model_dump(mode="json")
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
