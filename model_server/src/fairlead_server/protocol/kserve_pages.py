"""KServe's own application, for the page that only it has: the description of its routes.

Importing KServe takes seconds and 100 MiB, so that happens in a thread when somebody first asks.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from fairlead_server import logs
from fairlead_server.protocol.rest import Application, Receive, Scope, Send
from fairlead_server.protocol.service import Service


class KServePages:
    """KServe's application (ASGI), made when it is first asked."""

    def __init__(self, service: Service) -> None:
        """Make the pages.

        Args:
            service: What KServe's data plane answers from.
        """
        self._service = service
        self._making: asyncio.Future[Application] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (ASGI)."""
        if self._making is None:
            self._making = asyncio.ensure_future(asyncio.to_thread(self._make))
        application = await asyncio.shield(self._making)
        await application(scope, receive, send)

    def _make(self) -> Application:
        kserve: Any = importlib.import_module("fairlead_server.kserve_model")
        application: Application = kserve.application(self._service)
        logs.configure()  # kserve has put its own handlers in place
        return application
