"""Steady load on a gateway by real predictions, over REST and gRPC, that notes every single request."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self

import grpc

from support.gateway_asks import SERVICE, grpc_options, infer_message
from support.server_process import ROW

_TIMEOUT_S = 30.0

_Ask = Callable[[str], str]
"""Asks for a unit; returns the variant that answered, or raises what was wrong."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request."""

    protocol: str
    unit: str
    sent_s: float
    """By ``time.monotonic``."""
    ended_s: float
    variant: str
    """Who answered; empty if it was lost."""
    problem: str = ""
    """Why it was lost."""


@dataclass(slots=True)
class Load:
    """Connections that ask one request after the other until they are ended."""

    address: str
    host: str
    model: str
    units: Sequence[str]
    """Asked for in turn."""
    connections: int = 8
    """Over each protocol."""
    pause_s: float = 0.02
    """Of each connection between two requests: what is measured is the route, not two busy cores."""
    row: Mapping[str, Any] = field(default_factory=lambda: ROW)
    """What is asked about."""
    samples: list[Sample] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin."""
        makers = {"REST": self._rest, "gRPC": self._grpc}
        for protocol, maker in makers.items():
            for number in range(self.connections):
                given = (protocol, number, maker)
                self._threads.append(threading.Thread(target=self._run, args=given, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End; every request that was sent gets its end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)
        left = [thread for thread in self._threads if thread.is_alive()]
        if left and error is None:
            raise AssertionError(f"{len(left)} of {len(self._threads)} connections wait for an answer still")

    @property
    def lost(self) -> list[Sample]:
        """Requests that were not answered as they should."""
        return [sample for sample in list(self.samples) if sample.problem]

    def sent_since(self, since_s: float) -> list[Sample]:
        """Return what was sent from a moment on and has ended."""
        return [sample for sample in list(self.samples) if sample.sent_s >= since_s]

    def _run(self, protocol: str, number: int, maker: Callable[[], AbstractContextManager[_Ask]]) -> None:
        with maker() as ask:
            for turn in count(number):
                if self._stopping.wait(self.pause_s):
                    return
                unit, sent_s, variant, problem = self.units[turn * 7 % len(self.units)], time.monotonic(), "", ""
                try:
                    variant = ask(unit)
                except Exception as error:  # noqa: BLE001 -- whatever went wrong is the end of this request
                    problem = repr(error)
                self.samples.append(Sample(protocol, unit, sent_s, time.monotonic(), variant, problem))

    @contextmanager
    def _rest(self) -> Iterator[_Ask]:
        connection = http.client.HTTPConnection(self.address, timeout=_TIMEOUT_S)
        path, body = f"/v1/models/{self.model}:predict", json.dumps({"instances": [dict(self.row)]})

        def ask(unit: str) -> str:
            headers = {"host": self.host, "x-unit-id": unit, "content-type": "application/json"}
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != http.client.OK or b"predictions" not in content:
                raise ValueError(f"{answer.status} {content[:200]!r}")
            variant = answer.headers["x-variant"]
            if not variant:
                raise ValueError(f"nobody says who answered: {answer.headers.items()}")
            return variant

        yield ask
        connection.close()

    @contextmanager
    def _grpc(self) -> Iterator[_Ask]:
        message = infer_message(self.model, self.row)
        with grpc.insecure_channel(self.address, options=grpc_options(self.host)) as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")

            def ask(unit: str) -> str:
                _, made = infer.with_call(message, metadata=(("x-unit-id", unit),), timeout=_TIMEOUT_S)
                return str(dict(made.initial_metadata())["x-variant"])

            yield ask
