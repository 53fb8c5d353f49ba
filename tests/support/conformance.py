"""Compares our readers with ``get_online_features`` on random data: values, states, and the order of columns.

Two ways in: rows written to the online store cell by cell, with cells that were never written, and rows that
``materialize()`` brings from Parquet files. By itself (``python -m support.conformance``) it prints what it compared as
JSON; ``tools/conformance`` runs it under several hash seeds, and with other versions of Feast.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import feast
import numpy as np
import pyarrow as pa
from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pyarrow import parquet

from fairlead.clock import ReplayClock, ReplayClockWriter, to_us
from fairlead.policy import Action, FeatureState, Hydration
from fairlead_server.hydrate.choice import back_end_of
from fairlead_server.hydrate.hydrator import Hydrated, Hydrator, StoreAccess
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.policy import LastGood
from fairlead_server.hydrate.source import source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ServerMetrics
from support.conformance_rows import (
    ARROW,
    DEFAULTS,
    ENTITIES,
    KINDS,
    MAKE,
    NEVER,
    NOON,
    NULL,
    SERVICES,
    STORED,
    TTL,
    VIEWS,
    Kind,
    Written,
    definitions,
    names,
    random_row,
    rows_of,
    state_of,
)
from support.models import contract_of
from support.servers import redis_server
from support.store import FeatureRepo, make_repo

MANY = 1000
ROWS_PER_READ = 200
DEADLINE_S = 30

Known = Mapping[tuple[str, tuple[Any, ...]], Written | None]
"""What was written, by view and key."""
Asked = Mapping[str, Any]
"""A request's row: keys by entity."""


@dataclass(slots=True)
class Compared:
    """What was compared, all of it equal."""

    reader: str
    rows: int = 0
    states: Counter[FeatureState] = field(default_factory=Counter)
    """Cells by state."""
    digest: Any = field(default_factory=hashlib.sha256)
    """Over every column's name, values and states, in order."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "feast": feast.__version__,
            "reader": self.reader,
            "rows": self.rows,
            "cells": sum(self.states.values()),
            "states": {str(state): amount for state, amount in sorted(self.states.items())},
            "digest": self.digest.hexdigest(),
        }


class World:
    """A store that is written to and read, by Feast and by us."""

    def __init__(self, kind: Kind, repo: FeatureRepo, folder: Path, runner: asyncio.Runner) -> None:
        self.kind = kind
        self.repo = repo
        self.views = {STORED.get(name, name): VIEWS[STORED.get(name, name)] for name in SERVICES[kind.service]}
        self.store = repo.store
        self.store.apply(definitions(repo.path))
        self._runner = runner
        store = FeatureStore(repo_path=str(repo.path))
        description = repo.describe(kind.service)
        of_feature = {f.input: {"default": DEFAULTS.get(f.name[0])} for f in description.features}
        contract = contract_of(description, echo=False, **of_feature)
        plan = compile_plan(contract, Hydration(deadline_s=DEADLINE_S, on_stale=Action.USE))
        back_end = back_end_of(store, plan, source_of(store, contract), WorkerThread("test"), DEADLINE_S)
        self.compared = Compared(back_end.name)
        ReplayClockWriter(folder / "clock", to_us(NOON))
        self.hydrator = Hydrator(
            plan,
            StoreAccess(back_end, {}),
            ReplayClock(folder / "clock"),
            LastGood(10),
            ServerMetrics(CollectorRegistry()).of(model="m", variant="v"),
            deadline_s=DEADLINE_S,
        )

    def write(self, view: str, key: tuple[Any, ...], row: Written) -> None:
        """Write one row to the online store, cell by cell."""
        cells = {name: cell for name, cell in row.cells.items() if cell is not NEVER}
        if not cells:
            return
        made = {name: Value() if cell is NULL else MAKE[name[0]](cell) for name, cell in cells.items()}
        of_view = VIEWS[view][0]
        entity = EntityKey(
            join_keys=list(of_view) or ["__dummy_id"],
            entity_values=[MAKE[ENTITIES[name]](part) for name, part in zip(of_view, key, strict=True)]
            or [Value(string_val="")],
        )
        at = NOON - row.age
        table = self.store.get_feature_view(view)
        self.store.provider.online_write_batch(self.store.config, table, [(entity, made, at, at)], None)

    def compare(self, asked: Sequence[Asked], known: Known) -> None:
        """Read rows by Feast and by us, and compare them with each other and with what was written."""
        types = {"user": np.int64, "depot": np.int32, "shop": np.object_, "other": np.object_}
        if self.kind.service == "wide":
            types = {"depot": np.int32}
        rows = [{name: row["shop" if name == "other" else name] for name in types} for row in asked]
        service = self.store.get_feature_service(self.kind.service)
        feasts = self.store.get_online_features(service, rows, full_feature_names=True).to_dict()
        request = {name: np.array([row[name] for row in rows], dtype) for name, dtype in types.items()}
        ours: Hydrated = self._runner.run(self.hydrator.hydrate(request, len(rows)))
        self.compared.rows += len(rows)
        for feature, states in ours.states.items():
            view, name = feature.split("__")
            stored = STORED.get(view, view)
            values = ours.columns[feature].tolist()
            for i, row in enumerate(rows):
                key = tuple(row[entity] for entity in VIEWS[stored][0])
                written = known.get((stored, key))
                wanted = state_of(written, name)
                if wanted is FeatureState.NEVER_WRITTEN and not self.kind.tells_unwritten:
                    wanted = FeatureState.NULL
                assert states[i] is wanted, (feature, key, written, states[i])
                if wanted in (FeatureState.PRESENT, FeatureState.STALE):
                    assert values[i] == feasts[feature][i], (feature, key, written)
                else:
                    assert feasts[feature][i] is None, (feature, key, written)
            self.compared.states.update(states)
            self.compared.digest.update(repr((feature, values, [str(state) for state in states])).encode())


def compare_random(world: World, rows: int) -> Compared:
    """Compare rows that hypothesis draws, the same under every hash seed; new keys in every example."""
    per_example, keys = (20, 3) if rows < MANY else (ROWS_PER_READ, 6)
    rounds = 0
    of_world: dict[tuple[str, tuple[Any, ...]], Written | None] = {}

    @settings(
        max_examples=max(1, rows // per_example),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nonlocal rounds
        # What is drawn may not depend on what has been written, so keys are drawn as places.
        few = range(min(keys, 3))
        drawn = {
            (view, places): data.draw(rows_of(view))
            for view, (entities, _) in world.views.items()
            for places in product(*(few if len(entities) > 1 else range(keys) for _ in entities))
        }
        place = st.integers(0, keys)  # the last is of nobody
        asked = data.draw(st.lists(st.tuples(place, place, place), min_size=per_example, max_size=per_example))
        rounds += 1
        parts: dict[str, list[Any]] = {
            "user": [rounds * 1000 + i for i in range(keys + 1)],
            "shop": [f"{rounds}-{i}\u00e9" for i in range(keys + 1)],
            "depot": [-rounds * 1000 - i for i in range(keys + 1)],
        }
        known: dict[tuple[str, tuple[Any, ...]], Written | None] = {}
        for (view, places), row in drawn.items():
            entities = VIEWS[view][0]
            if entities or rounds == 1:
                key = tuple(parts[entity][i] for entity, i in zip(entities, places, strict=True))
                (known if entities else of_world)[view, key] = row
                if row is not None:
                    world.write(view, key, row)
        asked_rows = [
            {"user": parts["user"][user], "shop": parts["shop"][shop], "depot": parts["depot"][depot]}
            for user, shop, depot in asked
        ]
        world.compare(asked_rows, known | of_world)

    check()
    return world.compared


def compare_materialized(world: World, rows: int) -> Compared:
    """Compare rows that ``materialize()`` brings from files: several per entity, some with nulls, some too old."""
    draw = random.Random(rows)  # noqa: S311 -- rows of a test are no secret
    start = NOON - 2 * TTL
    amount = max(20, rows // 10)
    parts: dict[str, Any] = {
        "user": [draw.randrange(-(2**63), 2**63) for _ in range(amount)],
        "shop": [f"{i}-\u00fc" for i in range(amount)],
        "depot": [draw.randrange(-(2**31), 2**31) for _ in range(amount)],
    }
    asked = [{name: draw.choice(of_name) for name, of_name in parts.items()} for _ in range(rows)]
    known: dict[tuple[str, tuple[Any, ...]], Written | None] = {}
    for view, (entities, _) in VIEWS.items():  # all of them, for all are materialized
        keys = dict.fromkeys(tuple(row[entity] for entity in entities) for row in asked)
        written = [(key, random_row(view, draw)) for key in keys for _ in range(draw.choice((0, 1, 1, 2)))]
        written = written or [(key, random_row(view, draw)) for key in keys]
        _write_parquet(world.repo.path / f"{view}.parquet", view, written)
        for key, row in sorted(written, key=lambda one: one[1].age, reverse=True):
            if NOON - row.age > start:
                known[view, key] = row
    world.store.materialize(start, NOON)
    for i in range(0, len(asked), ROWS_PER_READ):
        world.compare(asked[i : i + ROWS_PER_READ], known)
    return world.compared


def _write_parquet(path: Path, view: str, written: Sequence[tuple[tuple[Any, ...], Written]]) -> None:
    columns: dict[str, pa.Array] = {
        entity: pa.array([key[i] for key, _ in written], ARROW[ENTITIES[entity]])
        for i, entity in enumerate(VIEWS[view][0])
    }
    for name, kind in names(view).items():
        cells = [None if row.cells[name] is NULL else row.cells[name] for _, row in written]
        columns[name] = pa.array(cells, ARROW[kind])
    columns["at"] = pa.array([NOON - row.age for _, row in written], pa.timestamp("us", "UTC"))
    parquet.write_table(pa.table(columns), path)


@contextmanager
def world_of(kind: str, folder: Path) -> Iterator[World]:
    """Open a world in an empty folder; ``kind`` is one of ``KINDS``."""
    of_redis = KINDS[kind].online_store
    with asyncio.Runner() as runner:
        if of_redis is None:
            yield World(KINDS[kind], make_repo(folder / "repo", apply=False), folder, runner)
            return
        with redis_server(folder) as server:
            repo = make_repo(folder / "repo", online_store={**server.online_store, **of_redis}, apply=False)
            world = World(KINDS[kind], repo, folder, runner)
            yield world
            runner.run(world.hydrator.close())


WAYS: Mapping[str, Callable[[World, int], Compared]] = {"written": compare_random, "materialized": compare_materialized}


def main() -> None:
    """Compare, and print what was compared as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", choices=KINDS)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("rows", type=int)
    found = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, world_of(found.store, Path(folder)) as world:
        print(json.dumps(WAYS[found.way](world, found.rows).to_dict()))  # noqa: T201 -- what this is for


if __name__ == "__main__":
    main()
