"""On random data our readers give what ``get_online_features`` gives, and the state that the data says.

``FAIRLEAD_CONFORMANCE_ROWS=10000`` compares so many rows per store; without it a few.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Bool, Float32, Float64, Int32, Int64, String
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fairlead.clock import ReplayClock, ReplayClockWriter, to_us
from fairlead.policy import Action, FeatureState, Hydration
from fairlead_server.hydrate.choice import back_end_of
from fairlead_server.hydrate.hydrator import Hydrated, Hydrator, StoreAccess
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.policy import LastGood
from fairlead_server.hydrate.source import source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ServerMetrics
from support.models import contract_of
from support.predictors import NOON
from support.servers import redis_server
from support.store import FeatureRepo, make_repo

ROWS = int(os.environ.get("FAIRLEAD_CONFORMANCE_ROWS", "60"))
MANY = 1000
ROWS_PER_EXAMPLE, KEYS = (20, 3) if ROWS < MANY else (200, 6)
"""Rows that are asked for, and users and shops that there are, in one example."""
EXAMPLES = max(1, ROWS // ROWS_PER_EXAMPLE)
TTL = timedelta(hours=3)

TYPES: dict[str, Any] = {"f": Float32, "d": Float64, "l": Int64, "i": Int32, "b": Bool, "s": String}
MAKE: dict[str, Any] = {
    "f": lambda x: Value(float_val=x),
    "d": lambda x: Value(double_val=x),
    "l": lambda x: Value(int64_val=x),
    "i": lambda x: Value(int32_val=x),
    "b": lambda x: Value(bool_val=x),
    "s": lambda x: Value(string_val=x),
}
DRAW: dict[str, st.SearchStrategy[Any]] = {
    "f": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "d": st.floats(allow_nan=False, allow_infinity=False),
    "l": st.integers(-(2**63), 2**63 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "b": st.booleans(),
    "s": st.text(max_size=12),
}
VIEWS: dict[str, tuple[tuple[str, ...], str]] = {
    "numbers": (("user",), "fdlibs"),
    "floats": (("user",), "ffff"),
    "pairs": (("user", "shop"), "dls"),
    "shops": (("shop",), "fdb"),
    "world": ((), "di"),
}
"""By view: entities, and kinds of its features (named by kind and place)."""

NEVER, NULL = "never", "null"


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


Known = Mapping[tuple[str, tuple[Any, ...]], Written | None]
"""What was written, by view and key."""


class World:
    """A store that is written to and read, by Feast and by us."""

    def __init__(self, repo: FeatureRepo, folder: Path, runner: asyncio.Runner) -> None:
        self._store = repo.store
        self._store.apply(definitions(repo.path))
        self._round = 0
        self._runner = runner
        store = FeatureStore(repo_path=str(repo.path))
        defaults = {"b": False, "s": "", "l": 0, "i": 0}
        description = repo.describe("all")
        of_feature = {f.input: {"default": defaults.get(f.name[0])} for f in description.features}
        contract = contract_of(description, echo=False, **of_feature)
        hydration = Hydration(deadline_s=30, on_stale=Action.USE)
        plan = compile_plan(contract, hydration)
        back_end = back_end_of(store, plan, source_of(store, contract), WorkerThread("test"), 30)
        self.reader = back_end.name
        ReplayClockWriter(folder / "clock", to_us(NOON))
        self.hydrator = Hydrator(
            plan,
            StoreAccess(back_end, {}),
            ReplayClock(folder / "clock"),
            LastGood(10),
            ServerMetrics(CollectorRegistry()).of(model="m", variant="v"),
            deadline_s=30,
        )

    def check(self, data: st.DataObject) -> None:
        """Write random rows, and compare what is read of them."""
        # What is drawn may not depend on what has been written, so keys are drawn as places.
        drawn = {
            (view, places): data.draw(rows_of(view))
            for view, (entities, _) in VIEWS.items()
            for places in product(*(range(KEYS) for _ in entities))
        }
        place = st.integers(0, KEYS)  # the last is of nobody
        asked = data.draw(st.lists(st.tuples(place, place), min_size=ROWS_PER_EXAMPLE, max_size=ROWS_PER_EXAMPLE))
        self._round += 1
        parts: dict[str, list[Any]] = {
            "user": [self._round * 1000 + i for i in range(KEYS + 1)],
            "shop": [f"{self._round}-{i}\u00e9" for i in range(KEYS + 1)],
        }
        known: dict[tuple[str, tuple[Any, ...]], Written | None] = {}
        for (view, places), row in drawn.items():
            entities = VIEWS[view][0]
            if entities or self._round == 1:
                key = tuple(parts[entity][i] for entity, i in zip(entities, places, strict=True))
                known[view, key] = row
                self._write(view, key, row)
        if self._round == 1:
            self._of_world = known["world", ()]
        self._compare([(parts["user"][user], parts["shop"][shop]) for user, shop in asked], known)

    def _write(self, view: str, key: tuple[Any, ...], row: Written | None) -> None:
        if row is None:
            return
        make = {
            name: Value() if cell is NULL else MAKE[name[0]](cell)
            for name, cell in row.cells.items()
            if cell is not NEVER
        }
        if not make:
            return
        entity_names = list(VIEWS[view][0]) or ["__dummy_id"]
        values = [Value(int64_val=k) if isinstance(k, int) else Value(string_val=k) for k in key] or [
            Value(string_val="")
        ]
        at = NOON - row.age
        table = self._store.get_feature_view(view)
        entity = EntityKey(join_keys=entity_names, entity_values=values)
        self._store.provider.online_write_batch(self._store.config, table, [(entity, make, at, at)], None)

    def _compare(
        self, asked: list[tuple[int, str]], known: Mapping[tuple[str, tuple[Any, ...]], Written | None]
    ) -> None:
        feasts = self._store.get_online_features(
            self._store.get_feature_service("all"),
            [{"user": user, "shop": shop, "other": shop} for user, shop in asked],
            full_feature_names=True,
        ).to_dict()
        request = {
            "user": np.array([user for user, _ in asked], np.int64),
            "shop": np.array([shop for _, shop in asked], np.object_),
            "other": np.array([shop for _, shop in asked], np.object_),
        }
        ours: Hydrated = self._runner.run(self.hydrator.hydrate(request, len(asked)))
        for feature, states in ours.states.items():
            view, name = feature.split("__")
            values = ours.columns[feature].tolist()
            for i, (user, shop) in enumerate(asked):
                stored = "shops" if view in ("here", "elsewhere") else view
                key = tuple({"user": user, "shop": shop}[entity] for entity in VIEWS[stored][0])
                row = self._of_world if stored == "world" else known.get((stored, key))
                wanted = state_of(row, name)
                assert states[i] is wanted, (feature, key, row)
                if wanted in (FeatureState.PRESENT, FeatureState.STALE):
                    assert values[i] == feasts[feature][i], (feature, key, row)
                else:
                    assert feasts[feature][i] is None


def state_of(row: Written | None, name: str) -> FeatureState:
    """Return the state that the documents promise for what was written."""
    if row is None or all(cell is NEVER for cell in row.cells.values()):
        return FeatureState.NOT_FOUND
    if row.cells[name] is NEVER:
        return FeatureState.NEVER_WRITTEN
    if row.cells[name] is NULL:
        return FeatureState.NULL
    return FeatureState.STALE if row.age > TTL else FeatureState.PRESENT


def definitions(path: Path) -> list[Any]:
    """Return Feast's objects: the views, the shops a second time under another name and key, and a service of all."""
    entities = {
        "user": Entity(name="user", join_keys=["user"], value_type=ValueType.INT64),
        "shop": Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING),
    }
    key_types = {"user": Int64, "shop": String}
    views = [
        FeatureView(
            name=view,
            entities=[entities[entity] for entity in of_view],
            ttl=TTL,
            schema=[Field(name=entity, dtype=key_types[entity]) for entity in of_view]
            + [Field(name=name, dtype=TYPES[kind]) for name, kind in names(view).items()],
            source=FileSource(name=f"{view}_source", path=str(path / f"{view}.parquet"), timestamp_field="at"),
        )
        for view, (of_view, _) in VIEWS.items()
    ]
    # Feast 0.67 cannot compare a service that has a view with an alias and without one.
    here = views[3].with_name("here")
    elsewhere = views[3].with_name("elsewhere").with_join_key_map({"shop": "other"})
    served = [*views[:3], views[4], here, elsewhere]
    return [*entities.values(), *views, FeatureService(name="all", features=served)]


@contextmanager
def world_of(kind: str, folder: Path) -> Iterator[World]:
    with asyncio.Runner() as runner:
        if kind == "sqlite":
            yield World(make_repo(folder / "repo", apply=False), folder, runner)
            return
        with redis_server(folder) as server:
            world = World(make_repo(folder / "repo", online_store=server.online_store, apply=False), folder, runner)
            yield world
            runner.run(world.hydrator.close())


@pytest.mark.parametrize(("kind", "reader"), [("redis", "redis"), ("sqlite", "generic")])
def test_values_and_states_of_random_data_are_feasts_and_the_datas(tmp_path: Path, kind: str, reader: str) -> None:
    with world_of(kind, tmp_path) as world:
        assert world.reader == reader

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def check(data: st.DataObject) -> None:
            world.check(data)

        check()
