"""Reads both topics and keeps what they tell: each message is done with only once the database has it.

One thread asks for messages, has them written, and then commits how far it got. A process that ends in between is told
the same messages again, as is the one that its partitions go to; what they tell is kept once, by the keys that
the ledger has of reports and outcomes.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Thread

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fairlead.feedback.messages import ExposureReport, OutcomeBatch
from fairlead_ledger.kafka import messages
from fairlead_ledger.kafka.letters import DeadLetters
from fairlead_ledger.kafka.messages import Read, Unread
from fairlead_ledger.kafka.metrics import KafkaMetrics, MessageFate
from fairlead_ledger.kafka.settings import KafkaSettings
from fairlead_ledger.kafka.statistics import statistics
from fairlead_ledger.kafka.taking import Later, Taking, Unfit
from fairlead_ledger.service import Service

_LOG = logging.getLogger(__name__)

_MOST_MESSAGES = 500
_POLL_S = 0.25
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0


class Reassigned(Exception):
    """What is in hand is read again, here or elsewhere."""


@dataclass(slots=True)
class _Pause:
    """Grows with each failure in a row."""

    pause_s: float = _FIRST_PAUSE_S

    def next(self) -> float:
        pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, _LONGEST_PAUSE_S)
        return pause_s


class KafkaIntake:
    """A thread that reads Kafka for one ledger process."""

    def __init__(self, service: Service, settings: KafkaSettings) -> None:
        """Make it; :meth:`start` starts it."""
        self._settings = settings
        self._taking = Taking(service)
        self._letters = DeadLetters(settings)
        self._most_bytes = service.limits.body_bytes
        self._polled_s = time.monotonic()
        self._metrics = KafkaMetrics(service.metrics.registry, settings.topics, self._poll_age_s)
        self._closing = Event()
        self._assignments = 0
        self._early: list[Message] = []
        """Messages that came while earlier ones were still tried."""
        self._done: dict[tuple[str, int], int] = {}
        """By topic and partition, the offset after the last message that is done with."""
        self._is_committed = True
        self._is_paused = False
        self._is_connected = True
        self._said: set[str] = set()
        self._thread = Thread(target=self._run, name="ledger-kafka", daemon=True)

    def start(self) -> None:
        """Read from now on."""
        self._polled_s = time.monotonic()
        self._thread.start()

    def close(self, deadline_s: float) -> bool:
        """Finish what is being written, commit it, and leave the group; return whether that was done in time."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _poll_age_s(self) -> float:
        return time.monotonic() - self._polled_s

    def _run(self) -> None:
        pause = _Pause()
        while not self._closing.is_set():
            try:
                self._consume(pause)
            except Exception as error:  # noqa: BLE001 -- the loop's top: the next one begins where this one committed
                self._metrics.retried("consumer")
                _LOG.warning("kafka consumer begins anew error=%s", type(error).__name__)
                self._closing.wait(pause.next())

    def _consume(self, pause: _Pause) -> None:
        """Read until the end, or until something fails that nobody foresaw."""
        heard = {"stats_cb": self._heard, "error_cb": self._failed, "on_commit": self._committed}
        consumer = Consumer({**self._settings.consumer(), **heard})
        changed = {"on_assign": self._reassigned, "on_revoke": self._reassigned, "on_lost": self._reassigned}
        try:
            consumer.subscribe(list(self._settings.topics), **changed)
            while not self._closing.is_set():
                self._step(consumer)
                pause.pause_s = _FIRST_PAUSE_S
        finally:
            consumer.close()  # once commits are through it leaves the group
            self._forget()

    def _step(self, consumer: Consumer) -> None:
        if self._is_paused:
            consumer.resume(consumer.assignment())
            self._is_paused = False
        if not self._is_committed:
            self._commit(consumer)
        polled = self._polled(consumer, _MOST_MESSAGES, _POLL_S)
        found, self._early = [*self._early, *polled], []
        for part in messages.parts([self._read(message) for message in found]):
            try:
                self._settle(consumer, part)
            except Reassigned:
                return
            self._done |= {(one.message.topic, one.message.partition): one.message.offset + 1 for one in part}
            self._commit(consumer)

    def _polled(self, consumer: Consumer, most: int, wait_s: float) -> list[Message]:
        """Ask for messages; that is also what keeps this process in the group."""
        self._polled_s = time.monotonic()
        found = []
        for message in consumer.consume(most, wait_s):
            error = message.error()
            if error is None:
                found.append(message)
            else:
                self._failed(error)
        return found

    def _read(self, message: Message) -> Read | Unread:
        place = (message.topic(), message.partition(), message.offset())
        received = messages.received(*place, message.value(), message.headers())
        kind = ExposureReport if received.topic == self._settings.exposures_topic else OutcomeBatch
        return messages.read(received, kind, self._most_bytes)

    def _settle(self, consumer: Consumer, part: Sequence[Read | Unread]) -> None:
        """Have messages kept, or put where those are that cannot be read, however long it takes.

        Raises:
            Reassigned: They were given to somebody else meanwhile, or the end has come.
        """
        assignments, pause = self._assignments, _Pause()
        while True:
            try:
                return self._keep(part)
            except Later as error:
                if pause.pause_s == _FIRST_PAUSE_S:
                    _LOG.warning("kafka messages wait reason=%s", error)
                self._metrics.retried(str(error))
                self._wait(consumer, pause.next(), assignments)

    def _wait(self, consumer: Consumer, pause_s: float, assignments: int) -> None:
        """Let time pass without new messages, but stay in the group."""
        consumer.pause(consumer.assignment())
        self._is_paused = True
        end_s = time.monotonic() + pause_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._early += self._polled(consumer, 1, min(left_s, _POLL_S))
            if self._closing.is_set() or self._assignments != assignments:
                raise Reassigned

    def _keep(self, part: Sequence[Read | Unread]) -> None:
        try:
            fates = self._write([one for one in part if isinstance(one, Read)])
        except Unfit as error:
            if len(part) > 1:
                for one in part:
                    self._keep([one])
                return
            part = [Unread(part[0].message, f"no database can keep it: {error}")]
            fates = Counter()
        fates += self._refuse([one for one in part if isinstance(one, Unread)])
        for (topic, fate), number in fates.items():
            self._metrics.count(topic, fate, number)

    def _write(self, read: Sequence[Read]) -> Counter[tuple[str, MessageFate]]:
        """Have messages written, what servers told before what became of it."""
        fates: Counter[tuple[str, MessageFate]] = Counter()
        for topic, take in (
            (self._settings.exposures_topic, self._taking.reports),
            (self._settings.outcomes_topic, self._taking.outcomes),
        ):
            if of_topic := [one for one in read if one.message.topic == topic]:
                taken = take(of_topic)
                fates[topic, MessageFate.TAKEN] += taken.new
                fates[topic, MessageFate.DUPLICATE] += taken.duplicates
        return fates

    def _refuse(self, unread: Sequence[Unread]) -> Counter[tuple[str, MessageFate]]:
        fates: Counter[tuple[str, MessageFate]] = Counter()
        for one, fate in zip(unread, self._letters.post(unread), strict=True):
            told = one.message
            place = (told.topic, told.partition, told.offset)
            _LOG.warning("kafka message %s topic=%s partition=%s offset=%s reason=%s", fate.value, *place, one.reason)
            fates[told.topic, fate] += 1
        return fates

    def _commit(self, consumer: Consumer) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in self._done.items()]
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._committed(error.args[0], [])
        else:
            self._is_committed = True

    def _committed(self, error: KafkaError | None, _: Sequence[TopicPartition]) -> None:
        if error is not None:
            self._is_committed = not self._done
            self._metrics.retried("commit")
            _LOG.warning("kafka commit failed error=%s", error.name())

    def _reassigned(self, _: Consumer, __: Sequence[TopicPartition]) -> None:
        self._assignments += 1
        self._forget()

    def _forget(self) -> None:
        self._early.clear()
        self._done.clear()
        self._is_committed = True

    def _heard(self, told: str) -> None:
        found = statistics(told)
        self._metrics.lags(found.lags)
        self._metrics.connected(found.is_connected)
        if found.is_connected != self._is_connected:
            _LOG.warning("kafka is %s", "there again" if found.is_connected else "away")
        if found.is_connected:
            self._said.clear()
        self._is_connected = found.is_connected

    def _failed(self, error: KafkaError) -> None:
        """Log what the library tells, once until it is connected again."""
        if error.name() not in self._said:
            _LOG.warning("kafka error=%s", error.name())
        self._said.add(error.name())
