"""Reports to Kafka: one at a time, each until every broker that must has it.

Nothing here waits on the event loop: the library sends in threads of its own, and is asked now and then what it heard.
"""

from __future__ import annotations

import asyncio
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fairlead.feedback.kafka import ENCODING_HEADER, KafkaTarget
from fairlead.feedback.serving import Feedback
from fairlead_server.exposure.sink import Delivery, Reception

_OF_THE_SENDER = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 -- the library's names for its own errors begin so
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 -- as above
    }
)
"""About topic or account, which somebody may put right, rather than about the report."""
_NEVER = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})
_FIRST_LOOK_S = 0.005
_LONGEST_LOOK_S = 0.1


class KafkaSink:
    """A topic; the connections are kept until the server is told of another one."""

    def __init__(self) -> None:
        """Make the sink; it connects when it first sends."""
        self._producer: Producer | None = None
        self._target: KafkaTarget | None = None
        self._heard = ""

    async def send(self, feedback: Feedback, body: bytes, deadline_s: float) -> Delivery:
        """Send one report; see :class:`~fairlead_server.exposure.sink.Sink`."""
        target = feedback.kafka
        if target is None:
            return Delivery(Reception.FAILED, "no brokers are told")
        try:
            async with asyncio.timeout(deadline_s):
                return await self._send(target, body, deadline_s)
        except asyncio.CancelledError:
            await self.close()  # what is under way may still arrive; told again it counts once
            raise
        except TimeoutError:
            reason = f"no answer within {deadline_s:.3g} s {self._heard}".rstrip()
            await self.close()
            return Delivery(Reception.FAILED, reason)
        except KafkaException as error:
            return _delivery(error.args[0])
        except (BufferError, ValueError, TypeError) as error:
            return Delivery(Reception.FAILED, type(error).__name__)

    async def close(self) -> None:
        """Let go of the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.to_thread(_end, producer)

    async def _send(self, target: KafkaTarget, body: bytes, deadline_s: float) -> Delivery:
        if self._producer is None or self._target != target:
            await self.close()
            self._producer = await asyncio.to_thread(self._connected, target, deadline_s)
            self._target = target
        producer = self._producer
        said: list[KafkaError | None] = []
        headers: list[tuple[str, str | bytes | None]] = [(ENCODING_HEADER, b"gzip")]
        producer.produce(target.topic, body, headers=headers, on_delivery=partial(_hear, said))
        look_s = _FIRST_LOOK_S
        while not said:
            await asyncio.sleep(look_s)
            producer.poll(0)
            look_s = min(2 * look_s, _LONGEST_LOOK_S)
        return Delivery(Reception.TAKEN) if said[0] is None else _delivery(said[0])

    def _connected(self, target: KafkaTarget, deadline_s: float) -> Producer:
        own = {
            "bootstrap.servers": target.bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": max(1000, round(deadline_s * 1000)),
            "log_level": 0,
            "error_cb": self._failed,
        }
        return Producer({"linger.ms": 0, **target.config, **own})

    def _failed(self, error: KafkaError) -> None:
        self._heard = error.name()


def _hear(said: list[KafkaError | None], error: KafkaError | None, _: Message) -> None:
    said.append(error)


def _end(producer: Producer) -> None:
    producer.purge()
    producer.flush(1)


def _delivery(error: KafkaError) -> Delivery:
    if error.code() in _NEVER:
        return Delivery(Reception.REFUSED, error.name())
    return Delivery(Reception.POSTPONED if error.code() in _OF_THE_SENDER else Reception.FAILED, error.name())
