"""From what was seen to what is said: shares within bounds, wrong answers, and when all was well again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.sick.load import Answer

SOON_S, LATE_S = 0.005, 0.025
"""Beyond the deadline: 99.9 % of requests are answered within the first, all within the second."""
_SHARE = 0.999
_WELL_S = 1.0
_STEADY_S = 0.1

Request = tuple[float, float, int]
"""When it was due, how long it took (negative: no answer), and an ``Answer``."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One scenario."""

    scenario: str
    requests: int
    within_soon: float
    """Share answered within the deadline and 5 ms."""
    worst_over_ms: float
    """The slowest answer, over the deadline; negative if all were within."""
    timer_p999_ms: float
    """Lateness of the timer that does nothing, 99.9 %."""
    timer_worst_ms: float
    cpu_share: float
    """Of one CPU, used by requests, their checks and the timer."""
    degraded: int
    degraded_share_in_fault: float
    wrong: int
    unmarked: int
    errors: int
    unanswered: int
    fault_s: float
    """How long the store was harmed."""
    well_after_s: float
    """From the end of that until a tenth of a second began in which no request was degraded."""
    degraded_later: int
    """Requests that were degraded after that."""
    met: bool
    missed: Sequence[str]
    """What was not met."""


def judge(
    scenario: str,
    requests: Sequence[Request],
    timer_late_s: Sequence[float],
    *,
    deadline_s: float,
    cpu_share: float,
    fault: tuple[float, float],
) -> Verdict:
    """Judge one scenario.

    Args:
        scenario: Its name.
        requests: All of them.
        timer_late_s: How late each tick of the timer was, seconds.
        deadline_s: Of each request, seconds.
        cpu_share: Of one CPU, used by the process.
        fault: Begin and end of the fault, on the clock of the requests.
    """
    began_s, ended_s = fault
    over = sorted(took - deadline_s for _, took, answer in requests if answer)
    counts = {answer: sum(1 for _, _, of in requests if of == answer) for answer in Answer}
    during = [answer for due, _, answer in requests if began_s <= due < ended_s]
    late = sorted(timer_late_s)
    degraded_due = sorted(due for due, _, answer in requests if answer == Answer.DEGRADED)
    well_s = _well_from(ended_s, degraded_due)
    within = sum(1 for one in over if one <= SOON_S) / len(requests)
    missed = [
        what
        for what, is_missed in (
            ("answered within deadline + 5 ms", within < _SHARE),
            ("answered within deadline + 25 ms", not over or over[-1] > LATE_S),
            ("unanswered", counts[Answer.NONE] > 0),
            ("wrong", counts[Answer.WRONG] > 0),
            ("unmarked", counts[Answer.UNMARKED] > 0),
            ("errors", counts[Answer.ERROR] > 0),
            ("well within 1 s", well_s - ended_s > _WELL_S),
        )
        if is_missed
    ]
    return Verdict(
        scenario=scenario,
        requests=len(requests),
        within_soon=within,
        worst_over_ms=1000 * over[-1] if over else 0.0,
        timer_p999_ms=1000 * late[int(len(late) * _SHARE)],
        timer_worst_ms=1000 * late[-1],
        cpu_share=cpu_share,
        degraded=counts[Answer.DEGRADED],
        degraded_share_in_fault=during.count(Answer.DEGRADED) / len(during) if during else 0.0,
        wrong=counts[Answer.WRONG],
        unmarked=counts[Answer.UNMARKED],
        errors=counts[Answer.ERROR],
        unanswered=counts[Answer.NONE],
        fault_s=ended_s - began_s,
        well_after_s=well_s - ended_s,
        degraded_later=sum(1 for due in degraded_due if due > well_s),
        met=not missed,
        missed=missed,
    )


def _well_from(ended_s: float, degraded_due: Sequence[float]) -> float:
    well_s = ended_s
    for due_s in degraded_due:
        if well_s <= due_s < well_s + _STEADY_S:
            well_s = due_s
    return well_s
