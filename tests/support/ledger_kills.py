"""A ledger that is killed and started again in no time: forked from a process that has imported it already."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx

from fairlead.clock import ReplayClockWriter
from fairlead.experiment.design import Design
from support.ledgers import NOON_US, ROOT
from support.servers import free_port


def _serve(arguments: Sequence[str]) -> None:
    """Run a ledger; in a process of its own."""
    from fairlead_ledger.__main__ import main  # noqa: PLC0415 -- imported by the server that forks, once

    sys.argv[1:] = arguments
    sys.exit(main())


class MortalLedger:
    """A ledger process on a port that stays; ``kill`` is SIGKILL."""

    def __init__(self, folder: Path, database: str, more: Sequence[str] = ()) -> None:
        (folder / "keys.json").write_text(ROOT.dumped())
        self._clock = ReplayClockWriter(folder / "clock", NOON_US)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["fairlead_ledger.__main__"])
        self.port = free_port()
        files = ["--keys", str(folder / "keys.json"), "--clock", str(folder / "clock")]
        self._arguments = ["serve", "--database", database, *files, "--open", "--port", str(self.port), *more]
        self._process: BaseProcess | None = None
        self._client = httpx.Client(base_url=self.url, timeout=10, verify=False)  # noqa: S501 -- no TLS here

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def declare(self, design: Design) -> None:
        path = f"/v1/experiments/{design.salt}"
        self._client.put(path, content=design.model_dump_json()).raise_for_status()

    def set_us(self, time_us: int) -> None:
        """Move its clock."""
        self._clock.set_us(time_us)

    def start(self, timeout_s: float = 90) -> None:
        self._process = self._context.Process(target=_serve, args=(self._arguments,), daemon=True)
        self._process.start()
        end = time.monotonic() + timeout_s
        while not self._answers():
            if time.monotonic() > end or not self._process.is_alive():
                raise RuntimeError(f"the ledger did not start: {self._process.exitcode}")
            threading.Event().wait(0.05)

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def close(self) -> None:
        self.kill()
        self._client.close()

    def _answers(self) -> bool:
        try:
            return self._client.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextmanager
def mortal_ledger(folder: Path, database: str, more: Sequence[str] = ()) -> Iterator[MortalLedger]:
    ledger = MortalLedger(folder, database, more)
    try:
        ledger.start()
        yield ledger
    finally:
        ledger.close()


class Senders:
    """Threads that send bodies again and again until they are answered."""

    def __init__(self, urls: Sequence[str], threads: int = 4) -> None:
        self._bodies: Queue[tuple[str, Any]] = Queue()
        self._is_over = threading.Event()
        self.answered = 0
        self.failures = 0
        self.refused: list[Any] = []
        self._threads = [threading.Thread(target=self._send, args=(urls[n % len(urls)],)) for n in range(threads)]
        self._counting = threading.Lock()
        for thread in self._threads:
            thread.start()

    def put(self, path: str, body: Any) -> None:
        self._bodies.put((path, body))

    def wait(self, answered: int, timeout_s: float = 120) -> None:
        """Wait until so many bodies were answered since the start."""
        end = time.monotonic() + timeout_s
        while self.answered < answered:
            if self.refused:
                raise AssertionError(self.refused[0])
            if time.monotonic() > end:
                raise TimeoutError(f"{self.answered} of {answered} were answered")
            threading.Event().wait(0.01)

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _send(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not self._is_over.is_set():
                try:
                    path, body = self._bodies.get(timeout=0.05)
                except Empty:
                    continue
                while not self._is_answered(client, path, body) and not self._is_over.is_set():
                    threading.Event().wait(0.01)

    def _is_answered(self, client: httpx.Client, path: str, body: Any) -> bool:
        try:
            answer = client.post(path, json=body)
        except httpx.TransportError:
            self._count(failures=1)
            return False
        if answer.status_code in (429, 503):
            return False
        if answer.status_code != httpx.codes.OK or answer.json().get("refused"):
            self.refused.append(answer.text)
        self._count(answered=1)
        return True

    def _count(self, answered: int = 0, failures: int = 0) -> None:
        with self._counting:
            self.answered += answered
            self.failures += failures
