"""``fairlead status``: a deployment in a cluster, all of them, and what changes while somebody watches."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cluster_world import RELEASE, Scene, alone, experiment, manual, scene_of
from support.commands import commands_of
from support.kube.faults import CutLine, Refuse, calls
from support.waiting import until

HERE = ("-n", "flights")


@pytest.fixture
async def ramping(tmp_path: Path) -> AsyncIterator[Scene]:
    """A deployment whose experiment is in its first step, and one of which nobody has heard yet."""
    async with scene_of(tmp_path, experiment()) as scene:
        async with scene.life() as life:
            await life.rest()
        scene.server.create(alone("other"))
        yield scene


def line_of(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(word))


async def test_a_picture_has_weights_in_force_beside_those_aimed_at(ramping: Scene, tmp_path: Path) -> None:
    shown = await commands_of(ramping.server, tmp_path).run("status", "delay", *HERE)
    assert shown.code == 0, shown
    assert "flights/delay" in shown.out
    assert "experiment e1, phase 0: observed" in shown.out
    assert "rollout by Experiment: Ramping; step 1 of 2 since " in shown.out
    assert "to be held for 30m" in shown.out
    assert "record ConfigMap flights/delay-rollout" in shown.out
    assert f"server release {RELEASE}" in shown.out
    assert line_of(shown.out, "boosted").split()[:7] == [
        *("boosted", "Treatment", "yes", "1", "10", "##..................", "10")
    ]
    assert line_of(shown.out, "logistic").split()[4:7] == ["90", "##################..", "90"]
    assert ramping.service("boosted") in shown.out
    ready = line_of(shown.out, "Ready").split(maxsplit=4)
    assert ready[:3] == ["Ready", *_ready_of(ramping)]


async def test_a_picture_says_what_the_analysis_says(ramping: Scene, tmp_path: Path) -> None:
    said = {"verdict": "Insufficient", "reason": "NotYetMature", "units": {"logistic": 90, "boosted": 11}}
    told = ramping.status()
    told["experiment"] |= said | {"page": "http://ledger/experiments/flights/delay/e1"}
    decision = {"verdict": "Rollback", "reason": "Requested", "at": "2026-11-21T07:00:00Z", "record": "http://ledger/r"}
    told["rollout"]["decision"] = decision
    ramping.server.set_status("ModelDeployment", "flights", "delay", told)
    shown = await commands_of(ramping.server, tmp_path).run("status", "delay", *HERE)
    assert "analysis: Insufficient (NotYetMature); units: logistic 90, boosted 11" in shown.out
    assert "page http://ledger/experiments/flights/delay/e1" in shown.out
    assert "decision record http://ledger/r" in shown.out


def _ready_of(scene: Scene) -> list[str]:
    status, reason, _ = scene.condition("Ready")
    return [status, reason]


async def test_what_is_aimed_at_is_left_out_where_the_record_may_not_be_read(ramping: Scene, tmp_path: Path) -> None:
    ramping.server.faults.inject(Refuse(403, "Forbidden"), calls("get", "configmaps"))
    shown = await commands_of(ramping.server, tmp_path).run("status", "delay", *HERE)
    assert shown.code == 0
    assert line_of(shown.out, "boosted").split()[4:6] == ["10", "##.................."]
    assert "record" not in shown.out


async def test_all_deployments_of_a_namespace_have_a_line_each(ramping: Scene, tmp_path: Path) -> None:
    commands = commands_of(ramping.server, tmp_path)
    shown = await commands.run("status", *HERE)
    assert shown.code == 0
    assert line_of(shown.out, "NAMESPACE").split()[:3] == ["NAMESPACE", "NAME", "READY"]
    delay, other = shown.out.splitlines()[1:3]
    assert ("delay" in delay, "Ramping 1/2" in delay, "logistic 90, boosted 10" in delay) == (True, True, True)
    assert ("other" in other, "not seen by the operator yet" in other) == (True, True)
    assert (await commands.run("status", "-A")).out == shown.out
    assert "no ModelDeployments here" in (await commands.run("status", "-n", "taxis")).out


async def test_json_and_yaml_are_the_whole_resource_or_a_list(ramping: Scene, tmp_path: Path) -> None:
    commands = commands_of(ramping.server, tmp_path)
    live = ramping.server.get("ModelDeployment", "flights", "delay")
    assert live
    live["metadata"].pop("managedFields")
    one = await commands.run("status", "delay", *HERE, "-o", "json")
    assert json.loads(one.out) == live
    assert yaml.safe_load((await commands.run("status", "delay", *HERE, "-o", "yaml")).out) == live
    many = json.loads((await commands.run("status", *HERE, "-o", "json")).out)
    assert (many["kind"], [item["metadata"]["name"] for item in many["items"]]) == ("List", ["delay", "other"])
    assert {(item["apiVersion"], item["kind"]) for item in many["items"]} == {(live["apiVersion"], live["kind"])}


async def test_a_canary_shows_both_revisions_and_their_shares(tmp_path: Path) -> None:
    steps = {"strategy": "Canary", "steps": [{"weights": {"logistic": 20}, "hold": "30m"}]}
    async with scene_of(tmp_path, alone(rollout=steps)) as scene, scene.life() as life:
        await life.rest()
        before = scene.service("logistic")
        variants = scene.server.get("ModelDeployment", "flights", "delay")["spec"]["variants"]  # type: ignore[index]
        variants[0]["model"]["digest"] = f"sha256:{'b' * 64}"
        scene.edit(variants=variants)
        await life.rest()
        shown = await commands_of(scene.server, tmp_path).run("status", "delay", *HERE)
    rows = [line.split() for line in shown.out.splitlines() if line.startswith("logistic")]
    assert [rows[0][3], *rows[0][5:]] == ["80", "80", before]
    assert [rows[1][4], rows[1][6]] == ["20", "20"]


async def test_a_promotion_aims_at_everything_for_the_winner(ramping: Scene, tmp_path: Path) -> None:
    ramping.annotate(request="promote boosted flights/delay/e1")
    async with ramping.life() as life:
        await life.rest()
    shown = await commands_of(ramping.server, tmp_path).run("status", "delay", *HERE)
    assert "decided: Promote boosted (" in shown.out
    assert line_of(shown.out, "boosted").split()[4:7] == ["100", "#" * 20, "100"]
    assert line_of(shown.out, "logistic").split()[4:7] == ["0", "." * 20, "0"]
    assert "ROLLED OUT" in shown.out


async def test_a_deployment_that_nobody_has_seen_and_one_that_is_broken_are_shown_all_the_same(
    ramping: Scene, tmp_path: Path
) -> None:
    commands = commands_of(ramping.server, tmp_path)
    assert "the operator has not seen it yet" in (await commands.run("status", "other", *HERE)).out
    ramping.break_spec()
    broken = await commands.run("status", "delay", *HERE)
    assert broken.code == 0
    assert "generation 2 of the spec was not seen by the operator yet; this is about 1" in broken.out


async def test_watching_shows_each_change_until_it_is_interrupted(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual(10)) as scene, scene.life() as life:
        await life.rest()
        kubeconfig = scene.server.kubeconfig(tmp_path)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fairlead.cli.main", "status", "delay", *HERE, "--watch"),
            *("--kubeconfig", str(kubeconfig)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout
        await _read_until(process.stdout, "boosted", " 10 ")
        scene.server.interrupt_watches(CutLine())
        scene.edit(rollout={"weights": {"boosted": 30}})
        await life.rest()
        await _read_until(process.stdout, "boosted", " 30 ")
        process.send_signal(2)
        assert await asyncio.wait_for(process.wait(), 60) == 130


async def test_watching_outlives_an_outage_of_the_api_and_tells_of_it_once(ramping: Scene, tmp_path: Path) -> None:
    server = ramping.server
    watching = asyncio.create_task(commands_of(server, tmp_path).run("status", "other", *HERE, "-w", "-o", "json"))
    await until(lambda: bool(server.open_watches))
    server.forget_requests()
    server.faults.inject(Refuse(503, "ServiceUnavailable"), calls("list", "modeldeployments"), times=4)
    server.interrupt_watches(CutLine())
    await until(lambda: sum(record.call.verb == "list" for record in server.requests) > 4, 60)
    await until(lambda: bool(server.open_watches), 60)
    server.delete("ModelDeployment", "flights", "other")
    ended: Any = await asyncio.wait_for(watching, 60)
    away, back, gone = ended.err.splitlines()
    assert away.startswith("the Kubernetes API does not answer (injected by the test); asking again until it does")
    assert (back, gone) == ("the Kubernetes API answers again", "error: ModelDeployment flights/other was deleted")
    assert (ended.code, ended.out.count('"kind": "ModelDeployment"')) == (1, 1)


async def test_an_api_that_is_away_from_the_first_ends_the_watch(ramping: Scene, tmp_path: Path) -> None:
    ramping.server.faults.inject(Refuse(503, "ServiceUnavailable"), calls("list", "modeldeployments"), times=99)
    ended = await commands_of(ramping.server, tmp_path).run("status", *HERE, "-w")
    assert (ended.code, ended.reason.startswith("error: ")) == (1, True)


async def _read_until(stream: asyncio.StreamReader, first: str, word: str) -> None:
    """Read lines until one begins with ``first`` and has ``word``."""
    while True:
        line = (await asyncio.wait_for(stream.readline(), 60)).decode()
        assert line, "it ended"
        if line.startswith(first) and word in line:
            return


async def test_a_watched_deployment_that_is_deleted_ends_the_watch(ramping: Scene, tmp_path: Path) -> None:
    commands = commands_of(ramping.server, tmp_path)
    watching = asyncio.create_task(commands.run("status", "other", *HERE, "-w"))
    await until(lambda: bool(ramping.server.open_watches))
    ramping.server.delete("ModelDeployment", "flights", "other")
    ended: Any = await asyncio.wait_for(watching, 60)
    assert (ended.code, ended.reason) == (1, "error: ModelDeployment flights/other was deleted")
