"""A canary with guardrails in a cluster, from a new model to the record of its decision, with the real ledger."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead import Layout, assign
from fairlead.feedback.messages import Exposure, ExposureReport, UnitCounts
from fairlead.route import EXPERIMENT_HEADER, ExperimentRoute, verify
from fairlead_operator.platforms.kubernetes.render.serving import read_keys
from fairlead_operator.runtime.evidence import LedgerEvidence
from support.cluster_world import Life, Scene, alone, scene_of, variant
from support.ledger_stand import LedgerStand
from support.ledgers import NOON_US, ROOT, digest

STEPS = [{"weights": {"logistic": 20}, "hold": "5m"}, {"weights": {"logistic": 50}, "hold": "5m"}]
GUARDED: dict[str, Any] = {
    "rollout": {"strategy": "Canary", "steps": STEPS},
    "experiment": {"guardrails": [{"metric": "error", "margin": "1pp"}]},
}


@pytest.fixture
def stand(tmp_path: Path) -> LedgerStand:
    return LedgerStand(tmp_path / "ledger")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path, alone(**GUARDED)) as scene:
        yield scene


def told(folder: Path) -> dict[str, Any]:
    """Return the settings of an operator that knows of the ledger."""
    (folder / "keys.json").write_text(ROOT.dumped())
    return {"ledger_url": "http://ledger.test", "feedback_keys": folder / "keys.json"}


async def rest(life: Life, stand: LedgerStand, seconds: float = 0) -> None:
    """Let time pass, and everything that is asked be answered and acted upon."""
    source = life.controller.evidence
    assert isinstance(source, LedgerEvidence)
    source.client = dataclasses.replace(source.client, session=stand.session())
    life.scene.clock.advance(seconds)
    for _ in range(6):
        await life.rest()
        await asyncio.gather(*(known.task for known in source._known.values() if known.task is not None))
        await life.rest()
        life.scene.clock.advance(16)


async def begun(scene: Scene, life: Life, stand: LedgerStand, model: str = "b") -> tuple[str, str]:
    """Ask for another model; return the revision that serves and the new one."""
    await rest(life, stand)
    old = scene.service("logistic")
    scene.edit(variants=[variant("logistic", "Control", model)])
    await rest(life, stand)
    return old, scene.service("logistic")


def headers(scene: Scene) -> list[ExperimentRoute]:
    """Return what the destinations of the units' split tell servers, in order."""
    live = scene.server.get("VirtualService", "flights", "delay")
    assert live is not None
    sets = (
        [one["headers"]["request"].get("set", {}) for one in each.get("route", ())] for each in live["spec"]["http"]
    )
    sent = next(given for each in sets if any(given := [one.get(EXPERIMENT_HEADER, "") for one in each]))
    keys = {key.id: key for key in read_keys(scene.server.get("Secret", "flights", "delay-serving") or {})}
    return [verify(value, keys) for value in sent]


def expose(stand: LedgerStand, salt: str, arms: tuple[str, str], step: int, *, is_worse: bool) -> None:
    """Have servers tell of units in a step; of those of the new revision many are not answered if it is worse."""
    old, new = arms
    layout = Layout.of(old, {new: (2000, 5000)[step]})
    exposures, counts = [], []
    for number in range(900):
        unit = f"u{number}"
        revision = assign(unit, salt, layout)
        arm: dict[str, Any] = {"salt": salt, "phase": step, "variant": revision, "revision": revision}
        arm["unit"] = digest(unit, salt)
        exposures.append(Exposure(**arm, at_us=NOON_US))
        errors = number % 5 if is_worse and revision == new else 0
        counts.append(UnitCounts(**arm, requests=4, errors=errors, latency_us=20_000))
    stand.ledger.take_reports([ExposureReport(server="s", sequence=step, exposures=exposures, counts=counts)])


async def test_a_revision_that_breaches_a_guardrail_gives_everything_back(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    async with scene.life(**told(tmp_path)) as life:
        arms = old, new = await begun(scene, life, stand)
        assert scene.laws.seen[-1] == {new: 2000, old: 8000}
        salt = scene.status()["experiment"]["salt"]
        assert salt.startswith(f"flights/delay/{new}-")
        assert [(one.variant, one.revision, one.salt, one.phase) for one in headers(scene)] == [
            (new, new, salt, 0),
            (old, old, salt, 0),
        ]
        expose(stand, salt, arms, 0, is_worse=True)
        await rest(life, stand, 20)
        assert scene.laws.seen[-1].get(new, 0) == 0
        rollout, said = scene.status()["rollout"], scene.status()["experiment"]
        assert rollout["verdict"] == "Rollback (GuardrailBreached)"
        assert said["units"].keys() == {old, new}
        assert [one["variant"] for one in said["metrics"]] == [new]
        record = (await stand.session().get(rollout["decision"]["record"])).json()
        assert rollout["decision"]["recordDigest"] == record["hash"]
        assert (record["design"]["control"], record["design"]["treatments"]) == (old, [new])


async def test_a_good_revision_goes_by_its_steps_and_another_operator_goes_on_with_it(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    async with scene.life(**told(tmp_path)) as life:
        arms = old, new = await begun(scene, life, stand)
        salt = scene.status()["experiment"]["salt"]
        await rest(life, stand, 900)
        assert scene.laws.seen[-1] == {new: 2000, old: 8000}, "no data promotes nobody"
        expose(stand, salt, arms, 0, is_worse=False)
        await rest(life, stand, 20)
        assert scene.laws.seen[-1] == {new: 5000, old: 5000}
    async with scene.life(**told(tmp_path)) as life:
        expose(stand, salt, arms, 1, is_worse=False)
        await rest(life, stand, 301)
        assert scene.status()["experiment"]["salt"] == salt
        assert scene.laws.seen[-1] == {new: 10000}
        rollout = scene.status()["rollout"]
        assert rollout["verdict"] == "Promote (StepsCompleted)"
        record = (await stand.session().get(rollout["decision"]["record"])).json()
        assert record["decision"]["winner"] == new


async def test_a_dead_ledger_lets_no_canary_begin_and_takes_nothing_from_one(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    async with scene.life(**told(tmp_path)) as life:
        stand.fault = httpx.ConnectError("refused")
        old, new = await begun(scene, life, stand)
        assert scene.laws.seen[-1].get(new, 0) == 0
        assert scene.reason("ExperimentHealthy") == "LedgerUnreachable"
        stand.fault = None
        await rest(life, stand, 120)
        assert scene.laws.seen[-1] == {new: 2000, old: 8000}
        expose(stand, scene.status()["experiment"]["salt"], (old, new), 0, is_worse=False)
        stand.fault = httpx.ConnectError("refused")
        await rest(life, stand, 3600)
        assert scene.laws.seen[-1] == {new: 2000, old: 8000}
        assert scene.reason("ExperimentHealthy") == "LedgerUnreachable"
