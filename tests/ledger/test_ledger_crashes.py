"""Killed many times under load, with duplicates, reorderings and a stepping clock: totals equal the truth exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from support.ledger_kills import MortalLedger, Senders, mortal_ledger
from support.ledger_load import Load, requests
from support.ledger_truth import kept, truth
from support.ledgers import HOUR_US, MINUTE_US, NOON_US, design
from support.waiting import until

KILLS = {"sqlite": 20, "postgresql": int(os.environ.get("FAIRLEAD_LEDGER_KILLS", "6"))}
"""A start costs most of a second of CPU; with 20 it was seen to hold on PostgreSQL as well."""
STEP_US = 20 * MINUTE_US


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
    assert requests(database) == load.requests
    assert senders.failures >= kills / 2, "kills met requests"
    database.close()
