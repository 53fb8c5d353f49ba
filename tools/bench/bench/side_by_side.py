"""The rounds: every system beside every other, shuffled, one at a time, the others frozen."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.asking import Questions
from bench.cases import Case
from bench.environments import NotInstalled
from bench.load import LoadFailed
from bench.machine import rss_mib
from bench.ours import UNITS, Ledger
from bench.questions import WrongAnswer
from bench.results import Round
from bench.servers import Given, NotStarted, Server
from bench.systems import System

_REPORTED = 0.95
"""Share of an experiment's requests that the ledger must have heard of once the servers have ended."""
_WARM_S = 1
_WARMED_AT_MOST = 8
_FEWEST = 30
_OTHERS_HAVE = 0.5
"""Share of the rounds that cases have which are not the main ones."""


@dataclass(slots=True)
class Outcome:
    """What a run showed."""

    rounds: list[Round] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a system is not in the table, or not any more."""
    sent: Counter[str] = field(default_factory=Counter)
    """Requests of all rounds that each server has answered."""
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
        self._cases: Sequence[Case] = ()

    @contextmanager
    def running(self, systems: Sequence[System], cases: Sequence[Case]) -> Iterator[None]:
        """Start every system that can be had, check its answers, warm and freeze it; end all afterwards."""
        self._cases = cases
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

    def run(self, *, rounds: int, seconds: float) -> None:
        """Measure all rounds, adding to the outcome as they are done."""
        order = random.Random(time.time_ns())  # noqa: S311 -- an order
        plan = [
            (number, case, label)
            for number in range(rounds)
            for case in order.sample(self._cases, len(self._cases))
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
            self._warm(server)
        except (LoadFailed, NotStarted, WrongAnswer) as error:
            self._leave_out(system.label, error)
            self.servers.pop(system.label).end()
            return
        self.outcome.rss_mib[system.label] = round(rss_mib(server.pid), 1)
        server.freeze()

    def _warm(self, server: Server) -> None:
        """Ask without measuring, until an experiment's server has seen every unit.

        A young Python process collects all its modules' objects a few times, and a unit's first exposure is told once.
        """
        for protocol in server.system.protocols:
            answered = 0
            for case in [case for case in self._cases if case.protocol == protocol][:1] * _WARMED_AT_MOST:
                answered += self._questions.measure(server, case, _WARM_S).requests
                if not server.system.experiment or protocol == "grpc" or answered >= UNITS:
                    break

    def _measure(self, server: Server, case: Case, seconds: float) -> None:
        server.thaw()
        try:
            server.check_alive()
            one = self._questions.measure(server, case, seconds)
        except (LoadFailed, NotStarted) as error:
            self._leave_out(server.system.label, error)
        else:
            if one.requests < _FEWEST:  # somebody else had the CPUs
                self._console.print(
                    f"{case.name} {one.system}: {one.requests} requests, a round not counted", highlight=False
                )
                return
            self.outcome.rounds.append(one)
            self.outcome.sent[server.system.label] += one.requests
            if one.errors:
                failed = WrongAnswer(f"{case.name}: {one.errors} of {one.requests} requests failed")
                self._leave_out(server.system.label, failed)
        finally:
            server.freeze()

    def check_reports(self) -> None:
        """Leave out the servers of experiments of which the ledger has not heard what they answered."""
        for label, sent in self.outcome.sent.items():
            if not self.servers[label].system.experiment:
                continue
            heard = self._ledger.heard[label].requests
            if heard < sent * _REPORTED:
                self._leave_out(label, WrongAnswer(f"the ledger heard of {heard} of {sent} requests of an experiment"))

    def _leave_out(self, label: str, why: Exception) -> None:
        self.outcome.left_out[label] = str(why)
        self._console.print(f"[bold red]{label} is out:[/] {escape(str(why))}", highlight=False)


def progress(console: Console) -> Progress:
    """Return a progress bar."""
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False)
    return Progress(*columns, console=console, transient=True)
