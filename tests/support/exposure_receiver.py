"""A stand-in for the ledger's intake of exposures: a real HTTP server that can be told to fail."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any

from fairlead.feedback.messages import Exposure, ExposureReport, UnitCounts

Answer = Callable[[ExposureReport], tuple[int, bytes] | None]
"""Status and body for a report that has been taken or not; None breaks the connection without an answer."""


@dataclass
class Received:
    """What arrived, every report once however often it was told."""

    reports: dict[tuple[str, int], ExposureReport] = field(default_factory=dict)
    deliveries: int = 0
    authorizations: set[str | None] = field(default_factory=set)

    def add(self, report: ExposureReport) -> None:
        key = (report.server, report.sequence)
        assert self.reports.get(key, report) == report, "told anew with other content"
        self.reports[key] = report

    @property
    def servers(self) -> set[str]:
        return {server for server, _ in self.reports}

    @property
    def exposures(self) -> list[Exposure]:
        return list(chain.from_iterable(report.exposures for report in self.reports.values()))

    @property
    def counts(self) -> list[UnitCounts]:
        return list(chain.from_iterable(report.counts for report in self.reports.values()))

    @property
    def requests(self) -> Counter[str]:
        """Requests by unit digest."""
        found: Counter[str] = Counter()
        for count in self.counts:
            found[count.unit] += count.requests
        return found

    @property
    def errors(self) -> int:
        return sum(count.errors for count in self.counts)

    @property
    def in_blocks(self) -> int:
        return sum(block.requests for report in self.reports.values() for block in report.blocks)

    @property
    def mismatches(self) -> int:
        return sum(one.requests for report in self.reports.values() for one in report.mismatches)

    @property
    def dropped(self) -> int:
        return sum(report.dropped for report in self.reports.values())


def taken(_: ExposureReport) -> tuple[int, bytes]:
    return 200, b"{}"


class Receiver:
    """The intake, on a port of its own."""

    def __init__(self, port: int = 0) -> None:
        self.received = Received()
        self.answer: Answer = taken
        self.keeps: Callable[[int | None], bool] = lambda status: status == 200
        """Whether a report is kept that was answered with a status; None for no answer."""
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._receive(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _receive(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        assert request.headers["content-encoding"] == "gzip"
        report = ExposureReport.model_validate_json(gzip.decompress(body))
        answer = self.answer(report) if request.path == "/v1/exposures" else (404, b"no such path")
        with self._lock:
            self.received.deliveries += 1
            self.received.authorizations.add(request.headers["authorization"])
            if self.keeps(None if answer is None else answer[0]):
                self.received.add(report)
        if answer is None:
            request.close_connection = True
            request.connection.close()
            return
        status, text = answer
        request.send_response(status)
        request.send_header("content-length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """Start an intake and end it afterwards."""
    started = Receiver(port)
    try:
        yield started
    finally:
        started.close()
