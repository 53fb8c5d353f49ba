"""The reporter beside the real ledger, which is killed under load: what is kept equals what was asked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from fairlead.clock import ReplayClock
from fairlead.feedback.messages import Arm
from fairlead.feedback.serving import Feedback
from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import BLOCKS, CELLS, SERVERS, UNITS
from fairlead_server.exposure.http_sink import HttpSink
from fairlead_server.exposure.outbox import Outbox
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.exposure.tally import Tally
from fairlead_server.metrics import ServerMetrics
from support.ledger_kills import MortalLedger, mortal_ledger
from support.ledgers import NOON_US, RING, SALT
from support.waiting import until

KILLS = 4
UNITS_SEEN = [RING.unit(f"u{number}".encode(), SALT) for number in range(60)]
ARM = Arm(salt=SALT, phase=0, variant="boosted", revision="boosted-1")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    opened = Database(url)
    versions.upgrade(opened)
    opened.close()
    return url


@pytest.fixture
def ledger(tmp_path: Path, database_url: str) -> Iterator[MortalLedger]:
    with mortal_ledger(tmp_path, database_url) as started:
        yield started


def _is_made(tally: Tally) -> bool:
    """Whether reports were made of what was asked."""
    return not tally.waiting


class Server:
    """What one server process does for exposures."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self._clock = ReplayClock(folder / "clock")
        self.tally = Tally(most_sums=1000, most_known_units=1000)
        metrics = ServerMetrics(CollectorRegistry()).of(model="m", variant="v")
        self.reporter = Reporter(
            server=name,
            tally=self.tally,
            outbox=lambda: Outbox(folder / "spool", 10**6),
            sink=HttpSink(),
            feedback=lambda: Feedback(url, RING),
            clock=self._clock,
            metrics=metrics,
            pace=Pace(interval_s=0.02),
            chance=random.Random(7),  # noqa: S311 -- spreads pauses
        )

    def ask(self, unit: bytes) -> None:
        self.tally.add(
            ARM,
            b"",
            unit,
            at_us=self._clock.now_us(),
            latency_us=3000,
            failure=None,
            degraded=False,
            covariate=lambda: None,
        )


async def test_a_ledger_killed_under_load_and_servers_started_again_leave_exact_totals(
    ledger: MortalLedger, database_url: str, tmp_path: Path
) -> None:
    source = random.Random(4)  # noqa: S311 -- what is asked
    asked: Counter[bytes] = Counter()
    for number in range(KILLS):
        ledger.set_us(NOON_US + source.randint(-10, 10) * 60_000_000)
        server = Server(f"server-{number}", ledger.url, tmp_path)
        server.reporter.start()
        for _ in range(5):
            for unit in source.choices(UNITS_SEEN, k=40):
                server.ask(unit)
                asked[unit] += 1
            await until(partial(_is_made, server.tally), 90)
        ledger.kill()
        await server.reporter.close(30)
        ledger.start()
    last = Server("last", ledger.url, tmp_path)
    last.reporter.start()
    last.ask(UNITS_SEEN[0])
    asked[UNITS_SEEN[0]] += 1
    await until(lambda: _is_made(last.tally) and last.reporter.report.last_success_us > 0, 90)
    await until(lambda: last.reporter.report.waiting == 0, 90)
    await last.reporter.close(30)

    database = Database(database_url)
    with database.reading() as connection:
        kept = {row.unit: (row.requests, row.latency_us) for row in connection.execute(select(UNITS))}
        exposed = connection.scalar(select(func.count()).where(UNITS.c.exposed_us.is_not(None)))
        in_blocks = connection.scalar(select(func.sum(BLOCKS.c.requests)))
        dropped = connection.scalar(select(func.sum(SERVERS.c.dropped)))
        cells = connection.scalar(select(func.count()).select_from(CELLS))
    database.close()
    assert kept == {unit: (requests, 3000 * requests) for unit, requests in asked.items()}
    assert (exposed, in_blocks, dropped, cells) == (len(asked), asked.total(), 0, 1)
