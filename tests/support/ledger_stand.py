"""A whole ledger in this process, and a wire to it that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import httpx

from fairlead.clock import ReplayClockWriter
from fairlead_ledger.__main__ import _service
from fairlead_ledger.analysis import routes as analysis
from fairlead_ledger.app import application
from fairlead_ledger.page import routes as page
from fairlead_ledger.settings import from_arguments
from support.ledgers import NOON_US, ROOT


class LedgerStand(httpx.AsyncBaseTransport):
    """Answers as the ledger does, whatever host is asked; remembers what it was asked. Its clock stands at noon."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "keys.json").write_text(ROOT.dumped())
        ReplayClockWriter(folder / "clock", NOON_US)
        database = f"sqlite:///{folder / 'ledger.db'}"
        files = ["--keys", str(folder / "keys.json"), "--clock", str(folder / "clock")]
        service = _service(from_arguments(None, ["serve", "--database", database, *files, "--open"]))
        self.ledger = service.ledger
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
