"""The rounds: every system beside every other, shuffled, one at a time, the others frozen."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.asking import Questions, Round
from bench.cases import Case
from bench.environments import NotInstalled
from bench.load import LoadFailed
from bench.machine import rss_mib
from bench.ours import Ledger
from bench.questions import WrongAnswer
from bench.servers import Given, NotStarted, Server
from bench.systems import System

_OTHERS_HAVE = 0.6
"""Share of the rounds that cases have which are not the main ones."""


@dataclass(slots=True)
class Outcome:
    """What a run showed."""

    rounds: list[Round] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a system is not in the table, or not any more."""
    rss_mib: dict[str, float] = field(default_factory=dict)
    """Resident memory of each server after its answers were checked."""


class SideBySide:
    """Servers that run beside each other, of which one is awake at a time."""

    def __init__(self, questions: Questions, given: Given, ledger: Ledger, console: Console) -> None:
        """Start nothing yet.

        Args:
            questions: What is asked.
            given: Files that the servers serve.
            ledger: Who takes their reports.
            console: Where progress is shown.
        """
        self.outcome = Outcome()
        self.servers: dict[str, Server] = {}
        self._questions = questions
        self._given = given
        self._ledger = ledger
        self._console = console

    @contextmanager
    def running(self, systems: Sequence[System]) -> Iterator[None]:
        """Start every system that can be had, check its answers, freeze it; end all afterwards."""
        try:
            with progress(self._console) as bar:
                task = bar.add_task("", total=len(systems))
                for system in systems:
                    bar.update(task, description=f"starting {system.label} ({system.what[:60]})")
                    self._start(system)
                    bar.advance(task)
            yield
        finally:
            for server in self.servers.values():
                server.end()

    def run(self, cases: Sequence[Case], *, rounds: int, seconds: float) -> None:
        """Measure all rounds, adding to the outcome as they are done."""
        order = random.Random(time.time_ns())  # noqa: S311 -- an order
        plan = [
            (number, case, label)
            for number in range(rounds)
            for case in order.sample(cases, len(cases))
            if case.main or number < max(1, round(rounds * _OTHERS_HAVE))
            for label in order.sample(list(self.servers), len(self.servers))
            if case.protocol in self.servers[label].system.protocols
        ]
        with progress(self._console) as bar:
            task = bar.add_task("", total=len(plan))
            for number, case, label in plan:
                bar.update(task, description=f"round {number + 1} of {rounds}: {case.name} {label}")
                if label not in self.outcome.left_out:
                    self._measure(self.servers[label], case, seconds)
                bar.advance(task)

    def _start(self, system: System) -> None:
        try:
            server = Server(system, self._given, ledger_url=self._ledger.url(system.label))
        except NotInstalled as error:
            self._leave_out(system.label, error)
            return
        self.servers[system.label] = server
        try:
            self._questions.await_ready(server)
            self._questions.check(server)
        except (NotStarted, WrongAnswer) as error:
            self._leave_out(system.label, error)
            self.servers.pop(system.label).end()
            return
        self.outcome.rss_mib[system.label] = round(rss_mib(server.pid), 1)
        server.freeze()

    def _measure(self, server: Server, case: Case, seconds: float) -> None:
        server.thaw()
        try:
            server.check_alive()
            one = self._questions.measure(server, case, seconds)
        except (LoadFailed, NotStarted) as error:
            self._leave_out(server.system.label, error)
        else:
            self.outcome.rounds.append(one)
            if one.errors:
                failed = WrongAnswer(f"{case.name}: {one.errors} of {one.requests} requests failed")
                self._leave_out(server.system.label, failed)
        finally:
            server.freeze()

    def _leave_out(self, label: str, why: Exception) -> None:
        self.outcome.left_out[label] = str(why)
        self._console.print(f"[bold red]{label} is out:[/] {escape(str(why))}", highlight=False)


def progress(console: Console) -> Progress:
    """Return a progress bar."""
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False)
    return Progress(*columns, console=console, transient=True)
