"""Cuts one request out of several that were read together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fairlead.policy import FeatureState
from fairlead_server.errors import RequestError


class Part:
    """One request's rows among those that were read together."""

    __slots__ = ("_places", "_slice", "keys")

    def __init__(self, start: int, rows: int, places: Sequence[int] | None) -> None:
        """Cut rows.

        Args:
            start: Place of the first row among all.
            rows: How many they are.
            places: Of all rows, their keys' places in the lookup; None where that is the row's own place.
        """
        if places is not None and rows == 1:  # as most requests are, and a slice is the cheaper way to cut
            start, places = places[start], None
        self._slice = slice(start, start + rows)
        self._places = None if places is None else places[self._slice]
        self.keys: Sequence[int] = range(start, start + rows) if self._places is None else self._places
        """Places of its keys in the lookup."""

    def columns(self, columns: Sequence[NDArray[np.generic]]) -> Iterable[NDArray[np.generic]]:
        """Return columns, shape [rows]."""
        at = self._slice if self._places is None else self._places
        return [column[at] for column in columns]

    def states(self, states: Sequence[Sequence[FeatureState]]) -> list[tuple[FeatureState, ...]]:
        """Return states by feature and row; features found alike share one tuple."""
        known: dict[int, tuple[FeatureState, ...]] = {}
        for of_feature in states:
            if id(of_feature) not in known:
                known[id(of_feature)] = tuple(
                    of_feature[self._slice] if self._places is None else [of_feature[j] for j in self._places]
                )
        return [known[id(of_feature)] for of_feature in states]

    def first_error(self, errors: Mapping[int, RequestError]) -> RequestError | None:
        """Return why the request is refused, if it is: the error of its first row that has one."""
        if not errors:
            return None
        return next((errors[key] for key in self.keys if key in errors), None)
