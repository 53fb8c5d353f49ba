"""How a gateway's reports are told from servers': by the name of whoever tells.

A gateway's log is told of in reports of its own, one source per experiment and life of a gateway's process. Where
there is nothing to tell an empty report says that the log is read: a source that has once told and tells no more is
silent.
"""

from __future__ import annotations

import hashlib

HEARTBEAT = 0
"""Sequence of the empty report; told again and again it counts nothing."""

_EXPERIMENT_DIGITS, _INSTANCE_DIGITS = 16, 32


def gateway_prefix(salt: str) -> str:
    """Return what the names of all gateways begin with that tell of an experiment."""
    return f"gateway.{_digest(salt, _EXPERIMENT_DIGITS)}."


def gateway_name(salt: str, instance: str) -> str:
    """Return the name under which a gateway tells of an experiment.

    Args:
        salt: Of the experiment.
        instance: Names one life of one gateway's process, anew with each start.
    """
    return gateway_prefix(salt) + _digest(instance, _INSTANCE_DIGITS)


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
