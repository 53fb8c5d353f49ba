"""One run: stores are filled, answers compared, rounds measured, everything written."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis
import uvloop
from feast import FeatureStore
from rich.console import Console

from bench import results
from bench.hydration import repository
from bench.hydration.rounds import Found, compare, take_turns
from bench.hydration.server import redis_server
from bench.hydration.systems import CASES, SINGLETON, Case, Fairlead, Feast, RedisTrip, SqliteTrip, System
from bench.machine import Moment
from bench.measure import cpu_model
from bench.paths import BUILD, LOGS
from bench.side_by_side import progress
from fairlead_server.hydrate.redis import RedisBackEnd
from fairlead_server.predict.load import freeze_memory

_COMPARED = 64
_ROUNDS = 5
_CALLS: Mapping[str, tuple[int, int, int]] = {
    "redis-30x1": (1000, 300, 2000),
    "redis-30x100": (2000, 40, 2000),
    "redis-30-32inflight": (6000, 600, 12000),
    "redis-odfv-1": (1000, 200, 2000),
    "redis-odfv-singleton-1": (1000, 200, 2000),
    "sqlite-30x1": (600, 300, 1000),
}
"""Calls of a round by case: ours, Feast's, bare round trips."""
_QUICK_SHARE = 10
PATH = BUILD / "hydration.json"
META = BUILD / "hydration.meta.json"


@dataclass(frozen=True, slots=True)
class Stores:
    """Two stores with the same rows."""

    redis: FeatureStore
    port: int
    sqlite: FeatureStore
    sqlite_path: Path


def measure(cases: Sequence[str], *, quick: bool, rounds: int | None, console: Console) -> None:
    """Measure and write.

    Args:
        cases: Names of the cases; empty for all.
        quick: Whether two short rounds are enough.
        rounds: Rounds, instead of the usual.
        console: Where progress is shown.

    Raises:
        NoRedis: There is no redis-server.
        WrongAnswer: Two systems disagree on a value.
    """
    chosen = [case for case in (*CASES, SINGLETON) if not cases or case.name in cases]
    number = rounds or (2 if quick else _ROUNDS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(redis_server(folder))
        console.print("materializing 10,000 users into Redis and SQLite")
        stores = _fill(folder, port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found, meta = runner.run(_measure(stores, chosen, number, quick=quick, console=console))
    _write(found, meta | {"quick": quick, "rounds": number}, chosen)


def _fill(folder: Path, port: int) -> Stores:
    log = LOGS / "hydration.log"
    store = {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
    in_redis = repository.make(folder / "redis", store, log)
    in_sqlite = repository.make(folder / "sqlite", repository.SQLITE, log)
    return Stores(in_redis, port, in_sqlite, folder / "sqlite" / repository.SQLITE["path"])


async def _measure(
    stores: Stores, cases: Sequence[Case], rounds: int, *, quick: bool, console: Console
) -> tuple[Found, dict[str, Any]]:
    systems = {case.name: await _systems(stores, case) for case in cases}
    share = _QUICK_SHARE if quick else 1

    def calls(case: Case, system: str) -> int:
        ours, feasts, trips = _CALLS[case.name]
        return {"fairlead": ours, "roundtrip": trips}.get(system, feasts) // share

    freeze_memory()  # as the server does after its warm-up, and for all that are measured
    admin = redis.Redis(port=stores.port)
    admin.config_resetstat()
    before = Moment.of(os.getpid())
    with progress(console) as bar:
        task = bar.add_task("", total=rounds * sum(len(of) for of in systems.values()))

        def note(what: str) -> None:
            bar.update(task, description=what, advance=1)

        found = await take_turns(systems, cases, calls, rounds, note)
    after = Moment.of(os.getpid())
    meta = {
        "gc_frozen_objects": gc.get_freeze_count(),
        "gc_full_collections": _collections(found),
        "others": round(_others(before, after), 3),
    }
    admin.close()
    for of in systems.values():
        for system in of.values():
            await system.close()
    return found, meta


async def _systems(stores: Stores, case: Case) -> dict[str, System]:
    """Return the systems of a case, after their answers have been compared."""
    store = stores.redis if case.store == "redis" else stores.sqlite
    users = case.users()
    ours, feasts = Fairlead(store, case, users), Feast(store, case, users, awaited=case.in_flight > 1)
    await compare(ours, feasts, min(_COMPARED, len(users)))
    odd = [[user] * case.rows for user in (*repository.HOLEY, repository.USERS + 1)]
    with_odd = Fairlead(store, case, odd)
    await compare(with_odd, Feast(store, case, odd, awaited=False), len(odd))
    await with_odd.close()
    trip: System
    if isinstance(ours.back_end, RedisBackEnd):
        trip = await RedisTrip.to(stores.port, ours.back_end, users)
    else:
        trip = SqliteTrip(stores.sqlite_path, store, users)
    return {"fairlead": ours, "feast": feasts, "roundtrip": trip}


def _write(found: Found, meta: Mapping[str, Any], cases: Sequence[Case]) -> None:
    records = {key: measured.record(*key) for key, measured in found.items()}
    ordered = [records[case.name, name] for case in cases for name in ("fairlead", "feast", "roundtrip")]
    results.write(PATH, [row for row in ordered if row.case != SINGLETON.name])
    whole = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **meta,
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "feast": version("feast"),
        "calls": {"/".join(key): len(measured.waits_us) for key, measured in found.items()},
        "besides": [asdict(row) for row in ordered if row.case == SINGLETON.name],
    }
    META.write_text(json.dumps(whole, indent=1) + "\n")


def _collections(found: Found) -> dict[str, int]:
    """Return by system how often the garbage collector looked at everything."""
    collections: Counter[str] = Counter()
    for (_, system), measured in found.items():
        collections[system] += measured.full_collections
    return dict(collections)


def _others(before: Moment, after: Moment) -> float:
    """Return the CPUs that neither this process nor its redis-server used, of the two."""
    busy_s, own_s = after.busy_s - before.busy_s, after.tree_s - before.tree_s
    return max(0.0, busy_s - own_s) / (after.at_s - before.at_s)
