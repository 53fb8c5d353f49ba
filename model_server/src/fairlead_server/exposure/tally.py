"""What happened since the last report: first exposures, sums per unit, sums per minute; bounded, and pure.

Two bounds keep it small. The memory of units that were reported as exposed forgets those that were seen longest ago;
they are reported again, which the ledger bears. What waits for the next report has room for so many sums; requests
that would need another one are counted as dropped, and nothing else of them is kept.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from fairlead.experiment.tail import EDGES_PER_DOUBLING, HIGHEST_EDGE, LOWEST_EDGE
from fairlead.feedback.messages import Arm, Failure

_MINUTE_US = 60_000_000


class Sums:
    """Requests of a unit, or of a minute, added up."""

    __slots__ = ("degraded", "failures", "latency_us", "requests")

    def __init__(self) -> None:
        """Start with none."""
        self.requests = 0
        self.failures: dict[Failure, int] | None = None
        self.degraded = 0
        self.latency_us = 0

    @property
    def errors(self) -> int:
        """Requests that failed."""
        return sum(self.failures.values()) if self.failures else 0

    def add(self, latency_us: int, *, failure: Failure | None, degraded: bool) -> None:
        """Add one request."""
        self.requests += 1
        if failure is not None:
            self.failures = self.failures or {}  # made when it is needed: most units never fail
            self.failures[failure] = self.failures.get(failure, 0) + 1
        self.degraded += degraded
        self.latency_us += latency_us


class Block(Sums):
    """Requests of a minute, and how long they took one by one."""

    __slots__ = ("latency_counts",)

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.latency_counts: dict[int, int] = {}

    def add(self, latency_us: int, *, failure: Failure | None, degraded: bool) -> None:
        """Add one request."""
        super().add(latency_us, failure=failure, degraded=degraded)
        edge = latency_edge(latency_us)
        self.latency_counts[edge] = self.latency_counts.get(edge, 0) + 1


@dataclass(frozen=True, slots=True)
class First:
    """A unit's first exposure."""

    at_us: int
    covariate: float | None


@dataclass(slots=True)
class ArmTally:
    """What happened in one arm of one phase."""

    arm: Arm
    units: dict[bytes, Sums] = field(default_factory=dict)
    """By what stands for the unit."""
    firsts: dict[bytes, First] = field(default_factory=dict)
    """Of those units that were not known to be reported."""
    minutes: dict[int, Block] = field(default_factory=dict)
    """By minutes since 1970-01-01 UTC."""
    mismatches: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a report is made of."""

    arms: tuple[ArmTally, ...]
    dropped: int
    """Requests that found no room."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.arms and not self.dropped


class Place:
    """Where the requests of a unit are added up; good for as long as ``window`` is the tally's."""

    __slots__ = ("sums", "window")

    def __init__(self) -> None:
        """Be good for nothing yet."""
        self.sums = Sums()
        self.window = -1


class BlockPlace:
    """Where the requests of an arm's minute are added up; good for as long as ``window`` is the tally's."""

    __slots__ = ("block", "minute", "window")

    def __init__(self) -> None:
        """Be good for nothing yet."""
        self.block = Block()
        self.minute = -1
        self.window = -1


class Tally:
    """Adds requests up until somebody takes the sums away."""

    def __init__(self, *, most_sums: int, most_known_units: int) -> None:
        """Start with nothing.

        Args:
            most_sums: Sums that are kept, over all arms, units and minutes.
            most_known_units: Units that are remembered as reported.
        """
        self._most_sums = most_sums
        self._most_known_units = most_known_units
        self._known: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        self._arms: dict[bytes, ArmTally] = {}
        self._sums = 0
        self._dropped = 0
        self.window = 0
        """Grows whenever what was added is taken away."""
        self.dropped_total = 0
        """Requests that found no room, since the start."""
        self.firsts_total = 0
        """First exposures, since the start; a unit that was forgotten meanwhile is in it again."""
        self.forgotten_total = 0
        """Units that were pushed out of the memory of those reported, since the start."""

    def add_again(self, place: Place, block_place: BlockPlace, at_us: int, latency_us: int) -> bool:
        """Add one request that was answered, of a unit that has its place; False if :meth:`add` has to.

        Args:
            place: What :meth:`add` has filled for this unit.
            block_place: What it has filled for the unit's arm.
            at_us: When it was answered, microseconds since 1970-01-01 UTC.
            latency_us: How long that took.
        """
        window = self.window
        if place.window != window or block_place.window != window or block_place.minute != at_us // _MINUTE_US:
            return False
        sums, block = place.sums, block_place.block
        sums.requests += 1
        sums.latency_us += latency_us
        block.requests += 1
        block.latency_us += latency_us
        edge = latency_edge(latency_us)
        counts = block.latency_counts
        counts[edge] = counts.get(edge, 0) + 1
        return True

    def add(
        self,
        arm: Arm,
        context: bytes,
        unit: bytes,
        *,
        at_us: int,
        latency_us: int,
        failure: Failure | None,
        degraded: bool,
        covariate: Callable[[], float | None],
        places: tuple[Place, BlockPlace] | None = None,
    ) -> None:
        """Add one request of an exposed unit, or count it as dropped.

        Args:
            arm: Its arm.
            context: The same arm as ``Context.encoded()``, by which it is found.
            unit: What stands for the unit.
            at_us: When it was answered, microseconds since 1970-01-01 UTC.
            latency_us: How long that took.
            failure: Who failed, if the answer was an error of ours.
            degraded: Whether it was made without the online store.
            covariate: Gives the covariate's value; asked for at a first exposure alone.
            places: Filled for :meth:`add_again`.
        """
        of_arm = self._arms.get(context)
        minute = at_us // _MINUTE_US
        of_unit = of_arm.units.get(unit) if of_arm else None
        of_minute = of_arm.minutes.get(minute) if of_arm else None
        if of_arm is None or of_unit is None or of_minute is None:
            needed = (of_arm is None) + (of_unit is None) + (of_minute is None)
            if self._sums + needed > self._most_sums:
                self._drop()
                return
            self._sums += needed
            of_arm = of_arm or self._arms.setdefault(context, ArmTally(arm))
            of_unit = of_unit or of_arm.units.setdefault(unit, Sums())
            of_minute = of_minute or of_arm.minutes.setdefault(minute, Block())
        of_unit.add(latency_us, failure=failure, degraded=degraded)
        of_minute.add(latency_us, failure=failure, degraded=degraded)
        if self._is_first(context, unit):
            of_arm.firsts.setdefault(unit, First(at_us, covariate()))
        if places is not None:
            place, block_place = places
            place.sums, place.window = of_unit, self.window
            block_place.block, block_place.minute, block_place.window = of_minute, minute, self.window

    def add_mismatch(self, arm: Arm, context: bytes) -> None:
        """Add one request whose unit belongs to another arm than its route said."""
        of_arm = self._arms.get(context)
        if of_arm is None:
            if self._sums >= self._most_sums:
                self._drop()
                return
            self._sums += 1
            of_arm = self._arms[context] = ArmTally(arm)
        of_arm.mismatches += 1

    def take(self) -> Taken:
        """Return what was added since the last time, and start anew."""
        taken = Taken(tuple(self._arms.values()), self._dropped)
        self._arms, self._sums, self._dropped = {}, 0, 0
        self.window += 1
        return taken

    @property
    def waiting(self) -> Mapping[bytes, ArmTally]:
        """What was added since it was last taken, by ``Context.encoded()``."""
        return self._arms

    def _drop(self) -> None:
        self._dropped += 1
        self.dropped_total += 1

    def _is_first(self, context: bytes, unit: bytes) -> bool:
        key = (context, unit)
        try:
            self._known.move_to_end(key)
        except KeyError:
            self._known[key] = None
        else:
            return False
        self.firsts_total += 1
        if len(self._known) > self._most_known_units:
            self._known.popitem(last=False)
            self.forgotten_total += 1
        return True


@lru_cache(maxsize=1 << 12)
def latency_edge(latency_us: int) -> int:
    """Return what ``fairlead.experiment.tail.edge_of`` says of a latency, in a fiftieth of the time."""
    if latency_us <= 0:
        return LOWEST_EDGE
    return max(LOWEST_EDGE, min(HIGHEST_EDGE, math.floor(math.log2(latency_us / 1000) * EDGES_PER_DOUBLING)))
