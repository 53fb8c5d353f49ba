"""Random rows of several views, how these are defined, and what is promised of rows; see ``support.conformance``."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Bool, Float32, Float64, Int32, Int64, String
from hypothesis import strategies as st

from fairlead.policy import FeatureState
from support import awaited_redis

NOON = datetime(2013, 11, 1, 12, tzinfo=UTC)
TTL = timedelta(hours=3)

TYPES: Mapping[str, Any] = {"f": Float32, "d": Float64, "l": Int64, "i": Int32, "b": Bool, "s": String}
ARROW: Mapping[str, pa.DataType] = {
    "f": pa.float32(),
    "d": pa.float64(),
    "l": pa.int64(),
    "i": pa.int32(),
    "b": pa.bool_(),
    "s": pa.string(),
}
MAKE: Mapping[str, Callable[[Any], Value]] = {
    "f": lambda x: Value(float_val=x),
    "d": lambda x: Value(double_val=x),
    "l": lambda x: Value(int64_val=x),
    "i": lambda x: Value(int32_val=x),
    "b": lambda x: Value(bool_val=x),
    "s": lambda x: Value(string_val=x),
}
DRAW: Mapping[str, st.SearchStrategy[Any]] = {
    "f": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "d": st.floats(allow_nan=False, allow_infinity=False),
    "l": st.integers(-(2**63), 2**63 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "b": st.booleans(),
    "s": st.text(max_size=12),
}
DEFAULTS = {"b": False, "s": "", "l": 0, "i": 0}
ENTITIES: Mapping[str, str] = {"user": "l", "shop": "s", "depot": "i"}
"""Kind of key by entity."""
VIEWS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "numbers": (("user",), "fdlibs"),
    "floats": (("user",), "ffff"),
    "pairs": (("user", "shop"), "dls"),
    "shops": (("shop",), "fdb"),
    "depots": (("depot",), "is"),
    "triples": (("user", "depot", "shop"), "fb"),
    "world": ((), "di"),
    "wide": (("depot",), "f" * 30 + "d" * 15 + "lisbs" * 4),
}
"""By view: entities, and kinds of its features (named by kind and place)."""
STORED = {"here": "shops", "elsewhere": "shops"}
"""Which view a name of the service stands for, where that is another."""

SERVICES: Mapping[str, Sequence[str]] = {
    "all": ("numbers", "floats", "pairs", "depots", "triples", "world", "here", "elsewhere"),
    "wide": ("wide", "depots"),
}
"""By service: names of its views."""

NEVER, NULL = "never", "null"


@dataclass(frozen=True, slots=True)
class Kind:
    """A store, what is read of it, and by whom."""

    service: str
    online_store: Mapping[str, str] | None = None
    """What is told of Redis beside its address; None for SQLite."""
    tells_unwritten: bool = True
    """Whether its reader tells a cell that was never written from a null."""


KINDS: Mapping[str, Kind] = {
    "redis": Kind("all", {}),
    "redis-wide": Kind("wide", {}),  # whose hashes are read whole
    "redis-through-feast": Kind("all", {"type": awaited_redis.TYPE}, tells_unwritten=False),
    "sqlite": Kind("all"),
}


@dataclass(frozen=True, slots=True)
class Written:
    """One row as it was written."""

    age: timedelta
    cells: Mapping[str, Any]
    """By feature: a value, NULL or NEVER."""


def names(view: str) -> dict[str, str]:
    """Return the kind of each feature of a view by name."""
    return {f"{kind}{place}": kind for place, kind in enumerate(VIEWS[view][1])}


def rows_of(view: str) -> st.SearchStrategy[Written | None]:
    """Draw a row that may be missing, old, or have holes."""
    if view == "wide":  # which is more than hypothesis draws at once
        seeds = st.integers(0, 2**32).map(random.Random)
        made = seeds.map(lambda draw: random_row(view, draw, unwritten=True))
        return st.one_of(made, made, made, st.none())
    # Of most rows most cells have a value, so that whole columns of values are drawn too.
    cells = {
        name: st.one_of(DRAW[kind], DRAW[kind], DRAW[kind], st.sampled_from([NULL, NEVER]))
        for name, kind in names(view).items()
    }
    full = {name: DRAW[kind] for name, kind in names(view).items()}
    ages = st.integers(0, int(2 * TTL.total_seconds())).map(lambda s: timedelta(seconds=s))
    rows = st.one_of(st.fixed_dictionaries(full), st.fixed_dictionaries(cells))
    written = st.builds(Written, ages, rows)
    return st.one_of(written, written, written, st.none())


def state_of(row: Written | None, name: str) -> FeatureState:
    """Return the state that the documents promise for what was written."""
    if row is None or all(cell is NEVER for cell in row.cells.values()):
        return FeatureState.NOT_FOUND
    if row.cells[name] is NEVER:
        return FeatureState.NEVER_WRITTEN
    if row.cells[name] is NULL:
        return FeatureState.NULL
    return FeatureState.STALE if row.age > TTL else FeatureState.PRESENT


def random_row(view: str, draw: random.Random, *, unwritten: bool = False) -> Written:
    """Return a row, which may have nulls, and holes if ``unwritten``; hardly two are of the same age."""
    make: Mapping[str, Callable[[], Any]] = {
        "f": lambda: float(np.float32(draw.gauss(0, 1e6))),
        "d": lambda: draw.gauss(0, 1) * 10 ** draw.randrange(-300, 300),
        "l": lambda: draw.randrange(-(2**53), 2**53),
        "i": lambda: draw.randrange(-(2**31), 2**31),
        "b": lambda: draw.random() < 0.5,
        "s": lambda: draw.choice(("", "é", "x" * draw.randrange(300))),
    }
    holes = draw.random() < 0.3
    hole = (NULL, NEVER) if unwritten else (NULL,)
    age = timedelta(microseconds=draw.randrange(1, int(2.5 * TTL.total_seconds() * 1e6)))
    cells = {
        name: draw.choice(hole) if holes and draw.random() < 0.4 else make[kind]() for name, kind in names(view).items()
    }
    return Written(age, cells)


def definitions(path: Path) -> list[Any]:
    """Return Feast's objects: the views, the shops a second time under another name and key, and a service of all."""
    value_types = {"l": ValueType.INT64, "s": ValueType.STRING, "i": ValueType.INT32}
    entities = {name: Entity(name=name, join_keys=[name], value_type=value_types[k]) for name, k in ENTITIES.items()}
    views = {
        view: FeatureView(
            name=view,
            entities=[entities[entity] for entity in of_view],
            ttl=TTL,
            schema=[Field(name=entity, dtype=TYPES[ENTITIES[entity]]) for entity in of_view]
            + [Field(name=name, dtype=TYPES[kind]) for name, kind in names(view).items()],
            source=FileSource(name=f"{view}_source", path=str(path / f"{view}.parquet"), timestamp_field="at"),
        )
        for view, (of_view, _) in VIEWS.items()
    }
    # Feast 0.67 cannot compare a service that has a view with an alias and without one.
    here = views["shops"].with_name("here")
    elsewhere = views["shops"].with_name("elsewhere").with_join_key_map({"shop": "other"})
    served = views | {"here": here, "elsewhere": elsewhere}
    services = [FeatureService(name=name, features=[served[view] for view in of]) for name, of in SERVICES.items()]
    return [*entities.values(), *views.values(), *services]
