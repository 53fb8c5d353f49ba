"""``fairlead up`` with a canary that has guardrails: real processes, a real Envoy, a real ledger, two revisions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead.assignment import Layout, assign
from fairlead.feedback.serving import Feedback
from fairlead.route import EXPERIMENT_HEADER, verify
from fairlead_operator.platforms.local.state import State
from support.envoy import MODEL, Answer, ManifestFile, Up, model, post, running, wait_until

UNIT = {"unit": {"header": "x-unit-id"}}
GUARDRAILS = [{"metric": "error", "margin": "1pp"}, {"metric": "latency_ms", "margin": "20%"}]
USUAL_US = 10_000
SLOWER_US = 20_000
DROP = json.dumps({"drop": True}).encode()
_MOST_ROUNDS = 300
"""Of 50 requests each; some twenty are enough."""
_PACE_S = 0.1
"""Between them."""


@pytest.fixture
def manifest(tmp_path: Path) -> ManifestFile:
    """A single model, whose new revisions get their share by two short steps."""
    steps = [{"weights": {"logistic": 25}, "hold": "2s"}, {"weights": {"logistic": 50}, "hold": "2s"}]
    made = ManifestFile.make(tmp_path, routing=UNIT, rollout={"strategy": "Canary", "steps": steps})
    made.spec["variants"] = made.spec["variants"][:1]
    made.spec["experiment"] = {"guardrails": GUARDRAILS}
    made.write()
    return made


class Canary:
    """One canary under way, and the traffic of its test."""

    def __init__(self, up: Up, manifest: ManifestFile, content: str) -> None:
        self.up = up
        self.widths = [round(step["weights"]["logistic"] * 100) for step in manifest.spec["rollout"]["steps"]]
        self.stable = str(up.variant("logistic")["revision"])
        manifest.spec["variants"][0]["model"] = model(manifest.path.parent, content)
        manifest.write()
        self.wait(lambda: up.status().get("experiment", {}).get("observing"))
        self.candidate = str(up.variant("logistic")["revision"])
        self.salt = str(up.status()["experiment"]["salt"])
        self.sent = 0

    def wait(self, met: Callable[[], Any], timeout_s: float = 60) -> None:
        wait_until(met, timeout_s, self.up.explain)

    def ask(self, path: str) -> Any:
        answer = httpx.get(f"{self.told.ledger}{path}", trust_env=False)
        assert answer.is_success, answer.text
        return answer.json()

    def page(self) -> str:
        """Return its page."""
        answer = httpx.get(f"{self.told.ledger}/experiments/{self.salt}", trust_env=False)
        assert answer.is_success, answer.text
        return answer.text

    @property
    def told(self) -> Feedback:
        """What servers are told."""
        return Feedback.loaded((State(self.up.state, MODEL).serving / "feedback.json").read_bytes())

    @property
    def is_decided(self) -> bool:
        return "decision" in self.up.status()["rollout"]

    async def carry(self, *, drops: bool = False, slower_us: int = 0) -> None:
        """Send traffic until it is decided; servers of a test tell the ledger nothing, so that this does."""
        first = Layout.of(self.stable, {self.candidate: self.widths[0]})
        while not self.is_decided:
            assert self.sent < _MOST_ROUNDS, self.up.explain()
            units = [f"N{self.sent}-{one}" for one in range(50)]
            doomed = [unit for unit in units if drops and assign(unit, self.salt, first) == self.candidate][:1]
            sound = [unit for unit in units if unit not in doomed]
            answers = await post(self.up.port, [{"x-unit-id": unit} for unit in sound])
            assert {answer.status for answer in answers} == {200}
            self.report(dict(zip(sound, answers, strict=True)), slower_us)
            await post(self.up.port, [{"x-unit-id": unit} for unit in doomed], body=DROP)
            self.sent += 1
            await asyncio.sleep(_PACE_S)

    def report(self, answers: Mapping[str, Answer], slower_us: int) -> None:
        """Tell the ledger of answered requests, as model servers do: by what the gateway said of each."""
        feedback, now_us, key = self.told, time.time_ns() // 1000, State(self.up.state, MODEL).route_key()
        entries = []
        for unit, answer in answers.items():
            header = answer.echo["headers"].get(EXPERIMENT_HEADER)
            if header is None:  # it is over
                continue
            route = verify(header, {key.id: key})
            assert route.variant == route.revision == _revision(answer)
            assert assign(unit, self.salt, route.layout) == route.variant
            arm = {"salt": route.salt, "phase": route.phase, "variant": route.variant, "revision": route.revision}
            entries.append({**arm, "unit": feedback.keys.unit(unit.encode(), self.salt).hex()})
        taken = [
            USUAL_US + 137 * (index % 7) + (slower_us if entry["variant"] == self.candidate else 0)
            for index, entry in enumerate(entries)
        ]
        report = {
            "server": "servers-of-the-test",
            "sequence": self.sent,
            "exposures": [{**entry, "at_us": now_us} for entry in entries],
            "counts": [{**entry, "requests": 1, "latency_us": us} for entry, us in zip(entries, taken, strict=True)],
        }
        taken_in = httpx.post(f"{feedback.ledger}/v1/exposures", json=report, timeout=30, trust_env=False)
        assert taken_in.is_success, taken_in.text


def _revision(answer: Answer) -> str:
    return str(answer.echo["revision"])


@pytest.mark.parametrize(
    ("fault", "metric"), [({"drops": True}, "error"), ({"slower_us": SLOWER_US}, "latency_ms")], ids=["drops", "slower"]
)
async def test_a_revision_that_drops_every_fiftieth_request_or_is_20_ms_slower_rolls_back(
    manifest: ManifestFile, fault: dict[str, Any], metric: str
) -> None:
    manifest.spec["rollout"]["steps"] = [{"weights": {"logistic": 50}, "hold": "1h"}]
    manifest.write()
    up = Up(manifest)
    with running(up):
        canary = await asyncio.to_thread(Canary, up, manifest, "worse")
        await canary.carry(**fault)
        await asyncio.to_thread(canary.wait, lambda: up.status()["rollout"]["state"] == "Stable")
        decision = up.status()["rollout"]["decision"]
        assert (decision["verdict"], decision["reason"], decision["analysis"]) == (
            "Rollback",
            "GuardrailBreached",
            "Fail",
        )
        answers = await post(up.port, [{"x-unit-id": f"N{one}"} for one in range(50)])
        assert {_revision(answer) for answer in answers} == {canary.stable}
        await asyncio.to_thread(canary.wait, lambda: up.status()["rollout"]["decision"].get("record"))
        record = canary.ask(f"/v1/experiments/{canary.salt}/record")
        assert record["design"]["treatments"] == [canary.candidate]
        breached = [one["metric"] for one in record["report"]["metrics"] if one["finding"] == "Breached"]
        assert breached == [metric]


async def test_a_good_revision_is_promoted_by_its_steps_and_the_record_says_which(manifest: ManifestFile) -> None:
    up = Up(manifest)
    with running(up):
        assert up.condition("ExperimentHealthy", "reason") == "NoExperiment"
        canary = await asyncio.to_thread(Canary, up, manifest, "better")
        await canary.carry()
        await asyncio.to_thread(canary.wait, lambda: up.status()["rollout"]["state"] == "Stable")
        decision = up.status()["rollout"]["decision"]
        assert (decision["verdict"], decision["reason"]) == ("Promote", "StepsCompleted")
        answers = await post(up.port, [{"x-unit-id": f"N{one}"} for one in range(50)])
        assert {_revision(answer) for answer in answers} == {canary.candidate}
        await asyncio.to_thread(canary.wait, lambda: up.status()["rollout"]["decision"].get("record"))
        record = canary.ask(f"/v1/experiments/{canary.salt}/record")
        assert (record["decision"]["action"], record["decision"]["winner"]) == ("Promote", canary.candidate)
        assert record["report"]["sample_ratio"]["is_broken"] is False
        kept = manifest.path.parent / "record.json"
        kept.write_text(json.dumps(record))
        assert "agree" in _fairlead("experiment", "verify", str(kept), "--ledger", canary.told.ledger)
        page = canary.page()
        assert canary.candidate in page
        assert "canary: two revisions of one variant" in page


async def test_without_traffic_nothing_is_promoted_however_long_its_steps_were_held(manifest: ManifestFile) -> None:
    up = Up(manifest)
    with running(up):
        canary = await asyncio.to_thread(Canary, up, manifest, "idle")
        await asyncio.to_thread(canary.wait, lambda: up.status()["experiment"].get("verdict") == "NoData")
        begun = str(up.status()["rollout"]["stepStartedAt"])
        await asyncio.to_thread(canary.wait, lambda: _age_s(begun) > 4)
        assert (up.status()["rollout"]["step"], up.variant("logistic")["weight"] > 0) == (0, True)
        assert not canary.is_decided


def _age_s(begun: str) -> float:
    return time.time() - datetime.fromisoformat(begun).timestamp()


def _fairlead(*arguments: str) -> str:
    command = [sys.executable, "-m", "fairlead.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
