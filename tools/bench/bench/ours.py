"""What Fairlead's server is told in the bench, and who takes its reports: an experiment with everything switched on."""

from __future__ import annotations

import gzip
import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
from pathlib import Path
from typing import Any

import orjson

from bench.systems import REVISION, VARIANT
from fairlead.assignment import Layout, assign
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.route import EXPERIMENT_HEADER, UNIT_HEADER, ExperimentRoute, RouteKey
from fairlead_server.exposure.keys import FILE_NAME as ROUTE_KEYS_FILE

TOKEN_HEADER = "x-prediction-id"  # noqa: S105 -- a header's name
UNITS = 10_000
_LEAST_PRIORITY = 19
_SALT = "bench/gb/tokens-2026-01"
_LAYOUT = Layout.of("logistic", {VARIANT: 5000})
_KEY = RouteKey("k1", bytes(16))


@dataclass(slots=True)
class Heard:
    """What one server has reported."""

    requests: int = 0
    """Of exposed units."""
    exposures: int = 0
    """First ones of a unit."""


class Ledger:
    """Takes reports of exposures as a ledger does, and counts them; says what it has by server."""

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = defaultdict(Heard)
        """By the server that was told to report."""
        self._seen: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        ledger = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Take a report, behind servers and load: their times are measured."""
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
                length = int(self.headers["content-length"])
                if len(body := self.rfile.read(length)) < length:
                    raise ConnectionResetError("the server ended before its report did")
                ledger._take(self.path.split("/")[1], gzip.decompress(body))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = _Listening(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, server: str) -> str:
        """Return the address that a server is told, by which its reports are known."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{server}"

    def _take(self, server: str, body: bytes) -> None:
        report = orjson.loads(body)
        with self._lock:
            told = (report["server"], report["sequence"])
            if told in self._seen:
                return
            self._seen.add(told)
            self.heard[server].requests += sum(one["requests"] for one in report.get("counts", ()))
            self.heard[server].exposures += len(report.get("exposures", ()))

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()


class _Listening(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a server that ended while it was connected; anything else is a fault of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def ledger() -> Iterator[Ledger]:
    """Start a ledger and end it afterwards."""
    started = Ledger()
    try:
        yield started
    finally:
        started.close()


def write_serving(folder: Path, ledger_url: str) -> None:
    """Write what the operator writes for a server whose requests are in an experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"keys": [{"id": _KEY.id, "secret": _KEY.secret.hex()}]}
    (folder / ROUTE_KEYS_FILE).write_text(json.dumps(keys))
    ring = KeyRing((SigningKey("k1", bytes(32)),), bytes(32))
    (folder / FEEDBACK_FILE).write_text(Feedback(ledger_url, ring).dumped())


def experiment_headers(most: int = UNITS) -> list[Mapping[str, str]]:
    """Return the headers of requests of ``most`` different units that all belong to the server's own arm."""
    value = ExperimentRoute(_SALT, 1, REVISION, VARIANT, _LAYOUT, f"header:{UNIT_HEADER}").sign(_KEY)
    units = (unit for unit in (f"N{number}" for number in count()) if assign(unit, _SALT, _LAYOUT) == VARIANT)
    return [{EXPERIMENT_HEADER: value, UNIT_HEADER: unit} for unit in islice(units, most)]
