"""Model files over HTTP, for a cluster without an object store: ``GET /NAME.onnx``, nothing else.

Nobody has to trust it: a model is named by its digest, and what differs is refused by who fetches it.
"""

from __future__ import annotations

import logging
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)

HEALTH = "/healthz"
SUFFIX = ".onnx"
REQUEST_TIMEOUT_S = 30.0


class ModelHandler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD for the model files of one folder."""

    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIMEOUT_S

    def send_head(self) -> Any:
        """Refuse what is no model file of this folder; leave the rest to the standard library."""
        name = self.path.removeprefix("/")
        if self.path == HEALTH:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if "/" in name or not name.endswith(SUFFIX) or not (Path(self.directory) / name).is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log an answer, but for those to probes."""
        if self.path != HEALTH:
            _LOG.info("answered method=%s path=%s status=%s size=%s", self.command, self.path, int(code), size)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the parent's name
        """Log what the parent has to say."""
        _LOG.info("http said=%s", format % args)


def model_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of a folder's model files, bound and not yet serving.

    Args:
        folder: Where the files are.
        host: Address to listen on.
        port: Port; 0 takes a free one.

    Raises:
        OSError: The address cannot be bound.
    """
    return ThreadingHTTPServer((host, port), partial(ModelHandler, directory=str(folder)))
