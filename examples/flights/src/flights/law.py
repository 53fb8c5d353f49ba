"""Who was to answer whom: the assignment law, phase by phase, held against every answer of a replay."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairlead.assignment import BUCKETS, Layout, assign
from fairlead.feedback.keys import KeyRing, deployment_of
from fairlead.feedback.token import Prediction, TokenError, read
from flights.replay import Answers
from flights.traffic import Asks


@dataclass(frozen=True, slots=True)
class Law:
    """How units were to be split."""

    salt: str
    control: str
    """Variant that answers requests without a unit."""
    phases: tuple[Layout, ...]
    """How the arms lie over the buckets, by planned step."""
    winner: str | None = None
    """Variant that was promoted."""
    root: KeyRing | None = None
    """What prediction tokens are read with; without it there are none, and all units are split as in the last phase."""


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """Who was exposed to what in one planned step."""

    number: int
    """From 0."""
    requests: dict[str, int]
    """Exposed ones, by arm."""
    units: dict[str, int]
    """Different units, by arm."""
    expected_units: dict[str, int]
    """Units of this step's exposed requests that the law gives to each arm."""
    share: dict[str, float]
    """Part of its units, 0 to 1."""
    target: dict[str, float]
    """Part that the step's weights ask for, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Obedience:
    """What the law says of a replay's answers."""

    mismatched: int
    """Answers by another variant than the law says, or whose token says something else than was."""
    exposed: int
    """Answers with a token: those that the experiment counts."""
    phases: tuple[PhaseReport, ...]
    """Empty if nothing was read from tokens."""


def obedience(asks: Asks, answers: Answers, law: Law) -> Obedience:
    """Hold every answer against the law of its phase.

    An answer's phase is what its token says, which is signed; the token itself is held against what was asked: unit,
    time and variant. An answer without a token is outside the experiment: before it began, while an arm was out of
    traffic, or after it was decided; then control, the winner or the arm of the last phase may have given it.
    """
    mismatched = exposed = 0
    seen: defaultdict[int, list[tuple[str, str, str]]] = defaultdict(list)
    ring = law.root.of(deployment_of(law.salt)) if law.root else None
    for index, variant in enumerate(answers.variant):
        if variant is None:
            continue
        unit, token = asks.units[index], answers.prediction_id[index]
        prediction = _read(token, law.root) if token and law.root else None
        if prediction is not None and unit and ring is not None:
            exposed += 1
            phase = prediction.context.phase
            wanted = assign(unit, law.salt, law.phases[phase]) if phase < len(law.phases) else ""
            seen[phase].append((unit, variant, wanted))
            context = prediction.context
            told = (context.salt, context.variant, prediction.time_us, prediction.unit)
            was = (law.salt, variant, int(asks.asked_us[index]), ring.unit(unit.encode(), law.salt))
            mismatched += variant != wanted or told != was
        else:
            mismatched += bool(token and law.root) or variant not in _outside(unit, law)
    return Obedience(mismatched, exposed, tuple(_phases(seen, law)) if law.root else ())


def _outside(unit: str | None, law: Law) -> set[str]:
    """Return who may answer a request that is not part of the experiment."""
    if law.root is None:
        return {assign(unit, law.salt, law.phases[-1]) if unit else law.control}
    everyone = {law.control, *([law.winner] if law.winner else [])}
    return everyone | ({assign(unit, law.salt, law.phases[-1])} if unit else set())


def _read(token: str, root: KeyRing) -> Prediction | None:
    try:
        return read(token, root)
    except TokenError:
        return None


def _phases(seen: dict[int, list[tuple[str, str, str]]], law: Law) -> Iterator[PhaseReport]:
    for number, layout in enumerate(law.phases):
        told: Sequence[tuple[str, str, str]] = seen.get(number, ())
        arms = sorted({piece.arm for piece in layout.slices} | {law.control})
        units = _by_arm({(unit, variant) for unit, variant, _ in told})
        total = max(sum(units.values()), 1)
        requests = Counter(variant for _, variant, _ in told)
        expected = _by_arm({(unit, wanted) for unit, _, wanted in told})
        yield PhaseReport(
            number=number,
            requests={arm: requests[arm] for arm in arms},
            units={arm: units[arm] for arm in arms},
            expected_units={arm: expected[arm] for arm in arms},
            share={arm: round(units[arm] / total, 4) for arm in arms},
            target={arm: _target(layout, arm) for arm in arms},
        )


def _by_arm(pairs: set[tuple[str, str]]) -> Counter[str]:
    return Counter(arm for _, arm in pairs)


def _target(layout: Layout, arm: str) -> float:
    return sum(piece.width for piece in layout.slices if piece.arm == arm) / BUCKETS
