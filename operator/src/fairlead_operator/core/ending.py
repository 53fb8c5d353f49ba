"""Experiments that end without a decision of the rollout: by hand, as under Manual. Pure."""

from __future__ import annotations

from dataclasses import replace

from fairlead_operator.core.desired import Desired
from fairlead_operator.core.record import MOST_UNTOLD, Decision, Record, Untold


def ended(desired: Desired, record: Record, now_s: float) -> Record:
    """Return the record with the end of an experiment to be told, if the spec has gone on from one.

    The ledger had its design, and no run has decided it: its block was removed or has another id. What is decided in a
    run is told with that.

    Args:
        desired: What is asked for.
        record: After this look at everything else.
        now_s: Unix time, seconds.
    """
    known = record.registered
    if known is None or (desired.design is not None and desired.salt == known.salt):
        return record
    if record.run is not None and record.run.id == known.salt:
        return record
    over = replace(record, registered=None)
    if known.salt in record.decided or any(one.salt == known.salt for one in record.untold):
        return over
    told = Untold(known.salt, Decision("End", "Superseded", now_s))
    return replace(over, untold=(told, *record.untold)[:MOST_UNTOLD])
