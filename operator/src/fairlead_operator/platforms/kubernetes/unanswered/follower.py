"""Follows the log of one life of a gateway, and hands on each minute of it when the minute is whole.

A stream is read all the time, lest a log be rotated away unread. It does not tell that a minute is over, nor that
nothing is missing; so each minute that no later line has ended is read once more when it is past.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from fairlead.clock import Clock
from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.errors import Forbidden, KubeError
from fairlead_operator.platforms.kubernetes.unanswered.instances import Instance
from fairlead_operator.platforms.kubernetes.unanswered.minutes import MINUTE_US, Minutes, minute_of, time_us
from fairlead_operator.runtime.keys import ObjectKey

_log = logging.getLogger(__name__)

LOOK_BACK_US: Final = 3_600_000_000
"""How far back a log is read for a deployment that is new to us, as all are after a start."""
_GRACE_US: Final = 10_000_000
"""How long after its end a minute is whole: clocks of nodes differ, and a line is on its way for a moment."""
_BEGINNING_US: Final = 60_000_000
"""Within which of its start a gateway writes its first line; a log that begins later has lost its beginning."""
_TICK_S: Final = 1.0
_AGAIN_S: Final = 2.0
"""Pause after a log could not be read."""
_SILENCE_S: Final = 120.0
"""A stream without a line for so long is opened anew: it may be dead."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0

Tell = Callable[[int, list[bytes], Collection[ObjectKey] | None], Awaitable[None]]
"""Takes in a whole minute, its lines, and the deployments that are told of it; None for all."""


@dataclass(slots=True)
class Noted:
    """What became of logs, counted."""

    late: int = 0
    """Lines that came after their minute was told."""
    lost: int = 0
    """Lines, or requests, that found no room."""
    gap_us: int = 0
    """Of logs' time that was rotated away before it was read."""
    unknown_us: int = 0
    """Of logs' time that was rotated away before we began; who led before may have read it."""
    told: int = 0
    """Requests that ledgers have taken."""
    failures: int = 0
    """How often reading had to be begun anew, for a reason that nobody has thought of."""


@dataclass(slots=True)
class Follower:
    """Follows one log; ``run`` ends when all of it has been handed on."""

    api: KubeApi
    instance: Instance
    clock: Clock
    tell: Tell
    noted: Noted
    refused: Callable[[str | None], None]
    """Called with why the log may not be read, or None when it may."""
    _new: set[ObjectKey] = field(default_factory=set)
    """Deployments that are to be told of what was written before they were known."""
    _minutes: Minutes = field(init=False)
    _begins_us: int | None = None
    """When the first line was written that is kept; None before there is one."""
    _read_us: int = field(init=False)
    """Until when the log has been read."""
    _passed: int = 0
    """The minute of the last line of the stream: earlier ones are whole."""
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _is_previous: bool = False
    """Whether the container has begun another life since."""

    def __post_init__(self) -> None:
        """Begin with the first minute that may not be whole."""
        ended_us = self.instance.ended_us
        first = minute_of(self._now_us - _GRACE_US) if ended_us is None else minute_of(ended_us) + 1
        self._minutes = Minutes(first)
        self._read_us = max(self.instance.started_us + _BEGINNING_US, self._now_us - LOOK_BACK_US)
        if ended_us is not None:
            self.end(is_previous=self.instance.is_previous)

    def add(self, deployments: Iterable[ObjectKey]) -> None:
        """Have deployments told of what is in the log already; what is written from now on is told of all."""
        self._new |= set(deployments)

    def end(self, *, is_previous: bool) -> None:
        """Note that the container has ended, and whether it has begun another life since."""
        self._is_previous = is_previous
        self._ended.set()

    async def run(self) -> None:
        """Follow the log until all that the container wrote is handed on."""
        stream = asyncio.create_task(self._stream())
        try:
            while not self._ended.is_set():
                await self._look()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), _TICK_S)
        finally:
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
        await self._finish()

    @property
    def _now_us(self) -> int:
        return self.clock.now_us()

    async def _look(self) -> None:
        """Hand on what is whole by now."""
        try:
            await self._catch_up()
            while self._now_us >= (self._minutes.open + 1) * MINUTE_US + _GRACE_US:
                if self._passed <= self._minutes.open:
                    await self._read(self._minutes.open)
                await self._hand_on(*self._minutes.close())
        except KubeError as error:
            _log.debug("a gateway's log cannot be read", extra={"pod": str(self.instance.pod), "error": str(error)})
            await asyncio.sleep(_AGAIN_S)

    async def _finish(self) -> None:
        """Hand on the rest; of a pod that has gone, what the stream has brought."""
        with contextlib.suppress(KubeError):
            await self._catch_up()
            await self._read(self._minutes.open)
        for minute, lines in self._minutes.rest():
            await self._hand_on(minute, lines)

    async def _hand_on(self, minute: int, lines: list[bytes]) -> None:
        await self.tell(minute, lines, None)
        self.noted.late += self._minutes.late
        self.noted.lost += self._minutes.lost
        self._minutes.late = self._minutes.lost = 0

    async def _catch_up(self) -> None:
        """Tell new deployments of the minutes before the open one.

        Raises:
            KubeError: The log cannot be read now.
        """
        new, until = frozenset(self._new), self._minutes.open
        if not new:
            return
        since = minute_of(max(self.instance.started_us, self._now_us - LOOK_BACK_US))
        past = Minutes(since)
        async with contextlib.aclosing(self._lines(since)) as lines:
            async for line in lines:
                past.take(line)
        for minute in range(since, until):
            written = past.close()[1]
            if written:
                await self.tell(minute, written, new)
        self._new -= new

    async def _read(self, minute: int) -> None:
        """Read what is there since a minute.

        Raises:
            KubeError: The log cannot be read now.
        """
        begun_us = self._now_us
        async with contextlib.aclosing(self._lines(minute)) as lines:
            async for line in lines:
                self._minutes.take(line)
        self._read_us = max(self._read_us, begun_us)

    async def _stream(self) -> None:
        """Read as it is written, again and again."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._look_for_gap()
                async with contextlib.aclosing(self._lines(self._minutes.open, follow=True)) as lines:
                    async for line in lines:
                        self._take(line)
                        pause_s = _FIRST_PAUSE_S
            except KubeError as error:
                _log.debug("a gateway's log is read anew", extra={"pod": str(self.instance.pod), "error": str(error)})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _take(self, line: bytes) -> None:
        at_us = self._minutes.take(line)
        if at_us is not None:
            self._read_us = max(self._read_us, at_us)
            self._passed = max(self._passed, minute_of(at_us))

    async def _look_for_gap(self) -> None:
        """Note what was rotated away since the log was read.

        Raises:
            KubeError: The log cannot be read now.
        """
        begins_us = None
        async with contextlib.aclosing(self._lines(None)) as lines:
            async for line in lines:
                begins_us = time_us(line)
                break
        before_us, self._begins_us = self._begins_us, begins_us or self._begins_us
        gap_us = max((begins_us or 0) - self._read_us, 0)
        if not gap_us or begins_us == before_us:
            return
        if before_us is None:
            self.noted.unknown_us += gap_us
        else:
            self.noted.gap_us += gap_us
            _log.warning("a gateway's log was rotated unread", extra={"pod": str(self.instance.pod), "gap_us": gap_us})

    async def _lines(self, minute: int | None, *, follow: bool = False) -> AsyncGenerator[bytes, None]:
        """Yield lines since a minute; None for all.

        Raises:
            KubeError: The log cannot be read (any more).
        """
        since_s = minute * (MINUTE_US // 1_000_000) if minute is not None else None
        try:
            async for line in self.api.log(
                self.instance.pod,
                self.instance.container,
                since_s=since_s,
                follow=follow,
                previous=self._is_previous,
                silence_s=_SILENCE_S,
            ):
                self.refused(None)
                yield line
        except Forbidden as error:
            self.refused(str(error))
            raise
        self.refused(None)
