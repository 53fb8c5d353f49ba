"""What the demo sees of ``fairlead up``: its published status, as anybody may read it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_POLL_S = 0.02
_SPLITTING = frozenset({"Ramping", "Deciding"})
_BEFORE = frozenset({"Pending", "Deploying"})


class Watch:
    """Reads a deployment's status when it has changed."""

    def __init__(self, status_file: Path) -> None:
        """Look at ``status_file``, which may not be there yet."""
        self._file = status_file
        self._seen: tuple[int, int] | None = None
        self._status: dict[str, Any] = {}

    @property
    def status(self) -> dict[str, Any]:
        """The status as it is published; empty before the first."""
        try:
            found = self._file.stat()
        except OSError:
            return {}
        seen = (found.st_mtime_ns, found.st_ino)
        if seen != self._seen:
            self._seen, self._status = seen, json.loads(self._file.read_bytes())["status"]
        return self._status

    @property
    def experiment(self) -> dict[str, Any]:
        """What is said of the experiment; empty if there is none."""
        found: dict[str, Any] = self.status.get("experiment") or {}
        return found

    @property
    def rollout(self) -> dict[str, Any]:
        """What is said of the rollout."""
        found: dict[str, Any] = self.status.get("rollout") or {}
        return found

    @property
    def decision(self) -> dict[str, Any] | None:
        """How it was decided; None if it was not."""
        found: dict[str, Any] | None = self.rollout.get("decision")
        return found

    @property
    def ledger(self) -> str | None:
        """Address of the ledger: the page's."""
        page = self.experiment.get("page")
        if not page:
            return None
        parts = urlsplit(page)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def is_observed(self) -> bool:
        """Whether requests are part of the experiment, or no longer need to be."""
        state = self.rollout.get("state", "Pending")
        return state not in _BEFORE and (state not in _SPLITTING or bool(self.experiment.get("observing")))

    @property
    def is_settled(self) -> bool:
        """Whether the experiment was decided, and what was decided is in force and on record."""
        decision = self.decision
        return self.rollout.get("state") == "Stable" and decision is not None and bool(decision.get("record"))

    @property
    def line(self) -> str:
        """Where the rollout stands, in a few words."""
        decision, step = self.decision, int(self.rollout.get("step", 0)) + 1
        if decision is not None and decision["verdict"] != "Hold":
            return f"{decision['verdict']} ({decision['reason']})"
        return f"step {step}, {self.experiment.get('reason', 'no word yet')}"

    async def until(self, met: Callable[[], bool], within_s: float) -> bool:
        """Return whether something came about, at most ``within_s`` real seconds later."""
        end = time.monotonic() + within_s
        while not met():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_POLL_S)
        return True
