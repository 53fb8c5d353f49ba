"""Whole operators, their Lease, and an API that fails in every way it can."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fairlead_operator.runtime.keys import ObjectKey
from support.cluster_world import Scene, alone, experiment, manual, routing, scene_of
from support.kube import (
    CutLine,
    Drop,
    End,
    FallSilent,
    Hang,
    LoseAnswer,
    Refuse,
    WatchError,
    calls,
)
from support.kube.faults import CallFault, WatchFault
from support.waiting import until
from support.whole_operator import whole_operator

BOTH = {"logistic": 70.0, "boosted": 30.0}
WRITES = calls("write")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path) as scene, scene.world.running():
        scene.clock.us = 1_780_000_000_000_000
        yield scene


def settled(scene: Scene, weights: dict[str, float]) -> Callable[[], bool]:
    return lambda: scene.weights == weights and scene.condition("Ready")[0] == "True"


def writers(scene: Scene) -> set[str]:
    """Return who has written anything but Leases."""
    return {write.call.user_agent for write in scene.server.writes if write.call.plural != "leases"}


async def test_of_two_operators_one_writes(scene: Scene, tmp_path: Path) -> None:
    async with whole_operator(scene, tmp_path, name="one") as one:
        await until(lambda: one.value("fairlead_leader") == 1)
        async with whole_operator(scene, tmp_path, name="two") as two:
            await until(lambda: two.runtime.store.is_ready)
            scene.server.create(manual(30))
            await until(settled(scene, BOTH))
            assert two.value("fairlead_leader") == 0
            assert writers(scene) == {"fairlead-operator/one"}
            one.runtime.stop()
            await one.task
            scene.edit(rollout={"weights": {"boosted": 40}})
            await until(settled(scene, {"logistic": 60, "boosted": 40}))
            assert writers(scene) == {"fairlead-operator/one", "fairlead-operator/two"}


async def test_a_leader_that_was_stopped_past_its_lease_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    leapt_s = 0.0
    async with whole_operator(scene, tmp_path, name="one", now=lambda: loop.time() + leapt_s) as one:
        await until(lambda: one.value("fairlead_leader") == 1)
        halt = scene.server.halt_after(9)
        scene.server.create(manual(30))
        await halt.reached()  # in the midst of making things; and now it is stopped for long
        leapt_s = 100.0
        lease = {"spec": {"holderIdentity": "two"}}
        scene.server.patch("Lease", "default", "fairlead-operator", lease)
        await asyncio.sleep(0.3)  # what was sent before has come; the resourceVersion takes care of it
        scene.server.forget_requests()
        halt.resume()
        await until(lambda: one.value("fairlead_leader") == 0)
        await asyncio.sleep(0.3)
        held = [call for call in halt.held if call.is_write]
        written = [write.call for write in scene.server.writes if write.call.plural != "leases"]
        assert [call for call in written if call not in held] == []


def events(scene: Scene) -> list[bytes]:
    """Return the Events that were posted."""
    return [write.call.body for write in scene.server.writes if write.call.plural == "events"]


def quiet(scene: Scene) -> Callable[[], Awaitable[bool]]:
    """Return whether nothing but Leases is written for a moment."""

    async def is_quiet() -> bool:
        scene.server.forget_requests()
        await asyncio.sleep(0.5)
        return not writers(scene)

    return is_quiet


FAULTS: tuple[tuple[str, CallFault, str], ...] = (
    ("conflict", Refuse(409, "Conflict"), "409"),
    ("busy", Refuse(429, "TooManyRequests", retry_after_s=0), "429"),
    ("error", Refuse(500, "InternalError"), "500"),
    ("unavailable", Refuse(503, "ServiceUnavailable"), "503"),
    ("dropped", Drop(), "connection"),
    ("answer lost", LoseAnswer(), "connection"),
    ("hang", Hang(), "timeout"),
)


@pytest.mark.parametrize(("what", "fault", "code"), FAULTS, ids=[name for name, _, _ in FAULTS])
async def test_failed_writes_converge_and_are_counted(
    what: str, fault: CallFault, code: str, scene: Scene, tmp_path: Path
) -> None:
    del what
    times = 1 if isinstance(fault, Hang | LoseAnswer) or code == "409" else 2
    async with whole_operator(scene, tmp_path, api_attempt_s=0.5) as operator:
        await until(lambda: operator.value("fairlead_leader") == 1)
        kinds = ("virtualservices", "inferenceservices", "envoyfilters", "configmaps", "modeldeployments")
        for kind in kinds:
            scene.server.faults.inject(fault, calls("write", kind), times=times)
        scene.server.create(manual(30))
        await until(settled(scene, BOTH), timeout_s=25)
        assert sum(operator.total("fairlead_api_calls_total", code=code, kind=kind) for kind in kinds) >= 2
        errors = operator.total("fairlead_reconciles_total", result="bug")
        assert errors == 0


@pytest.mark.parametrize(
    "fault", [End(), CutLine(), WatchError(410), WatchError(500, "InternalError"), FallSilent()], ids=str
)
async def test_watches_that_break_in_mid_rollout(fault: WatchFault, scene: Scene, tmp_path: Path) -> None:
    async with whole_operator(scene, tmp_path, watch_silence_s=0.6) as operator:
        scene.server.create(manual(30))
        await until(settled(scene, BOTH))
        if isinstance(fault, WatchError):
            scene.server.store.compact()
        assert scene.server.interrupt_watches(fault) > 10
        scene.edit(rollout={"weights": {"boosted": 40}})
        await until(settled(scene, {"logistic": 60, "boosted": 40}), timeout_s=25)
        assert operator.total("fairlead_watch_restarts_total") > 0


async def test_a_token_that_was_rotated(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene, scene.world.running():
        scene.server.token = "first"  # noqa: S105 -- of a test
        async with whole_operator(scene, tmp_path) as operator:
            scene.server.create(manual(30))
            await until(settled(scene, BOTH))
            scene.server.token = "second"  # noqa: S105 -- of a test
            scene.edit(rollout={"weights": {"boosted": 40}})
            scene.server.interrupt_watches(End())
            await until(lambda: operator.total("fairlead_api_calls_total", code="401") > 0)
            scene.server.kubeconfig(tmp_path)
            await until(settled(scene, {"logistic": 60, "boosted": 40}), timeout_s=30)


async def test_one_that_fails_for_good_does_not_slow_the_others(scene: Scene, tmp_path: Path) -> None:
    async with whole_operator(scene, tmp_path, workers=1) as operator:
        await until(lambda: operator.value("fairlead_leader") == 1)
        scene.server.faults.inject(Refuse(422, "Invalid"), calls("write", "inferenceservices"), times=10_000)
        scene.server.create(experiment("broken"))
        await until(lambda: operator.total("fairlead_reconciles_total", result="refused") >= 1)
        scene.server.faults.clear()
        broken = "inferenceservices"
        scene.server.faults.inject(
            Refuse(422, "Invalid"), lambda call: call.plural == broken and call.name.startswith("broken"), times=10_000
        )
        scene.server.create(manual(30))
        await until(settled(scene, BOTH))
        assert scene.reason("VariantsReady", ObjectKey("flights", "broken")) == "RefusedByApi"
        assert operator.total("fairlead_reconciles_total", result="refused") < 10


async def test_what_is_deleted_while_watched_comes_back_within_moments(scene: Scene, tmp_path: Path) -> None:
    async with whole_operator(scene, tmp_path):
        scene.server.create(manual(30))
        await until(settled(scene, BOTH))
        for kind, namespace, name in scene.ours():
            if kind in {"Secret", "InferenceService"}:
                continue
            scene.server.delete(kind, namespace, name)
            await until(lambda place=(kind, namespace, name): scene.server.get(*place) is not None)  # type: ignore[misc]
        await until(settled(scene, BOTH))


async def test_no_key_is_told_anywhere(scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with whole_operator(scene, tmp_path):
        scene.server.create(manual(30))
        await until(settled(scene, BOTH))
        await until(lambda: bool(events(scene)))
        secret = scene.server.get("Secret", "flights", "delay-serving") or {}
    encoded = secret["data"]["route-keys.json"]
    (key,) = json.loads(base64.b64decode(encoded))["keys"]
    told = caplog.text + b"".join(events(scene)).decode() + str(scene.server.objects("ModelDeployment"))
    assert "applied" in told
    assert key["secret"] not in told
    assert encoded not in told


async def test_events_tell_of_changes_and_of_nothing_else(scene: Scene, tmp_path: Path) -> None:
    async with whole_operator(scene, tmp_path):
        scene.server.create(alone(routing=routing()))
        await until(lambda: scene.condition("Ready")[0] == "True")
        await until(lambda: any(b"AsSpecified" in event for event in events(scene)))
        await until(quiet(scene))
        scene.server.forget_requests()
        scene.annotate(note="x")
        await asyncio.sleep(0.5)
        assert writers(scene) == set()
