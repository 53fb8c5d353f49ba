"""Killed many times under load, with duplicates, reorderings and a stepping clock: totals equal the truth exactly."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import UNITS
from support.ledger_kills import MortalLedger, Senders, mortal_ledger
from support.ledger_truth import Told, kept, truth
from support.ledgers import HOUR_US, MINUTE_US, NOON_US, arm, design, outcomes
from support.waiting import until

KILLS = {"sqlite": 20, "postgresql": int(os.environ.get("FAIRLEAD_LEDGER_KILLS", "6"))}
"""A start costs most of a second of CPU; with 20 it was seen to hold on PostgreSQL as well."""
BATCHES, BATCH = 6, 15
UNITS_SEEN = [f"u{number}" for number in range(40)]
STEP_US = 20 * MINUTE_US


class Load:
    """What applications and servers tell in each round."""

    def __init__(self) -> None:
        self._source = np.random.default_rng(20)
        self.told: list[Told] = []
        self.requests: Counter[str] = Counter()
        self._reports = 0

    def bodies(self, start_us: int) -> Sequence[tuple[str, Any]]:
        """Return what is told in one round, some of it twice, in any order."""
        fresh = [self._prediction(start_us) for _ in range(BATCHES * BATCH)]
        self.told += fresh
        order = self._source.permutation(len(fresh))
        batches = [
            ("/v1/outcomes", outcomes(*(fresh[place].outcome for place in part)))
            for part in order.reshape(BATCHES, BATCH)
        ]
        reports = [("/v1/exposures", self._report()) for _ in range(3)]
        bodies = [*batches, *reports, *batches[::3], *reports[:2]]
        return [bodies[place] for place in self._source.permutation(len(bodies))]

    def some(self, most: int) -> int:
        return int(self._source.integers(1, most))

    def _prediction(self, start_us: int) -> Told:
        at_us = start_us + int(self._source.integers(0, 1000))
        output = float(np.float32(self._source.random()))
        unit = str(self._source.choice(UNITS_SEEN))
        return Told(unit, at_us, len(self.told) + int(self._source.integers(1 << 40)), output, self.some(3) - 1)

    def _report(self) -> dict[str, Any]:
        units = self._source.choice(UNITS_SEEN, 8, replace=False)
        counts = [arm(str(unit), requests=self.some(9)) for unit in units]
        self.requests.update({one["unit"]: one["requests"] for one in counts})
        self._reports += 1
        return {"server": "s1", "sequence": self._reports - 1, "counts": counts}


@pytest.fixture
def mortal(tmp_path: Path, database_url: str) -> Iterator[MortalLedger]:
    opened = Database(database_url)
    versions.upgrade(opened)
    opened.close()
    with mortal_ledger(tmp_path, database_url) as ledger:
        yield ledger


@pytest.mark.timeout(900)
async def test_killed_under_load_the_totals_equal_the_truth(mortal: MortalLedger, database_url: str) -> None:
    planned = design(requests_per_unit=60)
    mortal.declare(planned)
    load, senders = Load(), Senders([mortal.url])
    kills = KILLS[database_url.partition(":")[0]]
    sent = 0
    try:
        for number in range(kills):
            start_us = NOON_US + number * STEP_US
            mortal.set_us(start_us + 1000)
            bodies = load.bodies(start_us)
            for path, body in bodies:
                senders.put(path, body)
            senders.wait(sent + load.some(len(bodies) - 3))
            mortal.kill()
            mortal.set_us(start_us - load.some(5) * MINUTE_US if number % 3 == 1 else start_us + 30 * MINUTE_US)
            mortal.start()
            sent += len(bodies)
            senders.wait(sent)
    finally:
        senders.close()
    mortal.set_us(NOON_US + kills * STEP_US + 2 * HOUR_US)
    database = Database(database_url)
    wanted = truth(load.told, most=planned.requests_per_unit)
    await until(lambda: kept(database) == wanted, timeout_s=200)
    assert _requests(database) == load.requests
    assert senders.failures >= kills / 2, "kills met requests"
    database.close()


def _requests(database: Database) -> Counter[str]:
    with database.reading() as connection:
        return Counter({row.unit.hex(): row.requests for row in connection.execute(select(UNITS))})
