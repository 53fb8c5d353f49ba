"""Flights as requests: when each was asked about, by which unit, with which body, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

NEVER_US = np.iinfo(np.int64).max
"""Landing time of a flight that never landed."""

UNKNOWN_TAIL = "UNKNOWN"
"""What an application sends as the key of a plane that has no tail number yet; no plane is called that."""


@dataclass(frozen=True, slots=True)
class Asks:
    """Requests in the order they are asked, one column each; n is their number."""

    flight_id: NDArray[np.int64]
    """Row of the flight in the source, shape [n]."""
    asked_us: NDArray[np.int64]
    """When it is asked, microseconds since 1970-01-01 UTC, ascending, shape [n]."""
    landed_us: NDArray[np.int64]
    """When the answer's truth is known, likewise; ``NEVER_US`` if never. Shape [n]."""
    late: NDArray[np.int8]
    """Whether it was 15 minutes late or more, 0 or 1; meaningless for flights that never land. Shape [n]."""
    units: tuple[str | None, ...]
    """Tail number; None where the flight has none."""
    bodies: tuple[bytes, ...]
    """V1 predict requests, JSON."""

    def __len__(self) -> int:
        return len(self.units)


def asks_of(flights: pd.DataFrame) -> Asks:
    """Turn flights into requests that bring entity keys and what only the request knows.

    Args:
        flights: Rows with ``flight_id``, ``asked_at``, ``landed_at`` (UTC), ``late``, ``tailnum``, ``origin``,
            ``dest``, ``carrier``, ``hour``, ``weekday`` and ``distance``, as ``flights.raw.load_flights()`` gives them.
    """
    rows = flights.sort_values(["asked_at", "flight_id"], kind="stable")
    landed = rows["landed_at"]
    return Asks(
        flight_id=rows["flight_id"].to_numpy(np.int64),
        asked_us=_microseconds(rows["asked_at"]),
        landed_us=np.where(landed.isna(), NEVER_US, _microseconds(landed.fillna(rows["asked_at"]))),
        late=rows["late"].fillna(0).to_numpy(np.int8),
        units=tuple(tail if isinstance(tail, str) and tail else None for tail in rows["tailnum"]),
        bodies=tuple(_bodies(rows)),
    )


def _bodies(rows: pd.DataFrame) -> Iterator[bytes]:
    columns = ("tailnum", "origin", "dest", "carrier", "hour", "weekday", "distance")
    for tail, origin, dest, carrier, hour, weekday, distance in zip(*(rows[c] for c in columns), strict=True):
        instance = {
            "tailnum": tail if isinstance(tail, str) and tail else UNKNOWN_TAIL,
            "origin": origin,
            "dest": dest,
            "carrier": carrier,
            "hour": int(hour),
            "weekday": int(weekday),
            "distance": float(distance),
        }
        yield orjson.dumps({"instances": [instance], "parameters": {"report_states": True}})


def _microseconds(moments: pd.Series[pd.Timestamp]) -> NDArray[np.int64]:
    return moments.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)


@dataclass(frozen=True, slots=True)
class Tick:
    """One moment of simulated time, and the requests asked at it."""

    time_us: int
    """Simulated time, microseconds since 1970-01-01 UTC."""
    first: int
    """Index of its first request."""
    last: int
    """One past its last request."""
    due_s: float
    """When the first request is due, real seconds after the start."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How simulated moments are laid over real time: fixed before the first request, so that the load is open-loop."""

    rate_per_s: float
    """Requests per second within a tick."""
    gap_s: float
    """Real seconds before each tick's first request, in which features are published."""

    def due_s(self, tick: Tick, index: int) -> float:
        """Return when request ``index`` of ``tick`` is due, real seconds after the start."""
        return tick.due_s + (index - tick.first) / self.rate_per_s

    def ticks(self, asked_us: NDArray[np.int64]) -> Iterator[Tick]:
        """Lay out the moments at which something is asked.

        Args:
            asked_us: Ascending simulated times of the requests, microseconds, shape [n].
        """
        times, firsts = np.unique(asked_us, return_index=True)
        lasts = np.append(firsts[1:], len(asked_us))
        due = self.gap_s
        for time_us, first, last in zip(times.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
            yield Tick(time_us, first, last, due)
            due += self.gap_s + (last - first) / self.rate_per_s

    def mean_per_s(self, asked_us: NDArray[np.int64]) -> float:
        """Return requests per real second over the whole replay, gaps included.

        Args:
            asked_us: Ascending simulated times of the requests, microseconds, shape [n].
        """
        moments = len(np.unique(asked_us))
        return len(asked_us) / (moments * self.gap_s + len(asked_us) / self.rate_per_s) if moments else 0.0
