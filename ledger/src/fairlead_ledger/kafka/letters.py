"""Dead letters: messages that cannot be read, in a topic of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fairlead.feedback.kafka import ENCODING_HEADER
from fairlead_ledger.kafka.messages import Received, Unread
from fairlead_ledger.kafka.metrics import MessageFate
from fairlead_ledger.kafka.settings import KafkaSettings
from fairlead_ledger.kafka.taking import Later

_LOG = logging.getLogger(__name__)

_NEVER = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 -- the library's names for its own errors begin so
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_WAIT_S = 30.0


class DeadLetters:
    """The topics of messages that cannot be read; used by one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Make it; it connects when it first sends."""
        self._settings = settings
        self._producer: Producer | None = None

    def post(self, unread: Sequence[Unread]) -> Sequence[MessageFate]:
        """Send messages to ``<topic>.refused``; return of each whether it is there, or never can be.

        Raises:
            Later: It cannot be told now.
        """
        errors = self._sent([(one, one.message.value) for one in unread])
        for place, one in enumerate(unread):
            # They may be too large together; one that is so alone is told without its content.
            for value in (one.message.value, None):
                if _is_among(_TOO_LARGE, errors[place]):
                    errors[place] = self._sent([(one, value)])[0]
        if any(error is not None and not _is_among(_NEVER | _TOO_LARGE, error) for error in errors):
            raise Later("refused-topic")
        return [MessageFate.REFUSED if error is None else MessageFate.DROPPED for error in errors]

    def _sent(self, letters: Sequence[tuple[Unread, bytes | None]]) -> list[KafkaError | None]:
        """Send messages and wait for what the broker says of each."""
        if not letters:
            return []
        if self._producer is None:
            self._producer = Producer(self._settings.producer())
        waiting = KafkaError(KafkaError._TIMED_OUT)  # noqa: SLF001 -- as above
        said: list[KafkaError | None] = [waiting] * len(letters)

        def heard(place: int, error: KafkaError | None, _: Message | None = None) -> None:
            said[place] = error

        for place, (unread, value) in enumerate(letters):
            message = unread.message
            try:
                self._producer.produce(
                    f"{message.topic}.refused",
                    value,
                    headers=_headers(unread),
                    on_delivery=partial(heard, place),
                )
            except BufferError:
                self._producer.flush(_WAIT_S)
            except KafkaException as error:
                heard(place, error.args[0])
        self._producer.flush(_WAIT_S)
        return said


def _is_among(codes: frozenset[int], error: KafkaError | None) -> bool:
    return error is not None and error.code() in codes


def _headers(unread: Unread) -> list[tuple[str, str | bytes | None]]:
    message: Received = unread.message
    place = [("topic", message.topic), ("partition", str(message.partition)), ("offset", str(message.offset))]
    return [("reason", unread.reason), *place, *([(ENCODING_HEADER, message.encoding)] if message.encoding else [])]
