"""A whole ledger in this process, and a wire to it that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import httpx

from fairlead_ledger.access import Access, Open
from fairlead_ledger.analysis import routes as analysis
from fairlead_ledger.app import application
from fairlead_ledger.intake.queue import Queue
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.metrics import LedgerMetrics
from fairlead_ledger.page import routes as page
from fairlead_ledger.service import Limits, Service
from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from support.ledgers import ROOT, StillClock


class LedgerStand(httpx.AsyncBaseTransport):
    """Answers as the ledger does, whatever host is asked; remembers what it was asked."""

    def __init__(self, folder: Path, access: Access | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        database = Database(f"sqlite:///{folder / 'ledger.db'}")
        versions.upgrade(database)
        self.clock = StillClock()
        self.ledger = Ledger(database, ROOT, self.clock)
        queue = Queue(most=1000, most_together=1000)
        service = Service(self.ledger, queue, access or Open(), LedgerMetrics(), Limits())
        self._inner = httpx.ASGITransport(application(service, (analysis.ROUTES, page.ROUTES)))
        self.asked: list[tuple[str, str]] = []
        """Method and path, in order."""
        self.headers: Mapping[str, str] = {}
        """Of the last request."""
        self.fault: Exception | None = None
        """What every request ends with."""
        self.hangs = False
        """Whether every request is left without an answer."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path))
        self.headers = request.headers
        if self.hangs:
            timeout_s = request.extensions["timeout"]["read"]
            await asyncio.sleep(timeout_s)
            raise httpx.ReadTimeout("no answer", request=request)
        if self.fault is not None:
            raise self.fault
        return await self._inner.handle_async_request(request)

    def session(self) -> httpx.AsyncClient:
        """Return a client of this ledger."""
        return httpx.AsyncClient(transport=self)
