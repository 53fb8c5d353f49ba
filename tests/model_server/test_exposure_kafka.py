"""Reports of servers to a real Kafka: forgotten only once the broker has them: what is asked is what is told."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from fairlead.clock import SystemClock
from fairlead.feedback.kafka import KafkaTarget
from fairlead.feedback.messages import Arm, ExposureReport
from fairlead.feedback.serving import Feedback
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import UNITS
from fairlead_server.exposure.outbox import Outbox
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.exposure.sink import CarrierSink, Reception
from fairlead_server.exposure.tally import Tally
from fairlead_server.metrics import ServerMetrics
from support.kafka import KafkaBroker, headers_of, kafka_broker
from support.ledgers import NOON_US, RING, ROOT, SALT, StillClock
from support.servers import free_port
from support.waiting import until

TOPIC = "reports"
UNITS_SEEN = [RING.unit(f"u{number}".encode(), SALT) for number in range(60)]
ARM = Arm(salt=SALT, phase=0, variant="boosted", revision="boosted-1")
PATIENCE_S = 120


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaBroker]:
    with kafka_broker() as broker:
        broker.make(TOPIC)
        yield broker


def told(address: str, topic: str = TOPIC) -> Feedback:
    # The ledger's own address leads nowhere.
    soon = {"reconnect.backoff.max.ms": "500", "topic.metadata.propagation.max.ms": "300"}
    return Feedback("http://127.0.0.1:1", RING, kafka=KafkaTarget(address, topic, soon))


class Server:
    """What one server process does for exposures."""

    def __init__(self, name: str, feedback: Feedback, folder: Path) -> None:
        self.tally = Tally(most_sums=1000, most_known_units=1000)
        self.feedback = feedback
        self.reporter = Reporter(
            server=name,
            tally=self.tally,
            outbox=lambda: Outbox(folder / "spool", 10**6),
            sink=CarrierSink(),
            feedback=lambda: self.feedback,
            clock=SystemClock(),
            metrics=ServerMetrics(CollectorRegistry()).of(model="m", variant="v"),
            pace=Pace(interval_s=0.02, send_deadline_s=5),
            chance=random.Random(7),  # noqa: S311 -- spreads pauses
        )

    def ask(self, unit: bytes) -> None:
        now_us = NOON_US
        self.tally.add(
            ARM, b"", unit, at_us=now_us, latency_us=3000, failure=None, degraded=False, covariate=lambda: None
        )


async def _told(server: Server) -> None:
    """Wait until all that was asked is with the broker."""
    await until(lambda: not server.tally.waiting and server.reporter.report.last_success_us > 0, PATIENCE_S)
    await until(lambda: server.reporter.report.waiting == 0, PATIENCE_S)


@pytest.mark.timeout(600)
async def test_a_broker_that_goes_away_and_servers_started_again_leave_exact_totals(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    source = random.Random(4)  # noqa: S311 -- what is asked
    asked: Counter[bytes] = Counter()

    def ask(server: Server) -> None:
        for unit in source.choices(UNITS_SEEN, k=40):
            server.ask(unit)
            asked[unit] += 1

    first = Server("first", told(kafka.address), tmp_path)
    first.reporter.start()
    ask(first)
    await _told(first)
    kafka.stop()
    ask(first)
    await until(lambda: first.reporter.report.failure != "", PATIENCE_S)
    ask(first)
    await first.reporter.close(2)
    assert first.reporter.report.waiting > 0
    kafka.start()
    second = Server("second", told(kafka.address), tmp_path)
    second.reporter.start()
    ask(second)
    await _told(second)
    await second.reporter.close(30)
    found = kafka.read(TOPIC, kafka.length(TOPIC))
    assert {headers_of(message)["content-encoding"] for message in found} == {"gzip"}
    assert _kept([gzip.decompress(bytes(message.value() or b"")) for message in found], tmp_path) == asked


def _kept(bodies: list[bytes], folder: Path) -> Counter[bytes]:
    """Return the requests of each unit that a ledger has of reports."""
    database = Database(f"sqlite:///{folder / 'ledger.db'}")
    versions.upgrade(database)
    Ledger(database, ROOT, StillClock()).take_reports([ExposureReport.model_validate_json(body) for body in bodies])
    with database.reading() as connection:
        kept = Counter({row.unit: row.requests for row in connection.execute(select(UNITS))})
    database.close()
    return kept


async def test_a_topic_that_is_not_there_is_told_and_waited_for(kafka: KafkaBroker) -> None:
    sink = CarrierSink()
    # A name that no broker makes a topic of.
    found = await sink.send(told(kafka.address, ".."), b"", 30)
    assert (found.reception, found.reason) == (Reception.POSTPONED, "TOPIC_EXCEPTION")
    large = await sink.send(told(kafka.address), bytes(1_100_000), 30)
    assert (large.reception, large.reason) == (Reception.REFUSED, "MSG_SIZE_TOO_LARGE")
    assert (await sink.send(told(kafka.address), b"{}", 30)).reception is Reception.TAKEN
    await sink.close()


async def test_without_a_broker_it_says_so_in_time() -> None:
    sink = CarrierSink()
    away = told(f"127.0.0.1:{free_port()}")
    found = await sink.send(away, b"", 1)
    assert found.reception is Reception.FAILED
    odd = replace(away, kafka=KafkaTarget("127.0.0.1:1", TOPIC, {"sasl.secret.of": "t0psecret"}))
    found = await sink.send(odd, b"", 1)
    assert (found.reception, found.reason) == (Reception.FAILED, "_INVALID_ARG")
    await sink.close()


def test_nothing_of_kafka_is_loaded_where_nobody_tells_of_it() -> None:
    code = "import sys; import fairlead_server.exposure.assemble; sys.exit('confluent_kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
