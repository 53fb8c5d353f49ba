"""Ledgers for tests: keys, designs, tokens, a clock that stands still, and the ledger as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from fairlead.assignment import Layout, assign
from fairlead.clock import ReplayClockWriter
from fairlead.experiment.design import (
    Better,
    Design,
    Effect,
    Guardrail,
    Kind,
    Meaning,
    Metric,
    Objective,
    Phase,
    Scale,
    Source,
)
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.token import Context, mint

SALT = "flights/arrival-delay/e1"
DEPLOYMENT = "flights/arrival-delay"
ROOT = KeyRing((SigningKey("k1", b"signing key of tests, first one"),), b"unit key of tests, of all")
RING = ROOT.of(DEPLOYMENT)

NOON_US = 1_370_088_000_000_000
"""2013-06-01 12:00 UTC."""
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US

_LISTENING = re.compile(r"listening host=\S+ port=(\d+)")


class StillClock:
    """A clock that a test moves."""

    def __init__(self, time_us: int = NOON_US) -> None:
        self.time_us = time_us

    def now_us(self) -> int:
        return self.time_us


def metric(name: str, source: Source = Source.OUTCOME, kind: Kind = Kind.MEAN, **more: Any) -> Metric:
    return Metric(name=name, kind=kind, better=Better.LOWER, source=source, **more)


BRIER = metric("brier", Source.ACTUAL)
CLICK = metric("click", kind=Kind.PROPORTION)


def design(**changes: Any) -> Design:
    """Return an experiment of boosted against logistic, 10 % then 50 %, outcomes within an hour."""
    whole = Design(
        salt=SALT,
        control="logistic",
        treatments=("boosted",),
        phases=tuple(Phase(number=n, weights_bp={"boosted": bp}) for n, bp in enumerate((1000, 5000))),
        objective=Objective(metric=BRIER, minimum_effect=Effect(size=0.05, scale=Scale.RELATIVE)),
        guardrails=(Guardrail(metric=CLICK, margin=Effect(size=0.1, scale=Scale.RELATIVE)),),
        requests_per_unit=5,
        outcome_window_s=3600,
        meaning=Meaning.PROBABILITY,
    )
    return whole.model_copy(update=changes)


@cache
def arm_of(unit: str, phase: int = 1) -> str:
    """Return the arm that the law gives a unit in the experiment of :func:`design`."""
    return arm_in(design(), unit, phase)


def arm_in(planned: Design, unit: str, phase: int) -> str:
    """Return the arm that the law gives a unit."""
    weights = planned.phases[phase].weights_bp
    return assign(unit, planned.salt, Layout.of(planned.control, {arm: weights[arm] for arm in planned.treatments}))


@cache
def digest(unit: str, salt: str = SALT) -> str:
    """Return what stands for a unit, hexadecimal."""
    return ROOT.of(salt.rpartition("/")[0]).unit(unit.encode(), salt).hex()


def token(
    unit: str,
    time_us: int = NOON_US,
    *,
    number: int = 0,
    phase: int = 1,
    variant: str | None = None,
    outputs: tuple[float, ...] = (0.25,),
    rows: int | None = None,
    salt: str = SALT,
    ring: KeyRing | None = None,
) -> str:
    """Return the token of one prediction; with another ``number`` it is another prediction of that moment."""
    ring = ring or ROOT.of(salt.rpartition("/")[0])
    context = Context(salt, phase, "r1", variant or arm_of(unit, phase))
    return mint(
        ring.signing[0],
        context.encoded(),
        unit=ring.unit(unit.encode(), salt),
        time_us=time_us,
        rows=len(outputs) if rows is None else rows,
        outputs=outputs,
        nonce=number.to_bytes(8, "little"),
    )


def arm(unit: str | None = None, phase: int = 1, **more: Any) -> dict[str, Any]:
    """Return the part of a report that says which arm it is of; with a unit, its own."""
    named = {} if unit is None else {"unit": digest(unit), "variant": arm_of(unit, phase)}
    return {"salt": SALT, "phase": phase, "revision": "r1", **named, **more}


def exposure(unit: str, at_us: int = NOON_US, phase: int = 1, **more: Any) -> dict[str, Any]:
    return arm(unit, phase, at_us=at_us, **more)


class LedgerProcess:
    """``python -m fairlead_ledger serve`` on a port that the system chooses; it may be killed and started again."""

    def __init__(self, folder: Path, database: str, arguments: tuple[str, ...] = ("--open",)) -> None:
        self.folder = folder
        (folder / "keys.json").write_text(ROOT.dumped())
        self._clock = ReplayClockWriter(folder / "clock", NOON_US)
        where = ["--database", database, "--keys", str(folder / "keys.json"), "--clock", str(folder / "clock")]
        self._command = [sys.executable, "-m", "fairlead_ledger", "serve", *where, "--port", "0", *arguments]
        self._logs: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._logs[-1].read_text()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def set_us(self, time_us: int) -> None:
        """Move its clock."""
        self._clock.set_us(time_us)

    def start(self, timeout_s: float = 90) -> None:
        self._logs.append(self.folder / f"ledger-{len(self._logs)}.log")
        with self._logs[-1].open("wb") as log:
            self._process = subprocess.Popen(self._command, stderr=log, stdout=log, cwd=self.folder)
        end = time.monotonic() + timeout_s
        while " ready" not in self.log or not (found := _LISTENING.search(self.log)):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the ledger did not start: {self.log}")
            threading.Event().wait(0.03)
        self.port = int(found[1])

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, timeout_s: float = 60) -> int:
        """Send SIGTERM and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **more)


@contextmanager
def ledger_process(
    folder: Path, database: str | None = None, arguments: tuple[str, ...] = ("--open",)
) -> Iterator[LedgerProcess]:
    """Run a ledger and end it afterwards, whatever happened; SQLite unless another database is given."""
    ledger = LedgerProcess(folder, database or f"sqlite:///{folder / 'ledger.db'}", arguments)
    try:
        ledger.start()
        yield ledger
    finally:
        ledger.kill()


def outcomes(*told: Mapping[str, Any]) -> dict[str, Any]:
    return {"outcomes": list(told)}
