"""The ledger reads a real Kafka: whatever is killed, away, doubled or unreadable, totals equal the truth exactly."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from confluent_kafka import KafkaException, Producer
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import FATES, PENDING
from support.kafka import KafkaBroker, headers_of
from support.ledger_kills import mortal_ledger
from support.ledger_load import BATCH, Load, requests
from support.ledger_truth import Told, kept, truth
from support.ledgers import (
    HOUR_US,
    MINUTE_US,
    NOON_US,
    LedgerProcess,
    arm,
    design,
    exposure,
    ledger_process,
    outcomes,
)
from support.postgresql import PostgresqlServer
from support.servers import free_port
from support.waiting import until

KILLS = {"sqlite": 4, "postgresql": 3}
STEP_US = 20 * MINUTE_US
PATIENCE_S = 120
UNREADABLE = (b"\xff\xfe no text", b'{"outcomes": 3}', b"", b'{"server": "s1"}')
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Topics:
    """Both topics of one test, and how a ledger is told of them."""

    broker: KafkaBroker
    exposures: str
    outcomes: str
    folder: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        config = self.folder / "kafka.properties"
        # Whoever is killed is missed soon, and what is new is seen soon.
        config.write_text("# soon\nsession.timeout.ms=2000\nheartbeat.interval.ms=400\nreconnect.backoff.max.ms=500\n")
        names = ["--kafka-exposures-topic", self.exposures, "--kafka-outcomes-topic", self.outcomes]
        where = ["--kafka-bootstrap-servers", self.broker.address, "--kafka-group", self.group]
        return (*where, "--kafka-config", str(config), *names)

    @property
    def group(self) -> str:
        return f"group-{self.outcomes}"

    def of(self, path: str) -> str:
        return self.exposures if path == "/v1/exposures" else self.outcomes

    def is_done(self) -> bool:
        """Return whether everything there is has been committed."""
        both = (self.exposures, self.outcomes)
        try:
            return all(self.broker.committed(self.group, topic) == self.broker.length(topic) for topic in both)
        except KafkaException:  # a broker that has just started
            return False


@pytest.fixture
def topics(kafka: KafkaBroker, tmp_path: Path) -> Topics:
    number = next(_NUMBERS)
    made = Topics(kafka, f"exposures{number}", f"outcomes{number}", tmp_path)
    kafka.make(made.exposures, made.outcomes)
    return made


@pytest.fixture
def producer(kafka: KafkaBroker) -> Iterator[Producer]:
    made = kafka.producer()
    yield made
    made.purge()
    made.flush(30)


def put(producer: Producer, topic: str, *values: bytes, **headers: str) -> None:
    """Send messages and wait until the broker has them."""
    failed: list[Any] = []
    for value in values:
        told: Any = list(headers.items())
        producer.produce(
            topic, value, headers=told, on_delivery=lambda error, _: failed.append(error) if error else None
        )
    assert producer.flush(PATIENCE_S) == 0
    assert not failed


def body(told: Any) -> bytes:
    return json.dumps(told).encode()


def metrics_of(ledger: LedgerProcess) -> Mapping[tuple[str, ...], float]:
    """Return the values of the consumer's metrics by name and labels."""
    with urlopen(f"{ledger.url}/metrics", timeout=60) as answer:  # noqa: S310 -- http, to the loopback
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return {(sample.name.removeprefix("fairlead_ledger_"), *sample.labels.values()): sample.value for sample in samples}


def pending(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(PENDING)).scalar_one())


@pytest.mark.timeout(900)
async def test_killed_under_load_with_a_broker_that_goes_away_the_totals_equal_the_truth(
    database_url: str, topics: Topics, producer: Producer, tmp_path: Path
) -> None:
    database = Database(database_url)
    versions.upgrade(database)
    planned, load = design(requests_per_unit=60), Load()
    kills = KILLS[database_url.partition(":")[0]]
    with mortal_ledger(tmp_path, database_url, topics.arguments) as ledger:
        ledger.declare(planned)
        for number in range(kills):
            start_us = NOON_US + number * STEP_US
            ledger.set_us(start_us + 1000)
            before, bodies = len(load.told), load.bodies(start_us)
            for place, (path, told) in enumerate(bodies):
                topic = topics.of(path)
                if place == len(bodies) // 2:
                    enough = before + load.some(BATCH) if number % 2 else 0
                    await until(partial(_has, database, enough), timeout_s=PATIENCE_S)
                put(producer, topic, UNREADABLE[place % len(UNREADABLE)], body(told))
            if number == 1:
                topics.broker.stop()
            ledger.kill()
            ledger.set_us(start_us - load.some(5) * MINUTE_US if number == 2 else start_us + 30 * MINUTE_US)
            ledger.start()
            if number == 1:
                topics.broker.start()
            await until(topics.is_done, timeout_s=PATIENCE_S)
        ledger.set_us(NOON_US + kills * STEP_US + 2 * HOUR_US)
        wanted = truth(load.told, most=planned.requests_per_unit)
        await until(lambda: kept(database) == wanted, timeout_s=PATIENCE_S)
    assert requests(database) == load.requests
    assert _accepted(database) == len(load.told)
    database.close()


def _accepted(database: Database) -> int:
    """Return how many outcomes were taken, each once."""
    with database.reading() as connection:
        found = connection.execute(select(FATES.c.count).where(FATES.c.fate == "Accepted"))
        return sum(found.scalars())


def _has(database: Database, enough: int) -> bool:
    return _accepted(database) >= enough


@pytest.mark.timeout(600)
async def test_two_ledgers_share_the_partitions_and_one_takes_over_when_the_other_ends(
    postgresql: PostgresqlServer, topics: Topics, producer: Producer, tmp_path: Path
) -> None:
    url = postgresql.new_database()
    database = Database(url)
    versions.upgrade(database)
    told = [Told(f"u{number % 30}", NOON_US + number, number, number % 64 / 64, number % 2) for number in range(600)]
    bodies = [body(outcomes(*(one.outcome for one in told[start : start + 5]))) for start in range(0, 600, 5)]
    with ExitStack() as stack:
        folders = [tmp_path / name for name in ("one", "other")]
        for folder in folders:
            folder.mkdir()
        arguments = ("--open", *topics.arguments)
        one, other = (stack.enter_context(ledger_process(folder, url, arguments)) for folder in folders)
        with one.client() as client:
            client.put(f"/v1/experiments/{design().salt}", content=design().model_dump_json()).raise_for_status()
        taken = ("kafka_messages_total", "taken", topics.outcomes)

        def both_read() -> bool:
            put(producer, topics.outcomes, *bodies[:4])
            return all(metrics_of(ledger)[taken] > 0 for ledger in (one, other))

        await until(both_read, timeout_s=PATIENCE_S)
        put(producer, topics.outcomes, *bodies[:60])
        assert one.stop() == 0
        put(producer, topics.outcomes, *bodies[40:])
        await until(topics.is_done, timeout_s=PATIENCE_S)
        lags = [("kafka_lag_messages", str(partition), topics.outcomes) for partition in range(2)]
        await until(lambda: all(metrics_of(other).get(lag) == 0 for lag in lags), timeout_s=PATIENCE_S)
        assert metrics_of(other)["kafka_connected",] == 1
        other.set_us(NOON_US + 2 * HOUR_US)
        wanted = truth(told, most=design().requests_per_unit)
        await until(lambda: kept(database) == wanted, timeout_s=PATIENCE_S)
    assert _accepted(database) == len(told)
    database.close()


@pytest.mark.timeout(600)
async def test_while_the_database_is_away_messages_wait(
    postgresql: PostgresqlServer, topics: Topics, producer: Producer, tmp_path: Path
) -> None:
    url = postgresql.new_database()
    versions.upgrade(Database(url))
    name = url.rpartition("/")[2]
    told = [Told(f"u{number}", NOON_US + number, number, 0.5, 1) for number in range(4)]
    with ledger_process(tmp_path, url, ("--open", *topics.arguments)) as ledger:
        with ledger.client() as client:
            client.put(f"/v1/experiments/{design().salt}", content=design().model_dump_json()).raise_for_status()
        _allow(postgresql, name, "false")
        put(producer, topics.outcomes, *(body(outcomes(one.outcome)) for one in told))
        tried = ("kafka_retries_total", "database")
        await until(lambda: metrics_of(ledger).get(tried, 0) >= 2, timeout_s=PATIENCE_S)
        assert topics.broker.committed(topics.group, topics.outcomes) == 0
        assert metrics_of(ledger)["kafka_poll_age_seconds",] < PATIENCE_S
        _allow(postgresql, name, "true")
        await until(topics.is_done, timeout_s=PATIENCE_S)
        assert "kafka messages wait reason=database" in ledger.log
    assert pending(Database(url)) == len(told)


def _allow(postgresql: PostgresqlServer, name: str, allowed: str) -> None:
    """Let nobody connect to a database, or everybody again."""
    with psycopg.connect(postgresql.address, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}".encode())
    if allowed == "false":
        postgresql.end_connections()


@pytest.mark.timeout(600)
async def test_what_cannot_be_read_goes_to_a_topic_of_its_own_and_what_follows_is_taken(
    topics: Topics, producer: Producer, tmp_path: Path
) -> None:
    # What is too large for their topic is told without its content.
    topics.broker.make(f"{topics.outcomes}.refused", partitions=1, **{"max.message.bytes": "4500"})
    secret = "unit-of-somebody"  # noqa: S105 -- what must not be in a log
    report = {"server": "s1", "sequence": 0, "exposures": [exposure("u1")], "counts": [arm("u1", requests=3)]}
    large = body(outcomes({"prediction_id": "x" * 900, "actual": 1})) * 8
    unreadable = {
        secret.encode(): "Invalid JSON",
        body(outcomes({"prediction_id": secret, "actual": "much"})): "outcomes.0.actual",
        large: "more than 4096 bytes",
        gzip.compress(large): "when inflated",
    }
    database_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    arguments = ("--open", "--max-body-bytes", "4096", *topics.arguments)
    with ledger_process(tmp_path, database_url, arguments) as ledger:
        with ledger.client() as client:
            client.put(f"/v1/experiments/{design().salt}", content=design().model_dump_json()).raise_for_status()
        put(producer, topics.exposures, b"{}", body({**report, "sequence": 1 << 52 | 1}))
        put(producer, topics.exposures, gzip.compress(body(report)), **{"content-encoding": "gzip"})
        put(producer, topics.exposures, body(report))
        for value in unreadable:
            encoding = {"content-encoding": "gzip"} if value.startswith(b"\x1f\x8b") else {}
            put(producer, topics.outcomes, value, **encoding)
        put(producer, topics.outcomes, body(outcomes(Told("u1", NOON_US, 1, 0.5, 1).outcome)))
        await until(topics.is_done, timeout_s=PATIENCE_S)
        refused = topics.broker.read(f"{topics.outcomes}.refused", len(unreadable))
        found = {message.value() or large: headers_of(message) for message in refused}
        assert [message.value() for message in refused].count(None) == 1
        assert found.keys() == unreadable.keys()
        assert all(reason in found[value]["reason"] for value, reason in unreadable.items())
        assert {headers["topic"] for headers in found.values()} == {topics.outcomes}
        counted = metrics_of(ledger)
        assert counted["kafka_messages_total", "refused", topics.outcomes] == len(unreadable)
        assert counted["kafka_messages_total", "refused", topics.exposures] == 2
        assert counted["kafka_messages_total", "duplicate", topics.exposures] == 1
        assert secret not in ledger.log
        assert ledger.stop() == 0
    database = Database(database_url)
    assert list(requests(database).values()) == [3]
    assert pending(database) == 1
    database.close()


async def test_without_a_broker_http_goes_on(tmp_path: Path) -> None:
    nobody = ("--kafka-bootstrap-servers", f"127.0.0.1:{free_port()}")
    with ledger_process(tmp_path, arguments=("--open", *nobody)) as ledger:
        await until(lambda: "kafka is away" in ledger.log, timeout_s=PATIENCE_S)
        with ledger.client() as client:
            client.put(f"/v1/experiments/{design().salt}", content=design().model_dump_json()).raise_for_status()
            answer = client.post("/v1/outcomes", json=outcomes(Told("u1", NOON_US, 1, 0.5, 1).outcome))
            assert client.get("/readyz").is_success
        assert answer.json()["accepted"] == 1
        assert metrics_of(ledger)["kafka_connected",] == 0
        assert ledger.stop() == 0
