"""The model as KServe's own server knows it: for its pages, and for whoever embeds us into a ``kserve.ModelServer``.

Imported only on demand: KServe takes seconds to import.
"""

from __future__ import annotations

from typing import Any

import kserve
import kserve.model_server
from kserve.protocol.rest.server import RESTServer

from fairlead_server.protocol import v1
from fairlead_server.protocol.rest import Application
from fairlead_server.protocol.service import Service


class FairleadModel(kserve.Model):  # type: ignore[misc]  # kserve has no types
    """The model as KServe's repository and data plane know it."""

    def __init__(self, name: str, service: Service) -> None:
        """Make the model.

        Args:
            name: Name that clients call it by.
            service: What answers.
        """
        super().__init__(name)
        self._service = service

    async def healthy(self) -> bool:
        """Return whether requests should be sent here."""
        return self._service.not_ready_reason is None

    async def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> Any:
        """Answer a V1 request that came through KServe's own data plane.

        Raises:
            RequestError: The request is refused, or failed.
        """
        del headers, response_headers
        served = self._service.served()
        request = v1.of_content(payload, served.schema)
        response = await served.predictor.predict(request, served.predictor.metrics.timer())
        return v1.content_of(response, served.schema)


def application(service: Service) -> Application:
    """Return KServe's FastAPI application over the model that ``service`` has; call once per process."""
    server = kserve.ModelServer(enable_latency_logging=False)
    for name in service.names():
        server.register_model(FairleadModel(name, service))
    rest = RESTServer(kserve.model_server.app, server.dataplane, server.model_repository_extension, server.http_port)
    rest.create_application()
    made: Application = kserve.model_server.app
    return made
