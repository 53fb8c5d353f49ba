"""Whether servers, or gateways, have stopped telling. Pure.

Nobody can see from afar whether servers are dead or merely have nothing to answer. So what is long is learnt from the
experiment itself: a night without traffic is no failure once there was one, and on a clock that runs a thousand times
faster the time between two reports is hours.

A gateway's log is told of every minute, whether or not there is anything to tell. So nothing has to be learnt of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from fairlead_ledger.analysis.looks import Look

EXPOSURES = "exposures"
"""What the source is called in the evidence."""
GATEWAY = "gateway"
LEAST_US = 900_000_000
_TIMES_LONGER = 3


def is_silent(looks: Sequence[Look], heard_us: int | None, now_us: int) -> bool:
    """Say whether servers have been silent for much longer than ever before.

    Args:
        looks: Earlier ones, in order of time.
        heard_us: Of the last request that they told of; None if they never did, which is no silence.
        now_us: By the ledger's clock.
    """
    if heard_us is None:
        return False
    return now_us - heard_us > max(LEAST_US, _TIMES_LONGER * max(_ended_silences(looks), default=0))


def is_gateway_silent(heard_us: int | None, now_us: int) -> bool:
    """Say whether the gateways' logs are told of no more.

    Args:
        heard_us: When one was told of last; None if none ever was, which is no silence: on one machine nobody has to.
        now_us: By the ledger's clock.
    """
    return heard_us is not None and now_us - heard_us > LEAST_US


def _ended_silences(looks: Sequence[Look]) -> Iterator[int]:
    """Yield how long nothing was heard, of every time that something was heard afterwards."""
    for earlier, later in pairwise(looks):
        if earlier.heard_us is not None and later.heard_us is not None and later.heard_us > earlier.heard_us:
            yield later.at_us - earlier.heard_us
