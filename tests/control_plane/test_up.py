"""``fairlead up`` through its life: edits, crashes, hangs, kills, and everything that can be wrong at the start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fairlead import bucket_of
from fairlead.clock import ReplayClockWriter
from support.envoy import ECHO, Answer, ManifestFile, Up, is_alive, model, post, running, wait_until

SALT = "flights/arrival-delay/e1"


@pytest.fixture
def manifest(tmp_path: Path) -> ManifestFile:
    return ManifestFile.make(tmp_path)


def fails(up: Up, code: int) -> str:
    """Start ``up``, expect it to end with ``code``, and return its last line."""
    up.start()
    assert up.process is not None
    assert up.process.wait(30) == code, up.log.read_text()
    return up.log.read_text().strip().splitlines()[-1]


async def test_a_thousand_requests_in_flight_survive_ten_changes_of_weight_and_a_killed_server(
    manifest: ManifestFile,
) -> None:
    """Only requests of the killed arm fail: inside the process, or before its weight is withdrawn."""
    answers: list[tuple[str, float, Answer]] = []
    stop = asyncio.Event()

    async def ask(client: int) -> None:
        asked = 0
        while not stop.is_set():
            unit, sent, asked = f"N{client}-{asked}", time.monotonic(), asked + 1
            [answer] = await post(up.port, [{"x-unit-id": unit}], body=b'{"sleep_s": 0.5}')
            answers.append((unit, sent, answer))

    async def change() -> float:
        await asyncio.sleep(0.5)
        for weight in (10, 20, 30, 40, 50):
            manifest.weigh(boosted=weight)
            await asyncio.sleep(0.2)
        os.kill(up.pid("boosted"), signal.SIGKILL)
        killed_at = time.monotonic()
        for weight in (45, 35, 25, 15, 60):
            manifest.weigh(boosted=weight)
            await asyncio.sleep(0.2)
        await asyncio.to_thread(wait_until, lambda: up.variant("boosted")["weight"] == 60, 20, up.explain)
        await asyncio.sleep(0.2)
        stop.set()
        return killed_at

    slow_to_be_ready = f"{sys.executable} {ECHO} --ready-after 0.5"
    with running(Up(manifest, server_command=slow_to_be_ready)) as up:
        asking = asyncio.gather(*(ask(client) for client in range(1000)))
        killed_at = await change()
        await asking
        good = [answer for *_, answer in answers if answer.status == 200]
        assert all(answer.echo["variant"] == answer.variant for answer in good)
        assert all(answer.echo["ready"] for answer in good), "a server answered before it was ready"
        lost = [(unit, sent - killed_at, answer) for unit, sent, answer in answers if answer.status != 200]
        assert len(answers) - len(lost) > 2000
        assert len(lost) <= 600, Counter(answer.status for *_, answer in lost)  # none, if none was inside just then
        assert {(answer.status, answer.variant) for *_, answer in lost} <= {(503, "boosted")}
        assert all(-5 < since < 2 for _, since, _ in lost)
        assert all(bucket_of(unit, SALT) < 6000 for unit, *_ in lost)
        assert up.variant("boosted")["restarts"] == 1
        assert up.variant("boosted")["lastFailure"]["reason"] == "Crashed"


async def test_an_unchanged_file_restarts_nothing(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        before, generation = up.pids(), up.status()["observedGeneration"]
        manifest.write()
        manifest.path.write_text(f"# a remark\n{manifest.path.read_text()}")
        await asyncio.sleep(0.5)
        assert up.pids() == before
        assert up.status()["observedGeneration"] == generation


def test_an_edit_while_the_gateway_starts_is_not_lost(manifest: ManifestFile) -> None:
    up = Up(manifest)
    record = up.folder / "state.json"
    try:
        up.start()
        wait_until(lambda: record.exists() and json.loads(record.read_bytes())["manifest"], 20)
        manifest.weigh(boosted=20)
        wait_until(lambda: up.status()["variants"] and up.variant("boosted")["weight"] == 20, 20, up.explain)
    finally:
        up.stop()


async def test_a_changed_digest_replaces_only_that_variant_and_loses_no_request(manifest: ManifestFile) -> None:
    manifest.spec["experiment"] = None
    manifest.write()
    with running(Up(manifest)) as up:
        before, old = up.pids(), up.variant("boosted")["revision"]
        variant = manifest.spec["variants"][1]
        variant["model"] = model(manifest.path.parent, "better")
        manifest.write()
        answers: list[Answer] = []
        while up.variant("boosted").get("serving") == old or old in up.pids():
            answers += await post(up.port, [{"x-unit-id": f"N{i}"} for i in range(50)], body=b'{"sleep_s": 0.01}')
        assert {answer.status for answer in answers} == {200}
        after, new = up.pids(), up.variant("boosted")["revision"]
        assert new != old
        assert not is_alive(before[old])
        assert {what: pid for what, pid in after.items() if what != new} == {
            what: pid for what, pid in before.items() if what != old
        }


def test_a_model_that_is_refused_later_leaves_the_old_one_serving_until_the_edit_is_taken_back(
    manifest: ManifestFile,
) -> None:
    manifest.spec["experiment"] = None
    manifest.write()
    with running(Up(manifest)) as up:
        before = up.pids()
        edit_digest(manifest)
        manifest.write()
        wait_until(lambda: up.condition("Ready", "reason") == "ModelRefused", 5, up.explain)
        assert f"not sha256:{'0' * 64}" in str(up.condition("VariantsReady", "message"))
        assert up.pids() == before
        assert (up.variant("boosted")["weight"], up.variant("boosted")["restarts"]) == (50, 0)
        log = up.folder / f"logs/{up.variant('boosted')['revision']}.log"
        assert log.read_text().count("digest is") == 1
        manifest.weigh(boosted=40)  # an edit is a reason to try again at once
        wait_until(lambda: log.read_text().count("digest is") == 2, 3, up.explain)
        wait_until(lambda: up.variant("boosted")["weight"] == 40, 3, up.explain)
        wait_until(lambda: up.pids() == before, 3, up.explain)
        manifest.spec["variants"][1]["model"] = model(manifest.path.parent, "boosted")
        manifest.write()
        wait_until(lambda: up.condition("Ready") == "True", 5, up.explain)
        assert up.pids() == before


def test_an_experiment_freezes_what_it_compares(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        before = up.pids()
        manifest.spec["variants"][1]["model"] = model(manifest.path.parent, "better")
        manifest.write()
        wait_until(lambda: up.condition("Progressing", "reason") == "InvalidSpec", 5, up.explain)
        assert "spec.experiment.id: experiment e1 has frozen" in str(up.condition("Progressing", "message"))
        assert up.pids() == before
        manifest.spec["experiment"] = {"id": "e2"}
        manifest.write()
        wait_until(lambda: up.condition("Ready") == "True", 10, up.explain)
        assert up.status()["experiment"]["salt"] == "flights/arrival-delay/e2"


async def test_an_invalid_edit_keeps_the_last_good_one_and_says_which_line(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        before, good = up.pids(), manifest.path.read_text()
        manifest.path.write_text(good.replace("boosted: 50", "boosted: 500"))
        wait_until(lambda: up.condition("Ready", "reason") == "InvalidSpec", 5, up.explain)
        line = good.splitlines().index("      boosted: 50") + 1
        assert f"modeldeployment.yaml:{line}: spec.rollout.weights.boosted" in str(up.condition("Ready", "message"))
        assert up.condition("Servable") == "True"
        manifest.path.unlink()
        wait_until(lambda: "cannot be read" in str(up.condition("Ready", "message")), 5, up.explain)
        [answer] = await post(up.port, [{"x-unit-id": "u"}])
        assert answer.status == 200
        manifest.path.write_text(good)
        wait_until(lambda: up.condition("Ready") == "True", 5, up.explain)
        assert up.pids() == before


def test_a_paused_deployment_keeps_what_is_in_force(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        manifest.spec["paused"] = True
        manifest.weigh(boosted=10)
        wait_until(lambda: up.condition("Progressing", "reason") == "Paused", 5, up.explain)
        assert up.variant("boosted")["weight"] == 50
        manifest.spec["paused"] = False
        manifest.write()
        wait_until(lambda: up.variant("boosted")["weight"] == 10, 5, up.explain)


async def test_a_hung_server_loses_its_weight_within_two_seconds_and_gets_it_back(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        pid = up.pid("boosted")
        os.kill(pid, signal.SIGSTOP)
        took = await asyncio.to_thread(wait_until, lambda: up.variant("boosted")["weight"] == 0, 3, up.explain)
        assert took < 2
        answers = await post(up.port, [{"x-unit-id": f"u{i}"} for i in range(50)])
        assert {(answer.status, answer.variant) for answer in answers} == {(200, "logistic")}
        assert not any("x-fairlead-experiment" in answer.echo["headers"] for answer in answers)
        os.kill(pid, signal.SIGCONT)
        await asyncio.to_thread(wait_until, lambda: up.variant("boosted")["weight"] == 50, 5, up.explain)
        assert up.pid("boosted") == pid


async def test_control_keeps_its_share_when_it_dies_because_nothing_is_better(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        os.kill(up.pid("logistic"), signal.SIGKILL)
        reasons = set()

        def degraded() -> bool:
            reasons.add(up.condition("RoutingReady", "reason"))
            return "Degraded" in reasons

        await asyncio.to_thread(wait_until, degraded, 5, up.explain)
        assert up.variant("boosted")["weight"] == 50
        await asyncio.to_thread(wait_until, lambda: up.condition("Ready") == "True", 10, up.explain)
        answers = await post(up.port, [{"x-unit-id": f"u{i}"} for i in range(50)])
        assert {answer.status for answer in answers} == {200}


async def test_the_gateway_is_started_again_when_it_dies(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        old = up.pids()["envoy"]
        os.kill(old, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: up.pids().get("envoy", old) != old, 10, up.explain)
        statuses = {answer.status for answer in await post(up.port, [{"x-unit-id": "u"}])}
        while statuses == {503}:
            statuses = {answer.status for answer in await post(up.port, [{"x-unit-id": "u"}])}
        assert statuses == {200}
        assert is_alive(up.pid("boosted"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains_and_leaves_nothing_running(manifest: ManifestFile, number: signal.Signals) -> None:
    up = Up(manifest)
    with running(up):
        pids = up.pids()
        asking = [post(up.port, [{"x-unit-id": f"u{i}"}], body=b'{"sleep_s": 0.5}') for i in range(10)]
        tasks = [asyncio.ensure_future(each) for each in asking]
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(up.stop, number) == 0
        assert [answer.status for task in tasks for answer in await task] == [200] * 10
    assert not any(map(is_alive, pids.values()))
    assert up.condition("Ready", "reason") == "Stopped"
    assert up.pids() == {}


def test_after_kill_9_a_restart_ends_what_is_left_and_goes_on(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as first:
        manifest.weigh(boosted=20)
        wait_until(lambda: first.variant("boosted")["weight"] == 20, 5, first.explain)
        key = (first.folder / "serving/route-keys.json").read_bytes()
        pids = first.pids()
        socket_folder = Path((first.folder / "envoy/admin-socket").read_text())
        assert socket_folder.exists()
        os.kill(first.pid("boosted"), signal.SIGSTOP)  # so that it cannot hear that its parent has died
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        others = [pid for what, pid in pids.items() if what != first.variant("boosted")["revision"]]
        wait_until(lambda: not any(map(is_alive, others)), 3)  # they end with their parent
        again = Up(manifest)
        with running(again):
            assert not any(map(is_alive, pids.values()))
            assert not socket_folder.exists()
            assert again.status()["rollout"]["phase"] == 1
            assert (again.folder / "serving/route-keys.json").read_bytes() == key
            [answer] = asyncio.run(post(again.port, [{"x-unit-id": "u"}]))
            assert answer.status == 200


def test_a_process_that_only_has_the_recorded_id_is_left_alone(manifest: ManifestFile) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        up = Up(manifest)
        up.folder.mkdir(parents=True)
        record = {"processes": [{"what": "boosted-1", "pid": bystander.pid, "started": "1"}]}
        (up.folder / "state.json").write_text(json.dumps(record))
        with running(up):
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_second_up_on_the_same_state_is_refused(manifest: ManifestFile) -> None:
    with running(Up(manifest)) as up:
        second = Up(manifest)
        second.log = manifest.path.with_name("second.log")
        line = fails(second, 1)
        assert line.startswith("error: ")
        assert f"another `fairlead up` (process {up.process.pid if up.process else 0})" in line
        assert up.condition("Ready") == "True"


def test_a_taken_port_is_refused_before_anything_starts(manifest: ManifestFile) -> None:
    up = Up(manifest)
    with closing(socket.create_server(("127.0.0.1", up.port))):
        assert f"--port: {up.port} is in use" in fails(up, 1)
    assert not (up.folder / "logs").exists()


def edit_uri(manifest: ManifestFile) -> None:
    manifest.spec["variants"][1]["model"]["uri"] = "gone.onnx"


def edit_store_path(manifest: ManifestFile) -> None:
    manifest.spec["featureStore"]["path"] = "gone"


def edit_digest(manifest: ManifestFile) -> None:
    manifest.spec["variants"][1]["model"]["digest"] = f"sha256:{'0' * 64}"


def edit_model(manifest: ManifestFile) -> None:
    manifest.spec["variants"][1]["model"] = model(manifest.path.parent, "boosted", b"crash")


def edit_weight(manifest: ManifestFile) -> None:
    manifest.spec["rollout"]["weights"] = {"boosted": -1}


def edit_store(manifest: ManifestFile) -> None:
    manifest.spec["featureStore"] = {"configMapRef": {"name": "feast"}}


def edit_release(manifest: ManifestFile) -> None:
    manifest.spec["serving"] = {"release": "99.0.0"}


def edit_paused(manifest: ManifestFile) -> None:
    manifest.spec["paused"] = True


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (edit_digest, 2, "modeldeployment.yaml:19: spec.variants[1].model.digest: boosted.onnx is sha256:"),
        (edit_uri, 2, "modeldeployment.yaml:18: spec.variants[1].model.uri: gone.onnx is not an existing file"),
        (edit_store_path, 2, "modeldeployment.yaml:8: spec.featureStore.path: gone does not exist"),
        (edit_model, 1, "variant boosted: exit code 70"),
        (edit_weight, 2, "spec.rollout.weights.boosted: input should be greater than or equal to 0"),
        (edit_store, 2, "spec.featureStore.configMapRef: is for clusters"),
        (edit_release, 2, "spec.serving.release: 99.0.0 is not installed"),
        (edit_paused, 2, "spec.paused: is true and nothing is in force"),
    ],
)
def test_what_cannot_come_up_says_why_and_leaves_nothing_running(
    manifest: ManifestFile, edit: Any, code: int, says: str
) -> None:
    edit(manifest)
    manifest.write()
    up = Up(manifest)
    line = fails(up, code)
    assert line.startswith("error: ")
    assert says in line
    assert not (up.folder / "state.json").exists() or up.pids() == {}


def test_the_replayed_time_is_shared_and_shown(manifest: ManifestFile) -> None:
    up = Up(manifest, "--clock", "replay")
    up.state.mkdir()
    clock = ReplayClockWriter(up.state / "clock", 1_383_264_000_000_000)
    with running(up):
        assert up.status()["simulatedTime"] == "2013-11-01T00:00:00+00:00"
        clock.set_us(1_383_264_000_000_000 + 3_600_000_000)
        wait_until(lambda: up.status()["simulatedTime"] == "2013-11-01T01:00:00+00:00", 5, up.explain)
        command = Path(f"/proc/{up.pid('boosted')}/cmdline").read_text()
        assert f"--clock\0replay:{up.state / 'clock'}" in command


def test_the_package_named_operator_does_not_hide_the_standard_module() -> None:
    root = Path(__file__).parents[2]
    assert not (root / "operator/__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import operator; operator.add"], cwd=root, check=True)
