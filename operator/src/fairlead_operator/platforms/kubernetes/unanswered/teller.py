"""Tells a ledger of one deployment's requests that no server answered, one report after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from fairlead.feedback.messages import ExposureReport
from fairlead_operator.platforms.kubernetes.unanswered.follower import Noted
from fairlead_operator.platforms.kubernetes.unanswered.minutes import Told
from fairlead_operator.runtime.ledger import LedgerClient, LedgerError, ReportRefused

_log = logging.getLogger(__name__)

MOST_REPORTS: Final = 500
"""That wait for a ledger which does not answer; the oldest make room."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


@dataclass(slots=True)
class Teller:
    """Tells of one deployment. What waits here is in the log still, so that a leader who comes next tells it."""

    client: LedgerClient
    told: Told
    noted: Noted
    _waiting: deque[ExposureReport] = field(default_factory=deque)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, reports: Iterable[ExposureReport]) -> None:
        """Have reports told."""
        for report in reports:
            if len(self._waiting) >= MOST_REPORTS:
                self._lose(self._waiting.popleft())
            self._waiting.append(report)
        self._filled.set()

    def beat(self, report: ExposureReport) -> None:
        """Have an empty report told, unless others wait: they say as much."""
        if not self._waiting:
            self.put([report])

    async def run(self) -> None:
        """Tell until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                if await self._tell(self._waiting[0]):
                    pause_s = _FIRST_PAUSE_S
                else:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _tell(self, report: ExposureReport) -> bool:
        """Tell one report; return whether it is done with."""
        try:
            await self.client.tell(self.told.ledger, report, self.told.api_key)
        except ReportRefused as error:
            # What is refused for its content would be refused for ever; it is given up, for the sake of what follows.
            _log.warning("unanswered requests not taken", extra={"error": str(error)[:300]})
            self._lose(report)
        except LedgerError as error:
            _log.info("unanswered requests not told", extra={"error": str(error)[:300]})
            return False
        else:
            self.noted.told += _requests(report)
        if self._waiting and self._waiting[0] is report:  # it may have made room meanwhile
            self._waiting.popleft()
        return True

    def _lose(self, report: ExposureReport) -> None:
        self.noted.lost += _requests(report)


def _requests(report: ExposureReport) -> int:
    return sum(block.requests for block in report.blocks)
