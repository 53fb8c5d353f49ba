"""A run as a story: steps in chapters, each with its name, its time and what was seen. Knows nothing of clusters."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from e2e.errors import E2eError, Usage

_PROGRESS_S = 5.0
"""How often a step that waits says so."""
_NAME_WIDTH = 14

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step has seen."""

    sentence: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


class Outcome(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One thing that is done and looked at; ``S`` is what all steps share."""

    name: str
    title: str
    run: Callable[[S], Seen]
    needs: tuple[str, ...] = ()
    """Steps without which it makes no sense; those that were left out on purpose count as done."""
    always: bool = False
    """Whether it is done even if it was not asked for: others stand on it. It does nothing the second time."""


Chapter = tuple[Step[S], ...]
"""Steps that run side by side, because they do not disturb each other."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a step."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    seen: Seen = Seen("")
    problem: str = ""
    """Why it failed or was not run."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        told = {"name": self.name, "outcome": self.outcome.value, "seconds": round(self.seconds, 1)}
        return told | {"seen": self.seen.sentence, "figures": dict(self.seen.figures), "problem": self.problem}


def names_of(chapters: Iterable[Chapter[S]]) -> list[str]:
    """Return the names of all steps, in order."""
    return [step.name for chapter in chapters for step in chapter]


def chosen(
    chapters: Sequence[Chapter[S]], *, start: str | None = None, only: Collection[str] = ()
) -> tuple[Chapter[S], ...]:
    """Return the steps that are asked for, and those that are always done.

    Args:
        chapters: All of them.
        start: The first one; steps of the same chapter are taken, too.
        only: These alone; all if empty.

    Raises:
        Usage: There is no such step.
    """
    names = names_of(chapters)
    unknown = [name for name in (*([start] if start else []), *only) if name not in names]
    if unknown:
        raise Usage(f"{', '.join(unknown)}: no such step; there are {', '.join(names)}")
    first = next((n for n, chapter in enumerate(chapters) if start in names_of([chapter])), 0)

    def wanted(number: int, step: Step[S]) -> bool:
        return step.always or (number >= first and (not only or step.name in only))

    kept = (tuple(step for step in chapter if wanted(n, step)) for n, chapter in enumerate(chapters))
    return tuple(chapter for chapter in kept if chapter)


class Teller:
    """Prints the story as it goes; for several threads."""

    def __init__(self, *, total: int, write: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        """Begin.

        Args:
            total: How many steps there will be.
            write: Takes a line.
            now: A clock that never goes back, seconds.
        """
        self._total = total
        self._write = write
        self._now = now
        self._since_s = now()
        self._ended = 0
        self._last: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._now() - self._since_s

    def begins(self, title: str) -> None:
        """Tell what begins."""
        with self._lock:
            self._write(f"{self.seconds:6.1f}s  … {title}")

    def waits(self, name: str, for_what: str) -> None:
        """Tell what a step waits for, from time to time and only what is new."""
        with self._lock:
            at_s, told = self._last.get(name, (self._since_s, ""))
            if self._now() - at_s >= _PROGRESS_S and for_what != told:
                self._last[name] = (self._now(), for_what)
                self._write(f"{self.seconds:6.1f}s      {name}: {for_what}")

    def ends(self, ended: Ended) -> None:
        """Tell how a step ended."""
        with self._lock:
            self._ended += 1
            self._last.pop(ended.name, None)
            self._write(line_of(ended, self._ended, self._total, self.seconds))


def line_of(ended: Ended, number: int, total: int, at_s: float) -> str:
    """Return the end of a step as the story tells it."""
    count = f"{number:>{len(str(total))}}/{total}"
    start = f"{at_s:6.1f}s {count}  {ended.name:<{_NAME_WIDTH}}"
    if ended.outcome is Outcome.PASSED:
        return f"{start} {ended.seconds:6.1f} s  {ended.seen.sentence}"
    margin = "\n" + " " * 10
    problem = margin.join(ended.problem.strip().splitlines())
    return f"{start} {ended.seconds:6.1f} s  {ended.outcome.value.upper()}: {problem}"


def summary(ends: Collection[Ended], seconds: float) -> str:
    """Return the last line."""
    counts = {outcome: sum(end.outcome is outcome for end in ends) for outcome in Outcome}
    left = f", {counts[Outcome.NOT_RUN]} not run" if counts[Outcome.NOT_RUN] else ""
    return f"{counts[Outcome.PASSED]} passed, {counts[Outcome.FAILED]} failed{left} in {seconds:.1f} s"


def play(chapters: Sequence[Chapter[S]], scene: S, teller: Teller, before: Iterable[Ended] = ()) -> list[Ended]:
    """Run chapter after chapter, and return how each step ended, those ``before`` first.

    A step that needs one that has failed is not run; all others are.
    """
    ends = list(before)
    for chapter in chapters:
        bad = {end.name for end in ends if end.outcome is not Outcome.PASSED}
        blocked = [step for step in chapter if bad.intersection(step.needs)]
        for step in blocked:
            why = f"needs {', '.join(name for name in step.needs if name in bad)}"
            ends.append(Ended(step.name, Outcome.NOT_RUN, problem=why))
            teller.ends(ends[-1])
        ends += _side_by_side([step for step in chapter if step not in blocked], scene, teller)
    return ends


def write_result(path: Path, ends: Iterable[Ended], **about: Any) -> None:
    """Write what happened as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "steps": [end.document() for end in ends]}, indent=2) + "\n")


def _side_by_side(steps: Sequence[Step[S]], scene: S, teller: Teller) -> list[Ended]:
    if len(steps) < 2:  # noqa: PLR2004 -- nothing is beside it; in this thread, Ctrl-C ends it at once
        return [_one(step, scene, teller) for step in steps]
    pool = ThreadPoolExecutor(len(steps))
    try:
        return list(pool.map(lambda step: _one(step, scene, teller), steps))
    finally:  # all have ended, unless this was interrupted: nothing waits for them then
        pool.shutdown(wait=False, cancel_futures=True)


def _one(step: Step[S], scene: S, teller: Teller) -> Ended:
    teller.begins(f"{step.name}: {step.title}")
    begun_s = time.monotonic()
    try:
        ended = Ended(step.name, Outcome.PASSED, seen=step.run(scene))
    except (E2eError, AssertionError, TimeoutError) as error:
        ended = Ended(step.name, Outcome.FAILED, problem=str(error) or traceback.format_exc())
    except Exception:  # noqa: BLE001 -- the loop's top: whatever a step fails by is told, and the story goes on
        ended = Ended(step.name, Outcome.FAILED, problem=traceback.format_exc())
    ended = replace(ended, seconds=time.monotonic() - begun_s)
    teller.ends(ended)
    return ended
