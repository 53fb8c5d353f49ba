"""How long runs of one model take, by their size, as they are measured; and what size the event loop can bear.

The size of a run is its rows, or where requests are no rows, the elements of its inputs.
"""

from __future__ import annotations

from typing import Final

_PLACES: Final = 32
"""Powers of two of sizes that are told apart."""
_RISE: Final = 4.0
"""Factor by which one run may raise an estimate: a hiccup of the machine is no long model, three in a row are one."""
_WEIGHT_UP: Final = 0.5
_WEIGHT_DOWN: Final = 0.1
"""Of a run that was slower, or faster, than expected; so that the estimate is one that few runs exceed."""
_BACK: Final = 0.5
"""Share of the limit that sizes off the loop must fall below to come back."""
_STEEPEST: Final = 4.0
"""Factor by which twice the size may take longer, at most: attention is quadratic.

Smaller sizes, which go on being run, so bound what a size is taken for: one that a busy machine interrupted would
otherwise be taken for long, run no more on the loop, and never be found short again.
"""
_RUNS_PER_LOOK: Final = 256
"""After so many runs the line is drawn anew, whatever they were."""


class RunCost:
    """Estimates of one model's run time: a figure per power of two of sizes, moved by every run."""

    __slots__ = ("_estimates", "_limit_s", "_places_on_loop", "_runs", "units_on_loop")

    def __init__(self, limit_s: float) -> None:
        """Know nothing yet, and take every run to be short.

        Args:
            limit_s: Longest expected run that the event loop's thread bears.
        """
        self._limit_s = limit_s
        self._estimates = [0.0] * _PLACES
        self._places_on_loop = _PLACES - 1
        self._runs = 0
        self.units_on_loop = 2**_PLACES
        """Largest size whose run is expected to be short; 0 if there is none."""

    def expected_s(self, units: int) -> float:
        """Return how long a run of size ``units`` is expected to take; 0 if nothing was ever run."""
        return self._expected_at(min(units.bit_length(), _PLACES - 1))

    def add(self, units: int, run_s: float) -> None:
        """Learn from a run of size ``units`` that took ``run_s``."""
        place = min(units.bit_length(), _PLACES - 1)
        before_s = self._estimates[place]
        if not before_s:
            self._estimates[place] = run_s
            self._draw_line()
            return
        if run_s > before_s:
            found_s = min(before_s + _WEIGHT_UP * (run_s - before_s), _RISE * before_s)
        else:
            found_s = before_s + _WEIGHT_DOWN * (run_s - before_s)
        self._estimates[place] = found_s
        on_loop = place <= self._places_on_loop
        self._runs += 1
        crossed = found_s > self._limit_s if on_loop else found_s < _BACK * self._limit_s
        if crossed or self._runs % _RUNS_PER_LOOK == 0:
            self._draw_line()

    def _expected_at(self, place: int) -> float:
        known_s = self._estimates[place]
        fewer = next((at for at in range(place - 1, -1, -1) if self._estimates[at]), None)
        if known_s:
            return known_s if fewer is None else min(known_s, self._expected_at(fewer) * _STEEPEST ** (place - fewer))
        more = next((at for at in range(place + 1, _PLACES) if self._estimates[at]), None)
        # As if every unit cost the same; and no more than a larger run does.
        guesses = [] if fewer is None else [self._expected_at(fewer) * 2.0 ** (place - fewer)]
        guesses += [] if more is None else [self._estimates[more]]
        return min(guesses, default=0.0)

    def _draw_line(self) -> None:
        places = 0
        while places < _PLACES - 1:
            limit_s = self._limit_s if places + 1 <= self._places_on_loop else _BACK * self._limit_s
            if self._expected_at(places + 1) > limit_s:
                break
            places += 1
        self._places_on_loop = places
        self.units_on_loop = 2**places - 1
