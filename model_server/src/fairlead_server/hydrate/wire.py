"""Decodes what Feast keeps in a Redis hash straight into columns.

A cell is a serialized ``Value`` message with one field set, its bytes a tag and the value: five for a float, nine
for a double. Features that are stored alike lie side by side in a reply, so that a block of them is one run of
bytes, which numpy reads as it is. Everything else is looked at cell by cell; what is not in the shortest form of
protobuf's encoding goes to its parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from fairlead.contract import DType, Scalar
from fairlead.policy import FeatureState
from fairlead_server.hydrate.found import Odd, ViewRead
from fairlead_server.hydrate.plan import ARRAY_TYPES, FeaturePlan, ViewPlan
from fairlead_server.hydrate.states import FILLER, array_of, value_of

Reply = Sequence[bytes | None]
"""Fields of one hash in the order they were asked for; None for one that is not there, empty for a null."""

_INT32_TAG, _INT64_TAG, _STRING_TAG = 0x18, 0x20, 0x12
_BOOLS = {b"\x38\x01": True, b"\x38\x00": False}
_INT64_LIMIT, _INT32_LIMIT = 2**63, 2**31
_CONTINUED = 0x80
_SHORT = 2
_HUGE, _HUGE_NEGATIVE = 0x7F, 0xFF
"""Highest bytes of NaN, the infinities, and numbers near them (1e304 as doubles, 2e38 as floats)."""
BROKEN = b"\xff"
"""What no message is: stands for what could not be read."""
_KNOWN_TIMES = 4096
"""Event times that are remembered: rows that were materialized together share theirs."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How a type of fixed size is stored."""

    tag: int
    dtype: str
    """Of the value that follows the tag."""
    size: int
    """Bytes of a cell."""


STORED: Mapping[str, Stored] = {"Float32": Stored(0x35, "<f4", 5), "Float64": Stored(0x29, "<f8", 9)}
"""By the name of Feast's type."""

Kind = tuple[str, DType]
"""Feast's type, empty for one of no fixed size, and what it becomes."""


class Block:
    """Cells of a reply that are stored alike and become alike."""

    __slots__ = ("_cells", "_dtype", "_narrows", "_size", "_tag", "_target", "_width")

    def __init__(self, kind: Kind, places: Sequence[int]) -> None:
        """Compile a block.

        Args:
            kind: What the cells are; of a fixed size.
            places: Where they are in a reply.
        """
        name, dtype = kind
        stored = STORED[name]
        self._tag, self._size, self._dtype = stored.tag, stored.size, np.dtype(stored.dtype)
        self._target = ARRAY_TYPES[dtype]
        self._narrows = stored.dtype == "<f8" and dtype == "float32"
        self._width = len(places)
        first, last = places[0], places[-1]
        together = tuple(places) == tuple(range(first, last + 1))
        self._cells: Callable[[Reply], Iterable[Any]] = itemgetter(*([slice(first, last + 1)] if together else places))

    def decode(self, replies: Sequence[Reply]) -> list[NDArray[Any]] | None:
        """Return a column per place; None unless every cell has a value of the type, and none that might be a NaN."""
        rows, width, size = len(replies), self._width, self._size
        try:
            if rows == 1:
                raw = b"".join(self._cells(replies[0]))
            else:
                raw = b"".join(chain.from_iterable(map(self._cells, replies)))
        except TypeError:  # one of them is None
            return None
        if len(raw) != rows * width * size or raw[::size].count(self._tag) != rows * width:
            return None
        highest = raw[size - 1 :: size]
        if _HUGE in highest or _HUGE_NEGATIVE in highest:
            return None
        cells: NDArray[Any] = np.ndarray((width, rows), self._dtype, raw, 1, (size, width * size))
        if self._narrows:
            with np.errstate(over="ignore"):
                values = cells.astype(self._target, order="C")
        else:
            values = cells.astype(self._target, order="C")
        return list(values)


class Cell(NamedTuple):
    """Where a feature is."""

    feature: int
    """Place in the view's plan."""
    place: int
    """Place in a reply."""


class ViewDecoder:
    """Decodes one view's part of replies."""

    def __init__(self, view: ViewPlan, types: Mapping[str, str], start: int) -> None:
        """Compile a view.

        Args:
            view: What is hydrated.
            types: Names of Feast's types by feature, as registered.
            start: Where the view's part of a reply begins.
        """
        self.features = view.features
        """In the plan's order."""
        self._times: dict[bytes, int] = {}
        self._blocks: list[tuple[Block, Sequence[Cell]]] = []
        self.singles: list[Cell] = []
        """Features of no fixed size."""
        self.alike: dict[Kind, list[Cell]] = {}
        """Features of a fixed size by how they are stored and what they become."""
        order = sorted(range(len(view.features)), key=lambda i: _kind(view.features[i], types))
        place = start
        for kind, alike in groupby(order, key=lambda i: _kind(view.features[i], types)):
            features = tuple(alike)
            cells = [Cell(feature, at) for at, feature in enumerate(features, place)]
            if kind[0]:
                self.alike[kind] = cells
                self._blocks.append((Block(kind, [cell.place for cell in cells]), cells))
            else:
                self.singles += cells
            place += len(features)
        self.names = tuple(view.features[i].name for i in order)
        """Features in the order in which they must be asked for; the event time comes after them."""
        self.time = place
        """Place of the event time in a reply."""

    def decode(self, replies: Sequence[Reply]) -> ViewRead:
        """Decode the view of every reply."""
        event_us = [self.event_us(reply[self.time]) for reply in replies]
        if None in event_us:
            replies = [[BROKEN] * len(r) if us is None else r for r, us in zip(replies, event_us, strict=True)]
        known_us = [1 if us is None else us for us in event_us]
        there = None
        if 0 in known_us:
            there = [j for j, us in enumerate(known_us) if us]
            if not there:
                empty = [np.zeros(len(known_us), ARRAY_TYPES[feature.dtype]) for feature in self.features]
                return ViewRead(known_us, empty, [])
            replies = [replies[j] for j in there]
        odd: list[Odd] = []
        columns: list[NDArray[Any]] = [_NOTHING] * len(self.features)
        for block, cells in self._blocks:
            decoded = block.decode(replies) or [self._cells(*cell, replies, odd) for cell in cells]
            for cell, column in zip(cells, decoded, strict=True):
                columns[cell.feature] = column
        for cell in self.singles:
            columns[cell.feature] = self._cells(*cell, replies, odd)
        if there is not None:
            columns = [_spread(column, there, len(known_us)) for column in columns]
            odd = [Odd(feature, there[key], state) for feature, key, state in odd]
        return ViewRead(known_us, columns, odd)

    def _cells(self, i: int, place: int, replies: Sequence[Reply], odd: list[Odd]) -> NDArray[Any]:
        """Decode one column cell by cell."""
        feature = self.features[i]
        values: list[Scalar] = []
        for j, reply in enumerate(replies):
            value = _cell(feature, reply[place])
            if isinstance(value, FeatureState):
                odd.append(Odd(i, j, value))
                value = FILLER[feature.dtype]
            values.append(value)
        return array_of(feature, values, len(values))

    def event_us(self, raw: bytes | None) -> int | None:
        """Return microseconds since 1970; 0 if there is no row, None if what is there is no time."""
        if raw is None:
            return 0
        known = self._times.get(raw)
        if known is not None:
            return known
        try:
            time = Timestamp.FromString(raw)
        except DecodeError:
            return None
        if len(self._times) >= _KNOWN_TIMES:
            self._times.clear()
        event_us: int = time.seconds * 1_000_000 + time.nanos // 1_000
        self._times[raw] = event_us
        return event_us


_NOTHING: NDArray[Any] = np.zeros(0)


def _kind(feature: FeaturePlan, types: Mapping[str, str]) -> Kind:
    stored = types.get(feature.name, "")
    fixed = stored in STORED and feature.dtype in ("float32", "float64")
    return (stored if fixed else "", feature.dtype)


def _spread(column: NDArray[Any], there: Sequence[int], rows: int) -> NDArray[Any]:
    """Put a column of some rows where they are among all."""
    whole = np.zeros(rows, column.dtype)
    whole[there] = column
    return whole


def _cell(feature: FeaturePlan, raw: bytes | None) -> Scalar | FeatureState:
    if raw is None:
        return FeatureState.NEVER_WRITTEN
    if not raw:
        return FeatureState.NULL
    value = plain(feature.dtype, raw)
    if value is not None:
        return value
    try:
        return value_of(feature, Value.FromString(raw))
    except DecodeError:
        return FeatureState.STORE_ERROR


def plain(dtype: DType, raw: bytes) -> Scalar | None:
    """Decode what most cells of a type are; None for the others."""
    tag = raw[0]
    if dtype == "bool":
        return _BOOLS.get(raw)
    if tag == _STRING_TAG and dtype == "string":
        return _text(raw)
    if tag == _INT64_TAG and dtype == "int64":
        return _varint(raw, _INT64_LIMIT)
    if tag == _INT32_TAG and dtype in ("int32", "int64"):
        return _varint(raw, _INT32_LIMIT)
    return None


def _text(raw: bytes) -> str | None:
    """Decode a text whose length takes one byte; None if that is not all there is."""
    size = len(raw) - _SHORT
    if size < 0 or size >= _CONTINUED or raw[1] != size:
        return None
    try:
        return raw[_SHORT:].decode()
    except UnicodeDecodeError:
        return None


def _varint(raw: bytes, limit: int) -> int | None:
    """Decode an integer that fills all after the tag; None if there is anything else, or it is too large."""
    value = shift = 0
    last = len(raw) - 1
    for i in range(1, len(raw)):
        byte = raw[i]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < _CONTINUED:
            if i != last:
                return None
            signed = value - 2**64 if value >= _INT64_LIMIT else value
            return signed if -limit <= signed < limit else None
    return None
