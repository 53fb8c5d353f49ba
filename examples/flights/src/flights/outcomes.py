"""What became of predictions, told to the ledger by the application: prediction id and what happened, in batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from fairlead.feedback.messages import MOST_OUTCOMES
from flights.errors import FlightsError
from flights.replay import HOUR_US

_TRIES = 8


class OutcomesNotTold(FlightsError):
    """The ledger did not take outcomes; the message says why."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of the outcomes that were told."""

    accepted: int = 0
    duplicates: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """By why."""

    def __add__(self, other: Told) -> Told:
        """Return what became of both."""
        refused = Counter(self.refused) + Counter(other.refused)
        return Told(self.accepted + other.accepted, self.duplicates + other.duplicates, dict(refused))


@dataclass(slots=True)
class Outcomes:
    """Tells outcomes in the background, never more than an hour of simulated time behind.

    A batch that was told is waited for before the next one leaves, so that time cannot run away from a slow ledger.
    """

    session: aiohttp.ClientSession
    url: Callable[[], str | None]
    """Address of the ledger at the moment; None while there is none."""
    told: Told = field(default_factory=Told)
    pause_s: float = 0.25
    """Before the second try; each later one waits twice as long."""
    _waiting: list[dict[str, str | int]] = field(default_factory=list)
    _since_us: int = 0
    _telling: asyncio.Task[None] | None = None

    def add(self, prediction_id: str, actual: int) -> None:
        """Take what happened; it is told with the next batch."""
        self._waiting.append({"prediction_id": prediction_id, "actual": actual})

    async def advance(self, time_us: int) -> None:
        """Begin to tell what waits, if an hour of simulated time has passed since that was done last.

        Raises:
            OutcomesNotTold: The batch before was not taken.
        """
        if time_us - self._since_us >= HOUR_US:
            self._since_us = time_us
            await self._settle()
            batch, self._waiting = self._waiting, []
            if batch:
                self._telling = asyncio.create_task(self._tell(batch))

    async def finish(self) -> None:
        """Tell what is left.

        Raises:
            OutcomesNotTold: The ledger does not take it.
        """
        await self.advance(self._since_us + HOUR_US)
        await self._settle()

    async def _settle(self) -> None:
        if self._telling is not None:
            await self._telling
            self._telling = None

    async def _tell(self, batch: list[dict[str, str | int]]) -> None:
        for first in range(0, len(batch), MOST_OUTCOMES):
            answer = await self._post(orjson.dumps({"outcomes": batch[first : first + MOST_OUTCOMES]}))
            self.told += Told(
                answer["accepted"], answer["duplicates"], Counter(one["fate"] for one in answer["refused"])
            )

    async def _post(self, body: bytes) -> Any:
        """Post a batch until it is taken: a ledger that is being restarted loses nothing by it."""
        failure = "there is none"
        for attempt in range(_TRIES):
            url = self.url()
            if url is not None:
                try:
                    headers = {"content-type": "application/json"}
                    async with self.session.post(f"{url}/v1/outcomes", data=body, headers=headers) as response:
                        answer = await response.read()
                        if response.ok:
                            return orjson.loads(answer)
                        failure = f"{response.status} {answer[:120].decode('utf-8', 'replace')}"
                except (aiohttp.ClientError, TimeoutError) as error:
                    failure = type(error).__name__
            await asyncio.sleep(self.pause_s * 2**attempt)
        raise OutcomesNotTold(f"the ledger does not take outcomes ({failure})")
