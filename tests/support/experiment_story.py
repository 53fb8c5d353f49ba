"""A whole experiment told to a running ledger: units exposed day by day, outcomes that come later, looks in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from fairlead.assignment import Layout, assign
from fairlead.experiment.design import Design, Effect, Guardrail, Scale
from support.ledgers import HOUR_US, MINUTE_US, NOON_US, LedgerProcess, digest, token
from support.reports import ERROR, LATENCY, flights_design

DAY_US = 24 * HOUR_US
REQUESTS = 3
"""Of each unit, an hour apart."""
_AT_ONCE = 2000


def story_design(**changed: Any) -> Design:
    """Return the flights' experiment with guardrails that so few units can keep."""
    few = (
        Guardrail(metric=LATENCY, margin=Effect(size=0.1, scale=Scale.RELATIVE)),
        Guardrail(metric=ERROR, margin=Effect(size=0.1, scale=Scale.ABSOLUTE)),
    )
    return flights_design(covariate=None, **({"guardrails": few} | changed))


@dataclass
class Story:
    """Tells an experiment; its world is made by fixed seeds."""

    ledger: LedgerProcess
    design: Design = field(default_factory=story_design)
    gain: float = 1.5
    """How much nearer the treatment's predictions are to what comes true."""
    server: str = "server-1"
    now_us: int = NOON_US
    _sequence: int = 0
    _units: int = 0

    def __post_init__(self) -> None:
        self._client = self.ledger.client()
        control = self.design.control
        self._layouts = {one.number: Layout.of(control, one.weights_bp) for one in self.design.phases}

    def declare(self) -> None:
        answer = self._client.put(f"/v1/experiments/{self.design.salt}", content=self.design.model_dump_json())
        assert answer.status_code in (200, 201), answer.text

    def days(self, count: int, *, phase: int, units: int) -> None:
        """Let days pass: each has new units, whose outcomes come within hours; somebody looks at noon."""
        for _ in range(count):
            self.tell(phase=phase, units=units)
            self.wait_us(DAY_US)
            assert self.analysis(phase).status_code == 200

    def tell(self, *, phase: int, units: int) -> None:
        """Tell of new units, and of their outcomes, that nobody has looked at yet."""
        names = [f"N{self._units + number}" for number in range(units)]
        self._units += units
        self._tell_servers(names, phase)
        self._tell_outcomes(names, phase)

    def wait_us(self, time_us: int) -> None:
        self.now_us += time_us
        self.ledger.set_us(self.now_us)

    def analysis(self, phase: int | None = None) -> httpx.Response:
        return self._client.get(f"{self.path}/analysis", params={} if phase is None else {"phase": phase})

    def decide(self, action: str, reason: str, *, phase: int = 1, winner: str | None = None) -> httpx.Response:
        body = {"action": action, "reason": reason, "phase": phase, "winner": winner, "at_us": self.now_us}
        return self._client.post(f"{self.path}/decision", json=body)

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    @property
    def path(self) -> str:
        return f"/v1/experiments/{self.design.salt}"

    @property
    def page(self) -> str:
        return f"{self.ledger.url}/experiments/{self.design.salt}"

    def _tell_servers(self, names: list[str], phase: int) -> None:
        exposures, counts, blocks = [], [], []
        random = np.random.default_rng(self._sequence)
        for number, name in enumerate(names):
            at_us = self._at_us(number, len(names))
            place = {"salt": self.design.salt, "phase": phase, "revision": "r1", "variant": self._arm(name, phase)}
            unit = {**place, "unit": digest(name, self.design.salt)}
            latency_us = int(random.normal(4300, 400)) * REQUESTS
            exposures.append({**unit, "at_us": at_us})
            counts.append({**unit, "requests": REQUESTS, "latency_us": latency_us})
            block = {**place, "minute": at_us // MINUTE_US, "requests": REQUESTS, "latency_us": latency_us}
            blocks.append(block)
        report = {"server": self.server, "sequence": self._sequence}
        self._sequence += 1
        told = {**report, "exposures": exposures, "counts": counts, "blocks": blocks}
        assert self._client.post("/v1/exposures", json=told).is_success

    def _tell_outcomes(self, names: list[str], phase: int) -> None:
        told = list(self._outcomes(names, phase))
        self.wait_us(3 * HOUR_US)
        for first in range(0, len(told), _AT_ONCE):
            answer = self._client.post("/v1/outcomes", json={"outcomes": told[first : first + _AT_ONCE]})
            assert answer.json()["refused"] == [], answer.text
        self.wait_us(-3 * HOUR_US)

    def _outcomes(self, names: list[str], phase: int) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(1000 + self._sequence)
        for number, name in enumerate(names):
            arm = self._arm(name, phase)
            for request in range(REQUESTS):
                is_late = random.random() < 0.25
                output = float(np.clip(random.normal(0.25, 0.08), 0.01, 0.99))
                if arm != self.design.control:
                    output += self.gain * ((1.0 if is_late else 0.0) - output) * 0.2
                made = token(
                    name,
                    self._at_us(number, len(names)) + request * 600_000_000,
                    number=request,
                    phase=phase,
                    variant=arm,
                    outputs=(output,),
                    salt=self.design.salt,
                )
                if random.random() > 0.02:  # the others never come
                    yield {"prediction_id": made, "actual": float(is_late)}

    def _arm(self, name: str, phase: int) -> str:
        return assign(name, self.design.salt, self._layouts[phase])

    def _at_us(self, number: int, of: int) -> int:
        return self.now_us + int(number / of * HOUR_US)
