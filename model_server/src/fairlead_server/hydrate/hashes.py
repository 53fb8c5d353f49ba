"""Decodes replies of one hash for all its views at once, where every value is there; view by view where one is not.

What is stored alike in several views is one block: thirty features of three views are read by numpy in two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

from numpy.typing import NDArray

from fairlead_server.hydrate.found import ViewRead
from fairlead_server.hydrate.plan import FLOATS, FeaturePlan
from fairlead_server.hydrate.states import array_of
from fairlead_server.hydrate.wire import Block, Kind, Reply, ViewDecoder, plain


class HashDecoder:
    """Decodes all views of a hash."""

    def __init__(self, views: Sequence[ViewDecoder]) -> None:
        """Compile what the views have in common."""
        self._views = views
        self._times = [(view, view.time) for view in views]
        starts = [sum(len(view.features) for view in views[:i]) for i in range(len(views) + 1)]
        self._parts = [slice(start, end) for start, end in pairwise(starts)]
        alike: dict[Kind, list[tuple[int, int]]] = {}
        singles: list[tuple[int, int]] = []
        for view, start in zip(views, starts, strict=False):
            for kind, cells in view.alike.items():
                alike.setdefault(kind, []).extend((cell.place, start + cell.feature) for cell in cells)
            singles += [(cell.place, start + cell.feature) for cell in view.singles]
        features = [feature for view in views for feature in view.features]
        self._blocks = [Block(kind, [place for place, _ in cells]) for kind, cells in alike.items()]
        self._singles: list[tuple[FeaturePlan, int]] = [(features[i], place) for place, i in singles]
        decoded = [i for cells in alike.values() for _, i in cells] + [i for _, i in singles]
        order = sorted(range(len(decoded)), key=lambda at: decoded[at])
        # What is stored as a number of another kind than it becomes is for the parser, cell by cell.
        self._may_be_whole = not any(feature.dtype in FLOATS for feature, _ in self._singles)
        self._in_order = itemgetter(slice(None)) if order == list(range(len(order))) else itemgetter(*order)

    def decode(self, replies: Sequence[Reply]) -> list[ViewRead]:
        """Decode every view of every reply."""
        whole = self._whole(replies) if self._may_be_whole else None
        return whole or [view.decode(replies) for view in self._views]

    def _whole(self, replies: Sequence[Reply]) -> list[ViewRead] | None:
        """Decode replies in which everything is there; None for others."""
        times: list[Sequence[int]] = []
        for view, place in self._times:
            event_us = [view.event_us(reply[place]) for reply in replies]
            if not all(event_us):
                return None
            times.append(event_us)  # type: ignore[arg-type]  # none of them is None
        columns: list[NDArray[Any]] = []
        for block in self._blocks:
            decoded = block.decode(replies)
            if decoded is None:
                return None
            columns += decoded
        for feature, place in self._singles:
            values = [plain(feature.dtype, raw) if (raw := reply[place]) else None for reply in replies]
            if None in values:
                return None
            columns.append(array_of(feature, values, len(values)))
        in_order = self._in_order(columns)
        return [ViewRead(of, in_order[part], ()) for of, part in zip(times, self._parts, strict=True)]
