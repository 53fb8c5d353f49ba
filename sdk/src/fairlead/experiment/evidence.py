"""What was seen of an experiment: sums over units, and nothing per unit or request.

The ledger makes it, the analysis reads it, a decision record holds it. Everything in it merges: evidence of different
units adds up to the evidence of all of them. Which outcomes are in it follows facts that no arm can change: a request
counts once it is older than the outcome window, with the outcome that came until then, and of a unit's requests in a
phase only the first ``requests_per_unit``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BeforeValidator, Field, model_validator

from fairlead.experiment.blocks import blocks_by_length
from fairlead.experiment.covariate import CovariateMoments
from fairlead.experiment.design import Part
from fairlead.experiment.errors import UnfitEvidence
from fairlead.experiment.sums import Moments
from fairlead.experiment.tail import TailSums
from fairlead.feedback.messages import Count, Failure, Finite, MetricName, Salt, TimeUs, VariantName

Total = Annotated[float, Field(allow_inf_nan=False)]
Even = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A sum of even powers."""


class CovariateSums(Part):
    """Sums over the units of a metric of which the covariate is known; e is the covariate about its mean over them."""

    units: Count
    mean: Finite
    n: Even
    nn: Even
    d: Total
    nd: Total
    ee: Even
    ne: Total
    de: Total
    nde: Total
    nne: Total
    nnee: Even

    @property
    def moments(self) -> CovariateMoments:
        """The same numbers, as the analysis computes with them."""
        return CovariateMoments(**dict(self))

    @classmethod
    def from_moments(cls, moments: CovariateMoments) -> Self:
        """Take sums that were computed elsewhere."""
        return cls(**_plain(moments, even=("n", "nn", "ee", "nnee")))


class Sums(Part):
    """One metric of one arm: sums over units (see `fairlead.experiment.sums`), with d = x - R n and R = Σx / Σn."""

    units: Count = 0
    """Units with at least one request that counts."""
    n: Even = 0.0
    """Requests."""
    x: Total = 0.0
    """Metric over them."""
    nn: Even = 0.0
    dn: Total = 0.0
    dd: Even = 0.0
    n4: Even = 0.0
    dn3: Total = 0.0
    d2n2: Even = 0.0
    d3n: Total = 0.0
    d4: Even = 0.0
    covariate: CovariateSums | None = None
    """Where the design names a covariate; of the objective's metric only."""

    @model_validator(mode="after")
    def _sums_up(self) -> Self:
        if self.units == 0 and any(value != 0 for name, value in self if name != "covariate"):
            raise ValueError("without units every sum is 0")
        noise = _NOISE * self.ratio**2 * self.nn
        if any(
            two > math.sqrt(self.units * four) * (1 + _NOISE) + slack
            for two, four, slack in ((self.dd, self.d4, noise), (self.nn, self.n4, 0.0))
        ):
            raise ValueError("no units sum to that: a sum of squares is too large for its sum of fourth powers")
        return self

    @classmethod
    def of(cls, n: ArrayLike, x: ArrayLike, covariate: ArrayLike | None = None) -> Self:
        """Sum over units.

        Args:
            n: Requests of each unit, [units].
            x: Total of the metric over them, [units].
            covariate: The unit's covariate, [units]; NaN where it is unknown.

        Raises:
            UnfitEvidence: As in `Moments.of`; or the covariate has another shape or is infinite.
        """
        moments = Moments.of(n, x)
        known = None if covariate is None else CovariateMoments.of(n, x, covariate, ratio=moments.ratio)
        return cls.from_moments(moments, known)

    @classmethod
    def from_moments(cls, moments: Moments, covariate: CovariateMoments | None = None) -> Self:
        """Take sums that were computed elsewhere (`Moments.about`)."""
        known = None if covariate is None else CovariateSums.from_moments(covariate)
        return cls(**_plain(moments, even=("n", "nn", "dd", "n4", "d2n2", "d4")), covariate=known)

    @property
    def moments(self) -> Moments:
        """The same numbers, as the analysis computes with them."""
        return Moments(**{name: value for name, value in self if name != "covariate"})

    @property
    def ratio(self) -> float:
        """The metric: x / n; 0 without requests."""
        return float(self.moments.ratio)

    def __add__(self, other: Sums) -> Sums:
        """Return the sums over the units of both; they must be different units."""
        mine, theirs = self.moments, other.moments
        whole = mine + theirs
        known = [
            one.covariate.moments.moved(whole.ratio - part.ratio)
            for one, part in ((self, mine), (other, theirs))
            if one.covariate is not None
        ]
        both = known[0] + known[1] if len(known) > 1 else next(iter(known), None)
        return Sums.from_moments(whole, both)


class FirstValues(Part):
    """One value of 0 to 1 per unit that never changes again: of its first request (or first report) in the phase.

    For small samples of proportions, where the normal approximation has nothing to hold on to; see
    `fairlead.experiment.trials`.
    """

    units: Count = 0
    total: Even = 0.0
    """Sum of the values."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.total > self.units * (1 + 1e-12):
            raise ValueError("a value of 0 to 1 per unit cannot sum to more than the units")
        return self

    def __add__(self, other: FirstValues) -> FirstValues:
        """Return the values of both."""
        return FirstValues(units=self.units + other.units, total=self.total + other.total)


class Tail(Part):
    """How many requests were above a threshold: ``n`` requests, ``x`` of them above, summed over clusters.

    A cluster is a unit, or for latency a block (server and minute). See `fairlead.experiment.quantile`.
    """

    edge: int
    """Number of the threshold in the fixed grid `fairlead.experiment.tail.edge_value`."""
    sums: Sums
    longer: tuple[Sums, ...] = ()
    """Of blocks: the same over the longer of `fairlead.experiment.blocks.BLOCK_MINUTES`."""

    @classmethod
    def of(cls, tail: TailSums) -> Self:
        """Take what `fairlead.experiment.tail.tails_of` has summed."""
        longer = tuple(Sums.from_moments(moments) for moments in tail.longer)
        return cls(edge=tail.edge, sums=Sums.from_moments(tail.moments), longer=longer)

    @property
    def tail_sums(self) -> TailSums:
        """The same numbers, as the analysis computes with them."""
        return TailSums(self.edge, self.sums.moments, tuple(one.moments for one in self.longer))

    def __add__(self, other: Tail) -> Tail:
        """Return the tail of the clusters of both."""
        return Tail(edge=self.edge, sums=self.sums + other.sums, longer=_blocks(self.longer, other.longer))


def _one_length(told: object) -> object:
    return (told,) if isinstance(told, Sums) else told


Blocks = Annotated[tuple[Sums, ...], BeforeValidator(_one_length)]
"""Sums over servers and `fairlead.experiment.blocks.BLOCK_MINUTES`, in their order; or of one minute alone."""


class ArmEvidence(Part):
    """What was seen of one arm in one phase."""

    first_exposures: Count = 0
    """Units whose first exposure in the whole experiment was here: what the sample-ratio test counts."""
    units: Count = 0
    """Units exposed in this phase, whether or not in an earlier one too."""
    requests: Count = 0
    """Requests that servers and gateway counted."""
    matured_units: Count = 0
    """Units exposed in this phase longer than the outcome window ago."""
    labelled_units: Count = 0
    """Of the matured ones, those with at least one outcome that counts."""
    matured_requests: Count = 0
    """Requests older than the outcome window, at most ``requests_per_unit`` per unit; 0 if the ledger cannot tell."""
    labelled_requests: Count = 0
    """Of those, the ones with an outcome that came in time."""
    pending_requests: Count = 0
    """Outcomes that are here and wait until their request is old enough."""
    metrics: dict[MetricName, Sums] = Field(default={})
    """By name: outcomes that count; ``latency_ms`` and ``error`` over `fairlead.experiment.sums.tempered` units."""
    activity: Sums | None = None
    """Requests per unit: n is 1 for each unit, x its requests."""
    coverage: Sums | None = None
    """Per unit with matured requests: n is their number, x how many have an outcome."""
    blocks: dict[MetricName, Blocks] = Field(default={})
    """System metrics summed over blocks of time instead of units: what strikes many units at once."""
    first_values: dict[MetricName, FirstValues] = Field(default={})
    """Of proportions."""
    tails: dict[MetricName, tuple[Tail, ...]] = Field(default={})
    """Of metrics of kind Quantile, by ascending edge; made by `fairlead.experiment.tail.tails_of`."""
    errors: Count = 0
    """Of the requests, those that were answered with an error of ours, or not at all."""
    failures: dict[Failure, Count] = Field(default={})
    """Errors by who failed, as far as it was told."""
    left_out: dict[Annotated[str, Field(max_length=63)], Count] = Field(default={})
    """Units, or requests, that were seen and do not count, by why."""

    def __add__(self, other: ArmEvidence) -> ArmEvidence:
        """Return the evidence of both; they must be of different units, and tails of the same edges."""
        return ArmEvidence(
            **{name: getattr(self, name) + getattr(other, name) for name in _COUNTS},
            **{name: _merged(getattr(self, name), getattr(other, name)) for name in _BY_NAME},
            activity=_sum(self.activity, other.activity),
            coverage=_sum(self.coverage, other.coverage),
            blocks={
                name: _blocks(self.blocks.get(name), other.blocks.get(name)) for name in {**self.blocks, **other.blocks}
            },
            tails={name: _tails(self.tails.get(name), other.tails.get(name)) for name in {**self.tails, **other.tails}},
        )


class PhaseEvidence(Part):
    """What was seen in one phase."""

    number: int = Field(ge=0, lt=1 << 16)
    started_us: TimeUs
    """When its weights were in force."""
    ended_us: TimeUs | None = None
    arms: dict[VariantName, ArmEvidence]


class Evidence(Part):
    """What was seen of an experiment until a moment; each phase by itself, never pooled."""

    salt: Salt
    phases: tuple[PhaseEvidence, ...] = Field(default=(), max_length=1 << 10)
    """Those that have begun, in order."""
    down: tuple[Annotated[str, Field(max_length=63)], ...] = ()
    """Sources that have stopped telling (``exposures``, ``outcomes``, ``gateway``): silence decides nothing."""

    @model_validator(mode="after")
    def _phases_ascend(self) -> Self:
        numbers = [phase.number for phase in self.phases]
        if numbers != sorted(set(numbers)):
            raise ValueError("phases are in order, each once")
        return self

    def phase(self, number: int) -> PhaseEvidence | None:
        """Return what was seen in a phase; None if it has not begun."""
        return next((phase for phase in self.phases if phase.number == number), None)


_COUNTS = (
    "first_exposures",
    "units",
    "requests",
    "errors",
    "matured_units",
    "labelled_units",
    "matured_requests",
    "labelled_requests",
    "pending_requests",
)
_NOISE = 1e-6
"""What rounding may leave of sums that are 0."""
_BY_NAME = ("metrics", "first_values", "failures", "left_out")


def _plain(moments: Moments | CovariateMoments, *, even: Sequence[str]) -> dict[str, float]:
    """Return the fields of scalar moments as Python numbers; what rounding left below 0 in even powers is 0."""
    names = [one.name for one in fields(moments)]
    values = {name: float(np.asarray(getattr(moments, name)).item()) for name in names}
    if not all(np.isfinite(value) for value in values.values()):
        raise UnfitEvidence("sums over units are finite; the metric's values are too large to be squared twice")
    return {name: max(value, 0.0) if name in even else value for name, value in values.items()}


def _merged(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _sum(mine.get(name), other.get(name)) for name in {**mine, **other}}


def _sum(mine: Any, other: Any) -> Any:
    """Return the sum of two things that add up, either of which may be missing."""
    if mine is None or other is None:
        return other if mine is None else mine
    return mine + other


def blocks_of(server: ArrayLike, minute: ArrayLike, n: ArrayLike, x: ArrayLike) -> tuple[Sums, ...]:
    """Sum over servers and each of `fairlead.experiment.blocks.BLOCK_MINUTES`.

    Args:
        server: Which server, [rows], whole numbers.
        minute: Since 1970-01-01 UTC, [rows].
        n: Requests of that server in that minute, [rows].
        x: Total of the metric over them, [rows].
    """
    return tuple(
        Sums.of(*(np.bincount(block, np.asarray(each, np.float64)) for each in (n, x)))
        for block in blocks_by_length(server, minute)
    )


def _blocks(mine: tuple[Sums, ...] | None, other: tuple[Sums, ...] | None) -> tuple[Sums, ...]:
    if not mine or not other:
        return mine or other or ()
    return tuple(one + another for one, another in zip(mine, other, strict=True))


def _tails(mine: tuple[Tail, ...] | None, other: tuple[Tail, ...] | None) -> tuple[Tail, ...]:
    if not mine or not other:
        return mine or other or ()
    if [tail.edge for tail in mine] != [tail.edge for tail in other]:
        raise UnfitEvidence("tails of different edges do not add up; make them with the same `edges`")
    return tuple(one + another for one, another in zip(mine, other, strict=True))
