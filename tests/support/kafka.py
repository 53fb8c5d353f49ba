"""A real Kafka broker for tests: one node that is its own controller, on a port of the loopback."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from support.servers import free_port

_TOOL = Path(__file__).resolve().parents[2] / "tools/kafka"
_JAVA = (
    "-Xmx256m",
    "-Xss256k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)
_ALONE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "1",
    "log.cleaner.enable": "false",
    "num.partitions": "2",
}
_CLUSTER = "ZmFpcmxlYWR0ZXN0c2tma2"
_AS_IT_IS = {"log_level": "0"}  # a broker that is away is part of the tests


class KafkaBroker:
    """A broker that keeps its port and its messages when it is stopped and started again."""

    def __init__(self, jars: Path, folder: Path, host: str = "127.0.0.1") -> None:
        self._jars = jars
        self._folder = folder
        self.port, controller = free_port(host), free_port(host)
        self.address = f"{host}:{self.port}"
        store = folder / "store"
        store.mkdir()
        # What `kafka-storage format` writes, without another Java.
        (store / "meta.properties").write_text(f"version=1\ncluster.id={_CLUSTER}\nnode.id=1\n")
        self._settings = folder / "server.properties"
        where = {
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{host}:{controller}",
            "controller.quorum.voters": f"1@{host}:{controller}",
            "log.dirs": str(store),
        }
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in (_ALONE | where).items()))
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: dict[str, Consumer] = {}

    @property
    def process(self) -> int:
        """Id of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 120) -> None:
        command = ["java", *_JAVA, "-cp", f"{self._jars}/*", "kafka.Kafka", str(self._settings)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        end = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Kafka did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def make(self, *topics: str, partitions: int = 2, **settings: str) -> None:
        """Make topics."""
        admin = self._admin()  # kept until it is done
        made = admin.create_topics([NewTopic(topic, partitions, 1, config=settings) for topic in topics])
        for one in made.values():
            one.result()

    def producer(self, **settings: str) -> Producer:
        """Return a producer that answers for what it sends."""
        return Producer({"bootstrap.servers": self.address, "acks": "all", "linger.ms": "2", **_AS_IT_IS, **settings})

    def committed(self, group: str, topic: str, partitions: int = 2) -> int:
        """Return how many messages of a topic a group has done with."""
        return sum(max(one.offset, 0) for one in self._kept(group).committed(_all(topic, partitions), timeout=30))

    def length(self, topic: str, partitions: int = 2) -> int:
        """Return how many messages a topic has got."""
        reader = self._kept("length")
        return sum(reader.get_watermark_offsets(one, timeout=30)[1] for one in _all(topic, partitions))

    def read(self, topic: str, count: int, timeout_s: float = 60) -> Sequence[Message]:
        """Return the first messages of a topic.

        Raises:
            TimeoutError: There are not so many of them.
        """
        reader, end = self._reader("read"), time.monotonic() + timeout_s
        reader.subscribe([topic])
        found: list[Message] = []
        try:
            while len(found) < count:
                found += [message for message in reader.consume(count, timeout=0.2) if message.error() is None]
                if time.monotonic() > end:
                    raise TimeoutError(f"{topic} has {len(found)} of {count} messages")
        finally:
            reader.close()
        return found

    def _kept(self, group: str) -> Consumer:
        """Return a reader that stays connected."""
        if group not in self._readers:
            self._readers[group] = self._reader(group)
        return self._readers[group]

    def _reader(self, group: str) -> Consumer:
        how = {
            "enable.auto.commit": "false",
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": "200",
        }
        return Consumer({"bootstrap.servers": self.address, "group.id": group, **how, **_AS_IT_IS})

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, **_AS_IT_IS})

    def _answers(self) -> bool:
        try:
            found = self._admin().list_topics(timeout=1)
        except KafkaException:
            threading.Event().wait(0.05)
            return False
        return bool(found.brokers)


def headers_of(message: Message) -> Mapping[str, str]:
    """Return a message's headers."""
    found: Any = message.headers() or []
    return {name: value.decode() for name, value in found}


def jars() -> Path | None:
    """Return the folder of the broker's jars; None if it, or Java, is not here."""
    where = subprocess.run([sys.executable, _TOOL, "where"], capture_output=True, text=True, check=False)
    return None if where.returncode or shutil.which("java") is None else Path(where.stdout.strip())


@contextmanager
def kafka_broker(host: str = "127.0.0.1") -> Iterator[KafkaBroker]:
    """Run a broker for tests on an address of this machine; skips where there is none."""
    found = jars()
    if found is None:
        pytest.skip("there is no Kafka broker (needs Java and Maven; make setup fetches it)")
    folder = Path(tempfile.mkdtemp(prefix="fairlead-kafka-"))
    broker = KafkaBroker(found, folder, host)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _all(topic: str, partitions: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(partitions)]
