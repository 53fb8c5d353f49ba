"""Kubernetes Events: what a user sees in ``kubectl describe``. Posted on transitions alone, never waited for.

An Event is news, not state: when it cannot be posted, it is counted and dropped; conditions tell the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from fairlead.clock import Clock, from_us
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.api import KubeApi, Resource
from fairlead_operator.platforms.kubernetes.kinds import EVENT, GROUP

_log = logging.getLogger(__name__)

_NOTE_LIMIT_BYTES = 1024
_REMEMBERED = 4096
_WAITING = 256


class EventType(StrEnum):
    """How bad it is."""

    NORMAL = "Normal"
    WARNING = "Warning"


class EventResult(StrEnum):
    """What became of an Event."""

    POSTED = "posted"
    REPEATED = "repeated"
    """The same was posted a short while ago."""
    DROPPED = "dropped"
    """Too many wait."""
    FAILED = "failed"


EventObserver: TypeAlias = Callable[[EventResult], None]


@dataclass(frozen=True, slots=True)
class _News:
    about: Mapping[str, Any]
    reason: str
    note: str
    type: EventType
    action: str


def _ignore(result: EventResult) -> None:
    """Count nothing."""


class EventSink:
    """Takes news at once and posts it behind the scenes."""

    def __init__(
        self,
        api: KubeApi,
        *,
        instance: str,
        clock: Clock,
        new_id: Callable[[], str],
        quiet_s: float = 600.0,
        observe: EventObserver = _ignore,
    ) -> None:
        """Make a sink; it posts once :meth:`run` does.

        Args:
            api: The fenced one: only the leader tells news.
            instance: Which process tells.
            clock: When it happened.
            new_id: Part of an Event's name, 8 or more characters of [a-z0-9].
            quiet_s: How long the same news about the same object is not told again.
            observe: Counts.
        """
        self._api = api
        self._instance = instance[:128]
        self._clock = clock
        self._new_id = new_id
        self._quiet_us = int(quiet_s * 1e6)
        self._observe = observe
        self._told: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._waiting: asyncio.Queue[_News] = asyncio.Queue(_WAITING)

    def post(
        self,
        about: Mapping[str, Any],
        reason: str,
        note: str,
        *,
        action: str = "Reconcile",
        type: EventType = EventType.NORMAL,  # noqa: A002 -- the API's own word
    ) -> None:
        """Tell news about an object; call it on transitions alone.

        Args:
            about: The object, with apiVersion, kind and metadata.
            reason: CamelCase, one of the documented list.
            note: For people; cut at 1 KiB.
            action: What was being done, CamelCase.
            type: How bad it is.
        """
        news = (about["metadata"].get("uid", ""), reason, note)
        if self._is_repeated(news):
            self._observe(EventResult.REPEATED)
            return
        try:
            self._waiting.put_nowait(_News(about, reason, note, type, action))
        except asyncio.QueueFull:
            del self._told[news]
            self._observe(EventResult.DROPPED)

    async def run(self) -> None:
        """Post what waits, until cancelled."""
        while True:
            news = await self._waiting.get()
            try:
                await self._api.create(EVENT, self._event(news))
            except OperatorError as error:
                self._observe(EventResult.FAILED)
                _log.info("an event could not be posted", extra={"reason": news.reason, "error": type(error).__name__})
            else:
                self._observe(EventResult.POSTED)

    def _is_repeated(self, news: tuple[str, str, str]) -> bool:
        now = self._clock.now_us()
        told = self._told.get(news)
        if told is not None and now - told < self._quiet_us:
            return True
        self._told[news] = now
        self._told.move_to_end(news)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return False

    def _event(self, news: _News) -> Resource:
        metadata = news.about["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace") or "default"
        regarding = {
            "apiVersion": news.about["apiVersion"],
            "kind": news.about["kind"],
            "name": name,
            "namespace": metadata.get("namespace", ""),
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{name}.{self._new_id()}", "namespace": namespace},
            "eventTime": from_us(self._clock.now_us()).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance,
            "action": news.action,
            "reason": news.reason,
            "regarding": {field: value for field, value in regarding.items() if value},
            "note": news.note.encode()[:_NOTE_LIMIT_BYTES].decode(errors="ignore"),
            "type": news.type.value,
        }
