"""What applications and servers tell a ledger in rounds, some of it twice and in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import select

from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import UNITS
from support.ledger_truth import Told
from support.ledgers import arm, outcomes

BATCHES, BATCH = 6, 15
UNITS_SEEN = [f"u{number}" for number in range(40)]


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


def requests(database: Database) -> Counter[str]:
    """Return the requests of each unit that a ledger has."""
    with database.reading() as connection:
        return Counter({row.unit.hex(): row.requests for row in connection.execute(select(UNITS))})
