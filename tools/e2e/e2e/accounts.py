"""Load, accounted for: sent, answered, counted at the servers, and whether each unit was answered by its arm. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from e2e.errors import see
from e2e.story import Seen
from fairlead import Layout, bucket_of
from support.gateway_load import Sample

_LAG_S = 5.0
"""How long after the first answer by a route answers by the one before are taken: a gateway has several workers."""
_SHOWN = 5
_NOBODY = "no healthy upstream"
"""What the gateway says where it knows of no pod."""


@dataclass(frozen=True, slots=True)
class Split:
    """How units are split, from when it was asked for to the first answer by the next."""

    layout: Layout
    since_s: float
    """By ``time.monotonic``."""
    until_s: float = float("inf")

    def may_answer(self, sample: Sample) -> bool:
        """Return whether a request of then may have been answered by it."""
        return self.since_s <= sample.ended_s and sample.sent_s <= self.until_s + _LAG_S


@dataclass(slots=True)
class Life:
    """Counters of one container, from its start to its end: they only grow, and begin at 0 with each process."""

    first: float
    last: float
    earlier: float = 0.0
    """What processes before the present one had counted."""

    def take(self, value: float) -> None:
        """Take in what the counter shows now."""
        if value < self.last:
            self.earlier += self.last
        self.last = value

    @property
    def gained(self) -> float:
        """How much was counted."""
        return self.earlier + self.last - self.first


@dataclass(slots=True)
class Tally:
    """One counter summed over pods that come and go."""

    lives: dict[str, Life] = field(default_factory=dict)
    """By the pod's uid."""

    def take(self, pod: str, value: float, *, new: bool) -> None:
        """Take in what a pod shows; ``new`` pods have counted nothing before."""
        life = self.lives.get(pod)
        if life is None:
            self.lives[pod] = Life(0.0 if new else value, value)
        else:
            life.take(value)

    @property
    def gained(self) -> int:
        """How much was counted by all of them."""
        return round(sum(life.gained for life in self.lives.values()))


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of the requests of a load."""

    samples: Sequence[Sample]
    misassigned: Sequence[Sample]
    counted: int
    """Answered with success, as the servers count."""
    failed: int
    """Answered otherwise, as the servers count."""
    mismatched: int
    """Requests whose unit belongs to another arm by the experiment header that they came with, as the servers count."""
    retried: int
    """Attempts that the gateway made anew, as it counts."""

    @property
    def answered(self) -> int:
        """Requests that were answered as they should."""
        return len(self.samples) - len(self.lost)

    @property
    def lost(self) -> list[Sample]:
        """Requests that were not."""
        return [sample for sample in self.samples if sample.problem]

    @property
    def gap_s(self) -> float:
        """Seconds from the first request that was lost to the last; 0 if none was."""
        return max(one.ended_s for one in self.lost) - min(one.sent_s for one in self.lost) if self.lost else 0.0

    def check(self, *, gap_s: float = 0.0) -> None:
        """Raise ``NotSeen`` unless every request was answered once, by the arm of its unit.

        Args:
            gap_s: For how long the gateway may have known of no pod; what was lost for another reason fails, too.
        """
        see(self.samples, "nothing was sent")
        excused = self.gap_s <= gap_s and all(_NOBODY in sample.problem for sample in self.lost)
        see(not self.lost or excused, f"{len(self.lost)} of {len(self.samples)} lost: {_shown(self.lost)}")
        wrong = f"{len(self.misassigned)} of {len(self.samples)} misassigned: {_shown(self.misassigned)}"
        see(not self.misassigned, wrong)
        see(not self.mismatched, f"servers count {self.mismatched} requests of another arm's units")
        see(self.failed <= self.retried, f"servers count {self.failed} failures, the gateway {self.retried} retries")
        extra = self.counted - self.answered
        see(
            0 <= extra <= self.retried,
            f"answered {self.answered}, servers count {self.counted}; {self.retried} retries",
        )

    def seen(self, sentence: str) -> Seen:
        """Return the account behind what else a step has seen."""
        took_s = sorted(sample.ended_s - sample.sent_s for sample in self.samples)
        p99_ms = took_s[max(0, len(took_s) * 99 // 100 - 1)] * 1000
        equal = "=" if not self.lost else ">"
        counts = f"{len(self.samples)} sent {equal} {self.answered} answered = {self.counted} counted"
        retried = f" ({self.retried} retried)" if self.retried else ""
        figures = {
            "sent": len(self.samples),
            "answered": self.answered,
            "counted": self.counted,
            "lost": len(self.lost),
            "misassigned": len(self.misassigned),
            "retried": self.retried,
            "p99_ms": round(p99_ms, 1),
            "slowest_ms": round(took_s[-1] * 1000, 1),
        }
        lost = f"{len(self.lost)} lost in {self.gap_s:.1f} s without a pod" if self.lost else "0 lost"
        text = f"{sentence}; {counts}{retried}, {lost}, 0 misassigned, slowest {took_s[-1] * 1000:.0f} ms"
        return Seen(text, figures)


def misassigned(samples: Iterable[Sample], splits: Sequence[Split], salt: str) -> list[Sample]:
    """Return the answered requests that came from an arm which no split of their time gives their unit."""
    return [sample for sample in samples if not sample.problem and sample.variant not in _arms(sample, splits, salt)]


def wrong_arms(answers: Mapping[str, str], expected: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the units that were not answered by their arm: what answered, and what should have."""
    return {unit: (answers.get(unit, ""), arm) for unit, arm in expected.items() if answers.get(unit) != arm}


def _arms(sample: Sample, splits: Iterable[Split], salt: str) -> set[str]:
    bucket = bucket_of(sample.unit, salt)
    return {split.layout.arm_at(bucket) for split in splits if split.may_answer(sample)}


def _shown(samples: Sequence[Sample]) -> str:
    told = [f"{one.protocol} {one.unit} {one.variant} {one.problem}".strip() for one in samples[:_SHOWN]]
    return "; ".join(" ".join(text.split())[:200] for text in told)
