"""Rows that share a run: packed bytes on the way in, one set of arrays on the way out, each request's part of them.

Making an array costs half a microsecond, writing one as JSON as much; sixteen requests of one row each pay that
once here, not sixteen times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

Array = NDArray[np.generic]
_FLOAT32: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of packed requests lie in their bytes; two requests of one layout can be joined."""

    name: str
    """The graph's only input."""
    dtype: np.dtype[np.generic]
    tail: tuple[int, ...]
    """The input's dimensions after the first."""

    @property
    def names(self) -> tuple[str, ...]:
        """The input's name."""
        return (self.name,)

    def columns(self, raw: bytes) -> dict[str, Array]:
        """Return the rows in ``raw``."""
        return {self.name: np.frombuffer(raw, self.dtype).reshape(-1, *self.tail)}


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How the rows of packed requests lie in their bytes if the graph has an input for each column."""

    dtype: np.dtype[np.void]
    """A row: fields by input, without gaps."""

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' names."""
        return self.dtype.names or ()

    def columns(self, raw: bytes) -> dict[str, Array]:
        """Return the columns of the rows in ``raw``, each of shape [rows]."""
        rows = np.frombuffer(raw, self.dtype)
        return {name: np.ascontiguousarray(rows[name]) for name in self.names}


class Packed(Mapping[str, Array]):
    """One request's rows as bytes; made arrays when somebody asks for them."""

    __slots__ = ("_columns", "layout", "raw")

    def __init__(self, layout: Layout | RowLayout, raw: bytes) -> None:
        """Hold ``raw``, little-endian elements of whole rows."""
        self.layout = layout
        self.raw = raw
        self._columns: dict[str, Array] | None = None

    def __getitem__(self, name: str) -> Array:
        """Return the input of that name."""
        found = self._columns
        if found is None:
            found = self._columns = self.layout.columns(self.raw)
        return found[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the inputs' names."""
        return iter(self.layout.names)

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.layout.names)


class Joint:
    """What one run gave, for all who shared it."""

    __slots__ = ("_bodies", "_floats", "_raw", "_texts", "arrays", "mark_s", "rows", "tails")

    def __init__(self, arrays: Mapping[str, Array], rows: int) -> None:
        """Share ``arrays``, outputs by name, of ``rows`` rows each."""
        self.arrays = arrays
        self.rows = rows
        self.tails = tuple([array.shape[1:] for array in arrays.values()])
        """Dimensions of the outputs after the first."""
        self.mark_s = time.perf_counter()
        """When the run ended, or the last of its answers was written."""
        self._texts: dict[str, list[bytes]] = {}
        self._bodies: dict[bytes, list[bytes]] = {}
        self._raw: dict[str, bytes] = {}
        self._floats: dict[str, bytes] = {}

    def texts(self, name: str) -> list[bytes]:
        """Return a numeric output as JSON by row, each row's elements separated by commas, without brackets."""
        found = self._texts.get(name)
        if found is None:
            array = np.ascontiguousarray(self.arrays[name]).reshape(self.rows, -1)
            written = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
            found = self._texts[name] = written[2:-2].split(b"],[")
        return found

    def bodies(self, template: bytes, names: Sequence[str]) -> list[bytes]:
        """Return ``template`` for each row, its blanks filled with outputs' texts."""
        found = self._bodies.get(template)
        if found is None:
            texts = [self.texts(name) for name in names]
            found = self._bodies[template] = [template % row for row in zip(*texts, strict=True)]
        return found

    def raw(self, name: str) -> bytes:
        """Return a numeric output as little-endian bytes."""
        found = self._raw.get(name)
        if found is None:
            array = self.arrays[name]
            found = self._raw[name] = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return found

    def floats(self, name: str) -> bytes:
        """Return a numeric output as little-endian float32, as near as they come."""
        found = self._floats.get(name)
        if found is None:
            found = self._floats[name] = float32_of(self.arrays[name]).tobytes()
        return found


class Part(Mapping[str, Array]):
    """One request's rows of what a run gave: outputs by name."""

    __slots__ = ("joint", "start", "stop")

    def __init__(self, joint: Joint, start: int, stop: int) -> None:
        """Take rows from ``start`` to before ``stop``."""
        self.joint = joint
        self.start = start
        self.stop = stop

    def __getitem__(self, name: str) -> Array:
        """Return the rows of one output."""
        return self.joint.arrays[name][self.start : self.stop]

    def __iter__(self) -> Iterator[str]:
        """Yield the outputs' names."""
        return iter(self.joint.arrays)

    def __len__(self) -> int:
        """Return the number of outputs."""
        return len(self.joint.arrays)

    def text(self, name: str) -> bytes:
        """Return an output's elements as JSON, separated by commas, without brackets."""
        texts = self.joint.texts(name)
        return texts[self.start] if self.stop - self.start == 1 else b",".join(texts[self.start : self.stop])

    def raw(self, name: str) -> bytes:
        """Return an output as little-endian bytes."""
        raw = self.joint.raw(name)
        row_bytes = len(raw) // self.joint.rows
        return raw[self.start * row_bytes : self.stop * row_bytes]

    def floats(self, name: str) -> bytes:
        """Return an output as little-endian float32, as near as they come."""
        floats = self.joint.floats(name)
        row_bytes = len(floats) // self.joint.rows
        return floats[self.start * row_bytes : self.stop * row_bytes]


def float32_of(array: Array) -> NDArray[np.float32]:
    """Return an array as little-endian float32; what is beyond their range becomes infinite."""
    if array.dtype == _FLOAT32:
        return array  # type: ignore[return-value]  # numpy's types do not know it by its dtype
    with np.errstate(over="ignore"):
        return array.astype(_FLOAT32)


def joined(parts: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    """Return the rows of all parts, one after the other.

    Raises:
        ValueError: They differ in dimensions that they must share.
    """
    first = parts[0]
    if type(first) is Packed:
        layout = first.layout
        raws = [part.raw for part in parts if type(part) is Packed and part.layout is layout]
        if len(raws) == len(parts):
            return layout.columns(b"".join(raws))
    return {name: np.concatenate([part[name] for part in parts]) for name in first}
