"""What is measured: our hydrator, Feast's own calls, and the bare round trip, asked the same questions."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from feast import FeatureStore
from prometheus_client import CollectorRegistry

from bench.hydration.repository import HOLEY, USERS, VIEWS
from bench.hydration.trip import Trip, sizes
from fairlead.clock import SystemClock
from fairlead.contract import Contract, Feature, Output, Training, sha256
from fairlead.features.service import describe
from fairlead.policy import Hydration
from fairlead_server.hydrate.choice import back_end_of
from fairlead_server.hydrate.found import Key
from fairlead_server.hydrate.hydrator import Hydrator, StoreAccess
from fairlead_server.hydrate.plan import HydrationPlan, compile_plan
from fairlead_server.hydrate.policy import LastGood
from fairlead_server.hydrate.redis import RedisBackEnd
from fairlead_server.hydrate.source import Source, source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ServerMetrics

_QUESTIONS = 256
_SEED = 8
_DEADLINE_S = 30.0
"""None is missed: what is slow is to be seen."""
_AMOUNT = 140.5

Answer = Mapping[str, list[Any]]
"""Values by feature; None for one that is not there."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    title: str
    rows: int = 1
    in_flight: int = 1
    service: str = "thirty"
    store: str = "redis"

    def users(self) -> list[list[int]]:
        """Return the users of each question, the same in every run."""
        chosen = random.Random(_SEED)  # noqa: S311 -- a choice
        return [[chosen.randrange(HOLEY.stop, USERS) for _ in range(self.rows)] for _ in range(_QUESTIONS)]


CASES = (
    Case("redis-30x1", "30 features in 3 views, 1 row"),
    Case("redis-30x100", "the same, 100 rows", rows=100),
    Case("redis-30-32inflight", "the same, 1 row, 32 in flight", in_flight=32),
    Case("redis-odfv-1", "the same with an on-demand view in mode python, 1 row", service="thirty_blend"),
    Case("sqlite-30x1", "SQLite: 30 features in 3 views, 1 row", store="sqlite"),
)
SINGLETON = Case("redis-odfv-singleton-1", "the same as a singleton", service="thirty_blend_row")


class System(Protocol):
    """Whatever answers questions."""

    async def ask(self, i: int) -> Any:
        """Answer the i-th question, in its own form."""

    async def close(self) -> None:
        """Let go of connections."""


class Fairlead:
    """Our hydrator."""

    def __init__(self, store: FeatureStore, case: Case, users: Sequence[Sequence[int]]) -> None:
        """Compile the plan of the case's service, and prepare its questions."""
        self.contract = _contract(store, case.service)
        self.plan: HydrationPlan = compile_plan(self.contract, Hydration(deadline_s=_DEADLINE_S))
        source: Source = source_of(store, self.contract)
        self.back_end = back_end_of(store, self.plan, source, WorkerThread("bench"), _DEADLINE_S)
        self._hydrator = Hydrator(
            self.plan,
            StoreAccess(self.back_end, source.functions),
            SystemClock(),
            LastGood(0),
            ServerMetrics(CollectorRegistry()).of(model="bench", variant="bench"),
            deadline_s=_DEADLINE_S,
        )
        self._rows = case.rows
        amounts = {"amount": np.full(case.rows, _AMOUNT)} if case.service != "thirty" else {}
        self._inputs = [{"user": np.array(of, np.int64), **amounts} for of in users]

    async def ask(self, i: int) -> Any:
        """Hydrate a request."""
        return await self._hydrator.hydrate(self._inputs[i % len(self._inputs)], self._rows)

    async def answer(self, i: int) -> Answer:
        """Return values as Feast has them."""
        hydrated = await self.ask(i)
        found = {}
        for name, column in hydrated.columns.items():
            states = hydrated.states.get(name, ["PRESENT"] * len(column))
            found[name.partition("__")[2]] = [
                v if s == "PRESENT" else None for v, s in zip(column.tolist(), states, strict=True)
            ]
        return found

    async def close(self) -> None:
        """Let go of connections."""
        await self._hydrator.close()


class Feast:
    """Feast's call: the synchronous one, which is the faster for one caller, or the asynchronous one.

    Names are short: with full names Feast 0.67 leaves out what on-demand views in mode python compute.
    """

    def __init__(self, store: FeatureStore, case: Case, users: Sequence[Sequence[int]], *, awaited: bool) -> None:
        """Prepare the case's questions."""
        self._store = store
        self._service = store.get_feature_service(case.service)
        self._awaited = awaited
        amount = {"amount": _AMOUNT} if case.service != "thirty" else {}
        self._rows = [[{"user": user, **amount} for user in of] for of in users]

    async def ask(self, i: int) -> Any:
        """Call Feast and make its dictionary."""
        rows = self._rows[i % len(self._rows)]
        if self._awaited:
            response = await self._store.get_online_features_async(self._service, rows)
        else:
            response = self._store.get_online_features(self._service, rows)
        return response.to_dict()

    async def answer(self, i: int) -> Answer:
        """Return values by feature."""
        found: dict[str, list[Any]] = await self.ask(i)
        return found

    async def close(self) -> None:
        """Nothing is held here."""


class RedisTrip:
    """The bytes that our reader sends, and as many back."""

    def __init__(self, trip: Trip, payloads: Sequence[bytes], answer_sizes: Sequence[int]) -> None:
        """Use :meth:`to`."""
        self._trip = trip
        self._asked = list(zip(payloads, answer_sizes, strict=True))

    @classmethod
    async def to(cls, port: int, back_end: RedisBackEnd, users: Sequence[Sequence[int]]) -> RedisTrip:
        """Connect; the payloads are those of ``back_end``."""
        payloads = []
        for of in users:
            keys: list[Key] = [(user,) for user in dict.fromkeys(of)]
            commands = back_end.commands({("user",): keys})
            payloads.append(b"".join(command.packed for command in commands))
        found = [sizes(port, [payload], len(set(of)))[0] for payload, of in zip(payloads, users, strict=True)]
        return cls(await Trip.to(port), payloads, found)

    async def ask(self, i: int) -> Any:
        """Send and wait."""
        payload, size = self._asked[i % len(self._asked)]
        await self._trip.ask(payload, size)

    async def close(self) -> None:
        """Close the connection."""
        self._trip.close()


class SqliteTrip:
    """The statements that Feast's SQLite store runs, their rows fetched and thrown away."""

    def __init__(self, path: Path, store: FeatureStore, users: Sequence[Sequence[int]]) -> None:
        """Open the file, and prepare keys."""
        from feast.infra.key_encoding_utils import serialize_entity_key  # noqa: PLC0415 -- only this needs it
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # noqa: PLC0415 -- as above
        from feast.protos.feast.types.Value_pb2 import Value  # noqa: PLC0415 -- as above

        self._connection = sqlite3.connect(path)
        self._keys = [
            serialize_entity_key(EntityKey(join_keys=["user"], entity_values=[Value(int64_val=of[0])]), 3)
            for of in users
        ]
        self._statements = [
            f"SELECT entity_key, feature_name, value, event_ts FROM {store.project}_{view} WHERE entity_key IN (?)"  # noqa: S608 -- names of our own
            for view in VIEWS
        ]

    async def ask(self, i: int) -> Any:
        """Run the statements."""
        key = self._keys[i % len(self._keys)]
        for statement in self._statements:
            self._connection.execute(statement, (key,)).fetchall()

    async def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _contract(store: FeatureStore, service: str) -> Contract:
    described = describe(store, service)
    return Contract(
        model="bench",
        version="1",
        project=described.project,
        feature_service=described.name,
        fingerprint=described.fingerprint,
        entities=described.entities,
        request_features=described.request_features,
        features=tuple(
            Feature(
                view=f.view,
                name=f.name,
                dtype=f.dtype,
                on_demand=f.on_demand,
                join_keys=f.join_keys,
                ttl_s=f.ttl_s,
                default=0 if f.dtype == "int64" else None,
            )
            for f in described.features
        ),
        outputs=(Output(name="p", dtype="float32", meaning="probability"),),
        training=Training(start="2013-01-01T00:00Z", end="2013-02-01T00:00Z", rows=1, data_digest=sha256(b"rows")),
        packages={},
    )
