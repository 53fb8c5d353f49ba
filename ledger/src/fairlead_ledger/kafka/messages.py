"""From messages to what they tell; those that cannot be read are told apart. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairlead.feedback.kafka import ENCODING_HEADER
from fairlead.feedback.messages import ExposureReport, OutcomeBatch
from fairlead_ledger import body
from fairlead_ledger.errors import Refusal, TooLarge
from fairlead_ledger.store.reports import misfit

Headers = dict[str, str | bytes | None] | list[tuple[str, str | bytes | None]] | None
"""Headers of a message as the library has them."""

TOGETHER = 5_000
"""Weight of what is written at once: outcomes, or entries of reports."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came."""

    topic: str
    partition: int
    offset: int
    value: bytes
    encoding: str = ""
    """Its header content-encoding."""


@dataclass(frozen=True, slots=True)
class Read:
    """A message and what it tells."""

    message: Received
    told: ExposureReport | OutcomeBatch

    @property
    def weight(self) -> int:
        """How much it brings."""
        if isinstance(self.told, OutcomeBatch):
            return len(self.told.outcomes)
        parts = (self.told.exposures, self.told.counts, self.told.blocks, self.told.mismatches)
        return 1 + sum(map(len, parts))


@dataclass(frozen=True, slots=True)
class Unread:
    """A message that will never be taken."""

    message: Received
    reason: str
    """Why: a field and its rule, nothing that was sent."""


def received(
    topic: str | None,
    partition: int | None,
    offset: int | None,
    value: bytes | str | None,
    headers: Headers,
) -> Received:
    """Return a message in the ledger's own form, made of what the library tells."""
    named = headers.items() if isinstance(headers, dict) else headers or ()
    said = next((told for name, told in named if name.lower() == ENCODING_HEADER), None)
    encoding = said.decode("ascii", "replace") if isinstance(said, bytes) else said or ""
    raw = value.encode() if isinstance(value, str) else value or b""
    return Received(topic or "", partition or 0, offset or 0, raw, encoding)


def read(message: Received, kind: type[ExposureReport | OutcomeBatch], most_bytes: int) -> Read | Unread:
    """Return what a message tells, or why it cannot be read.

    Args:
        message: As it came.
        kind: What its topic carries.
        most_bytes: Longest value, as sent and inflated.
    """
    try:
        if len(message.value) > most_bytes:
            raise TooLarge(f"the message has more than {most_bytes} bytes")
        told = body.parsed(body.inflated(message.value, message.encoding, most_bytes), kind)
    except Refusal as error:
        return Unread(message, str(error))
    why = misfit(told) if isinstance(told, ExposureReport) else None
    return Read(message, told) if why is None else Unread(message, why)


def parts(found: Sequence[Read | Unread]) -> Iterator[Sequence[Read | Unread]]:
    """Cut messages, in their order, into parts of bounded weight."""
    part: list[Read | Unread] = []
    weight = 0
    for one in found:
        following = one.weight if isinstance(one, Read) else 1
        if part and weight + following > TOGETHER:
            yield part
            part, weight = [], 0
        part.append(one)
        weight += following
    if part:
        yield part
