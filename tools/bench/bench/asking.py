"""Asks one server one case: first whether it answers rightly, then as fast as it can."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

from bench import contract, questions
from bench.cases import Case, Protocol
from bench.load import Load, h2load, write_requests, wrk
from bench.machine import Moment
from bench.model import Asked
from bench.ours import TOKEN_HEADER, experiment_headers
from bench.paths import BUILD
from bench.questions import Body, Headers, WrongAnswer
from bench.results import Round
from bench.servers import Given, NotStarted, Server

READY_WITHIN_S = 90
_CHECKED = 8
"""Different rows that every protocol is checked with, besides the largest batch."""
_BODIES: Mapping[Protocol, Callable[[Asked], Body]] = {
    "v2-json": questions.v2_json,
    "v2-binary": questions.v2_binary,
    "v1-json": questions.v1_json,
}


class Questions:
    """All requests of all cases, with the answers they must get."""

    def __init__(self, asked: Asked, given: Given) -> None:
        """Make them.

        Args:
            asked: Rows and their answers.
            given: Files that the servers serve.
        """
        self._asked = asked
        self._given = given
        self._experiment = experiment_headers()
        self._units = cycle(self._experiment)
        self._files: dict[tuple[str, str], Path] = {}

    def await_ready(self, server: Server) -> float:
        """Wait until a server answers rightly; return the seconds since it was started.

        Raises:
            NotStarted: It ended, or did not answer in time.
        """
        end_s = server.started_s + READY_WITHIN_S
        while True:
            server.check_alive()
            try:
                for protocol in server.system.protocols:
                    self._check_one(server, protocol, self._asked.part(0, 1))
            except (OSError, WrongAnswer) as error:
                if time.monotonic() > end_s:
                    raise NotStarted(f"it was not ready within {READY_WITHIN_S} s: {str(error)[:200]}") from error
                time.sleep(0.1)
            else:
                return time.monotonic() - server.started_s

    def check(self, server: Server) -> None:
        """Check that a server answers rightly, whatever it is asked here.

        Raises:
            WrongAnswer: It does not, or an experiment's request got no token.
        """
        parts = [*(self._asked.part(start, 1) for start in range(_CHECKED)), self._asked]
        for protocol in server.system.protocols:
            for part in parts:
                try:
                    self._check_one(server, protocol, part)
                except (OSError, WrongAnswer) as error:
                    raise WrongAnswer(f"{protocol}: {error}") from error

    def measure(self, server: Server, case: Case, seconds: float) -> Round:
        """Put the case's load on a server.

        Raises:
            LoadFailed: The load program failed.
        """
        path = self._file(server, case)
        before = Moment.of(server.pid)
        if case.protocol == "grpc":
            headers = next(self._units) if server.system.experiment else {}  # h2load sends one on all requests
            many = {"connections": case.connections, "streams": case.streams}
            load = h2load(path, server.grpc_port, headers, seconds=seconds, **many)
        else:
            load = wrk(path, server.http_port, connections=case.connections, seconds=seconds)
        return _round(case, server.system.name, load, before, Moment.of(server.pid))

    def file(self, server: Server, case: Case) -> Path:
        """Return the file with a server's requests of a case, as raw HTTP/1.1 or as one framed message."""
        return self._file(server, case)

    def _headers(self, server: Server) -> Sequence[Headers]:
        return self._experiment if server.system.experiment else [{}]

    def _check_one(self, server: Server, protocol: Protocol, asked: Asked) -> None:
        headers = self._headers(server)[0]
        if protocol == "grpc":
            response, named = questions.infer(server.grpc_port, questions.grpc_request(asked), headers)
            questions.check_grpc(response, asked)
            _check_token(server, named)
            return
        path = server.system.paths[protocol]
        if protocol in {"v2-json-contract", "hydrated"}:
            body, wanted = self._contract(protocol)
            answer = questions.post(server.http_port, path, body, headers)
            contract.check(answer, contract.probability(answer) if wanted is None else wanted)
        else:
            answer = questions.post(server.http_port, path, _BODIES[protocol](asked), headers)
            if server.system.answers:
                questions.check_rest(answer, asked)
        _check_token(server, answer.headers)

    def _contract(self, protocol: Protocol) -> tuple[Body, float | None]:
        return contract.full(self._given.contract) if protocol == "v2-json-contract" else (contract.hydrated(), None)

    def _file(self, server: Server, case: Case) -> Path:
        key = (server.system.label, case.name)
        if key not in self._files:
            path = BUILD / "requests" / f"{server.system.label}.{case.name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if case.protocol == "grpc":
                path.write_bytes(questions.grpc_frame(questions.grpc_request(self._asked.part(0, case.batch))))
            else:
                write_requests(path, self._requests(server, case))
            self._files[key] = path
        return self._files[key]

    def _requests(self, server: Server, case: Case) -> list[bytes]:
        """Return requests with other rows, and for an experiment with other units, one after the other."""
        path, headers = server.system.paths[case.protocol], self._headers(server)
        if case.protocol in {"v2-json-contract", "hydrated"}:
            bodies = [self._contract(case.protocol)[0]]
        else:
            starts = range(0, len(self._asked.rows), case.batch)
            bodies = [_BODIES[case.protocol](self._asked.part(start, case.batch)) for start in starts]
        count = max(len(bodies), len(headers))
        return [
            questions.on_the_wire(path, bodies[number % len(bodies)], headers[number % len(headers)])
            for number in range(count)
        ]


def _round(case: Case, system: str, load: Load, before: Moment, after: Moment) -> Round:
    server_s, wall_s = after.tree_s - before.tree_s, after.at_s - before.at_s
    others = max(0.0, after.busy_s - before.busy_s - server_s - load.cpu_s) / wall_s
    done = max(load.requests, 1)
    per_s = load.requests / load.seconds
    cpu_us = server_s / done * 1e6
    return Round(case.name, system, load.requests, per_s, load.p50_us, load.p99_us, cpu_us, load.errors, others)


def _check_token(server: Server, headers: Headers) -> None:
    if server.system.experiment and not headers.get(TOKEN_HEADER):
        raise WrongAnswer(f"no {TOKEN_HEADER} came back to an experiment's request")
