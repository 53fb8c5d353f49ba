"""What the library tells of itself every few seconds. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_UP = "UP"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What counts of it."""

    is_connected: bool
    """Whether a broker is connected."""
    lags: Mapping[tuple[str, int], int]
    """Messages that are not done with, by topic and partition, of the partitions that this process reads."""


def statistics(text: str) -> Statistics:
    """Read librdkafka's statistics."""
    told = json.loads(text)
    brokers = told.get("brokers", {}).values()
    lags = {
        (name, int(number)): lag
        for name, topic in told.get("topics", {}).items()
        for number, partition in topic.get("partitions", {}).items()
        if partition.get("fetch_state") not in (None, "none") and (lag := _lag(partition)) is not None
    }
    return Statistics(any(broker.get("state") == _UP for broker in brokers), lags)


def _lag(partition: Mapping[str, Any]) -> int | None:
    """Return how many messages are not committed; None where it is not known yet."""
    end, start = partition.get("ls_offset", -1), partition.get("lo_offset", -1)
    done = partition.get("committed_offset", -1)
    if end < 0 or (done < 0 and start < 0):
        return None
    return max(0, int(end) - int(max(done, start)))
