"""``fairlead up`` with an experiment that is judged: its embedded ledger, what servers are told, and what survives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead.assignment import Layout, assign
from fairlead.clock import ReplayClockWriter
from fairlead.feedback.keys import KeyRing
from fairlead.feedback.serving import Feedback
from fairlead_operator.platforms.local.state import State
from support.envoy import MODEL, ManifestFile, Up, is_alive, post, running, wait_until

SALT = "flights/arrival-delay/e1"
UNIT = {"unit": {"header": "x-unit-id"}}
_MOST_ROUNDS = 200
"""Of 50 requests each; some twenty are enough."""
_PACE_S = 0.1
"""Between them."""
UNITS = [f"N{number}" for number in range(60)]
JUDGED = {
    "id": "e1",
    "objective": {"metric": "brier", "minimumEffect": "5%"},
    "guardrails": [{"metric": "error", "margin": "1pp"}],
    "outcomeWindow": "1h",
}


@pytest.fixture
def manifest(tmp_path: Path) -> ManifestFile:
    steps = [{"weights": {"boosted": 50}, "hold": "1h"}, {"weights": {"boosted": 50}}]
    rollout = {"strategy": "Experiment", "steps": steps}
    return ManifestFile.make(tmp_path, routing=UNIT, rollout=rollout, experiment=JUDGED)


def told(up: Up) -> Feedback:
    """Return what servers are told."""
    return Feedback.loaded((State(up.state, MODEL).serving / "feedback.json").read_bytes())


def ask(up: Up, path: str) -> Any:
    answer = httpx.get(f"{told(up).ledger}{path}", trust_env=False)
    assert answer.is_success, answer.text
    return answer.json()


def wait_observed(up: Up) -> None:
    wait_until(lambda: up.status().get("experiment", {}).get("observing"), 30, up.explain)


def test_the_ledger_is_up_with_keys_of_its_own_before_anybody_is_exposed(manifest: ManifestFile) -> None:
    up = Up(manifest)
    with running(up):
        wait_observed(up)
        state, feedback = State(up.state, MODEL), told(up)
        root = KeyRing.loaded(state.ledger_keys_file.read_bytes())
        assert feedback.keys == root.of("flights/arrival-delay")
        for secret in (state.ledger_keys_file, state.serving / "feedback.json"):
            assert secret.stat().st_mode & 0o777 == 0o600
        kept = ask(up, f"/v1/experiments/{SALT}")
        assert kept["digest"] == up.status()["experiment"]["design"]
        assert up.status()["experiment"]["page"] == f"{feedback.ledger}/experiments/{SALT}"
        assert feedback.ledger in up.log.read_text()
        pid = up.pids()["ledger"]
    assert not is_alive(pid)
    assert up.pids() == {}


def test_a_killed_ledger_comes_back_where_it_was_and_knows_what_it_knew(manifest: ManifestFile) -> None:
    up = Up(manifest)
    with running(up):
        wait_observed(up)
        before, pid = ask(up, f"/v1/experiments/{SALT}"), up.pids()["ledger"]
        address = told(up).ledger
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: up.pids().get("ledger", pid) != pid and _answers(up), 30, up.explain)
        assert (told(up).ledger, ask(up, f"/v1/experiments/{SALT}")) == (address, before)
        assert up.status()["experiment"]["observing"]
    with running(up):
        wait_until(lambda: _answers(up), 30, up.explain)
        assert ask(up, f"/v1/experiments/{SALT}") == before


def taking(port: int, pid: int) -> socket.socket:
    """Kill who listens on a port of 127.0.0.1, and listen there instead."""
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    os.kill(pid, signal.SIGKILL)

    def is_taken() -> bool:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

    wait_until(is_taken, 10, lambda: f"{port} does not get free")
    other.listen()
    return other


def test_a_ledger_whose_port_was_taken_listens_elsewhere_and_servers_are_told(manifest: ManifestFile) -> None:
    up = Up(manifest)
    with running(up):
        wait_observed(up)
        before, pid, address = ask(up, f"/v1/experiments/{SALT}"), up.pids()["ledger"], told(up).ledger
        with closing(taking(int(address.rpartition(":")[2]), pid)):
            wait_until(lambda: told(up).ledger != address and _answers(up), 60, up.explain)
            assert ask(up, f"/v1/experiments/{SALT}") == before


def test_a_killed_run_leaves_no_ledger_beside_the_next(manifest: ManifestFile) -> None:
    up = Up(manifest)
    try:
        up.start().wait_ready()
        pid = up.pids()["ledger"]
        up.stop(signal.SIGKILL)
        up.start().wait_ready()
        wait_until(lambda: not is_alive(pid), 10, up.explain)
        wait_until(lambda: "ledger" in up.pids() and _answers(up), 30, up.explain)
    finally:
        up.stop()


def test_what_was_never_to_be_judged_needs_no_ledger(tmp_path: Path) -> None:
    up = Up(ManifestFile.make(tmp_path))
    with running(up):
        assert "ledger" not in up.pids()
        assert not (State(up.state, MODEL).serving / "feedback.json").exists()


def test_an_address_of_a_ledger_is_for_clusters(manifest: ManifestFile) -> None:
    manifest.spec["feedback"] = {"ledger": {"url": "http://ledger"}}
    manifest.write()
    up = Up(manifest)
    up.start()
    assert up.process is not None
    assert up.process.wait(30) == 2
    assert "spec.feedback.ledger.url: is for clusters; remove it" in up.log.read_text()


def test_a_replay_s_clock_tells_how_long_a_step_was_held(manifest: ManifestFile) -> None:
    begin_us, hour_us = 1_383_264_000_000_000, 3_600_000_000
    up = Up(manifest, "--clock", "replay")
    up.state.mkdir()
    clock = ReplayClockWriter(up.state / "clock", begin_us)
    with running(up):
        wait_observed(up)
        wait_until(lambda: "stepStartedAt" in up.status()["rollout"], 20, up.explain)
        assert up.status()["rollout"]["stepStartedAt"].startswith("2013-11-01T00:00:00")
        clock.set_us(begin_us + hour_us - 1)
        wait_until(lambda: up.status()["simulatedTime"].startswith("2013-11-01T00:59:59"), 20, up.explain)
        assert up.status()["rollout"]["step"] == 0
        clock.set_us(begin_us + hour_us)
        wait_until(lambda: up.status()["rollout"]["step"] == 1, 20, up.explain)
        kept = ask(up, f"/v1/experiments/{SALT}")
        assert kept["created_us"] == begin_us, "the ledger goes by the same clock"


async def test_a_request_that_a_dead_treatment_did_not_answer_is_an_error_of_it(manifest: ManifestFile) -> None:
    up = Up(manifest)
    with running(up):
        await asyncio.to_thread(wait_observed, up)
        layout = Layout.of("logistic", {"boosted": 5000})
        doomed = [unit for unit in UNITS if assign(unit, SALT, layout) == "boosted"]
        fatal = json.dumps({"die": True}).encode()
        [lost] = await post(up.port, [{"x-unit-id": doomed[0]}], body=fatal)
        assert lost.status == 503
        await asyncio.to_thread(wait_until, lambda: _lost(up) == {"boosted": (1, 1)}, 30, up.explain)


async def test_a_treatment_that_drops_every_fiftieth_request_rolls_back(manifest: ManifestFile) -> None:
    """No server counts them, and its health is good throughout: the gateway's log is all that knows of them."""
    up, layout = Up(manifest), Layout.of("logistic", {"boosted": 5000})
    drop = json.dumps({"drop": True}).encode()
    with running(up):
        await asyncio.to_thread(wait_observed, up)
        dropped = 0
        while not _is_decided(up):
            assert dropped < _MOST_ROUNDS, up.explain()
            units = [f"N{dropped}-{one}" for one in range(50)]
            last = next(unit for unit in units if assign(unit, SALT, layout) == "boosted")
            sound = [unit for unit in units if unit != last]
            answers = await post(up.port, [{"x-unit-id": unit} for unit in sound])
            if {answer.variant for answer in answers} == {"logistic"}:
                break  # rolled back, and not told yet
            assert {answer.status for answer in answers} == {200}
            _report(up, dropped, {unit: answer.variant for unit, answer in zip(sound, answers, strict=True)})
            [lost] = await post(up.port, [{"x-unit-id": last}], body=drop)
            dropped += lost.status == 503
            await asyncio.sleep(_PACE_S)
        await asyncio.to_thread(wait_until, lambda: up.variant("boosted")["weight"] == 0, 60, up.explain)
        decision = up.status()["rollout"]["decision"]
        assert (decision["verdict"], decision["reason"]) == ("Rollback", "GuardrailBreached")
        seen = await asyncio.to_thread(_lost, up)
        assert seen["logistic"][1] == 0
        assert 0 < seen["boosted"][1] <= dropped


def _is_decided(up: Up) -> bool:
    return "decision" in up.status()["rollout"]


def _report(up: Up, sequence: int, arms: Mapping[str, str]) -> None:
    """Tell the ledger of answered requests, as model servers do; those of this test tell it nothing."""
    feedback, now_us = told(up), time.time_ns() // 1000
    entries = [
        {
            "salt": SALT,
            "phase": 0,
            "variant": variant,
            "revision": up.variant(variant)["revision"],
            "unit": feedback.keys.unit(unit.encode(), SALT).hex(),
        }
        for unit, variant in arms.items()
    ]
    report = {
        "server": "servers-of-the-test",
        "sequence": sequence,
        "exposures": [{**entry, "at_us": now_us} for entry in entries],
        "counts": [{**entry, "requests": 1} for entry in entries],
    }
    answer = httpx.post(f"{feedback.ledger}/v1/exposures", json=report, timeout=30, trust_env=False)
    assert answer.is_success, answer.text


def _lost(up: Up) -> dict[str, tuple[float, float]]:
    """Return requests and errors that the ledger knows of, by variant."""
    phases = ask(up, f"/v1/experiments/{SALT}/evidence")["phases"]
    arms = phases[0]["arms"] if phases else {}
    errors = {variant: arm["metrics"].get("error") or {} for variant, arm in arms.items()}
    return {
        variant: (arm["requests"], float(errors[variant].get("x", 0)))
        for variant, arm in arms.items()
        if arm["requests"]
    }


def _answers(up: Up) -> bool:
    try:
        return httpx.get(f"{told(up).ledger}/readyz", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def test_what_servers_tell_of_their_models_is_held_against_the_experiment(manifest: ManifestFile) -> None:
    up = Up(manifest)
    said = {"outputs": [{"name": "delay", "parameters": {"meaning": "value"}}]}
    (up.manifest.path.parent / "boosted.told.json").write_text(json.dumps(said))
    try:
        up.start()
        wait_until(lambda: up.condition("ExperimentHealthy", "reason") == "MetricUnfit", 30, up.explain)
        message = up.condition("ExperimentHealthy", "message") or ""
        assert message.startswith("boosted answers a number that is no probability, which brier does not judge")
        assert up.condition("Ready") == "False"
    finally:
        up.stop()


def test_an_experiment_whose_block_is_removed_has_ended_for_the_ledger_too(tmp_path: Path) -> None:
    observed = ManifestFile.make(tmp_path, routing=UNIT, experiment=JUDGED)
    up = Up(observed)
    with running(up):
        wait_observed(up)
        ledger = told(up).ledger
        observed.spec.pop("experiment")
        observed.write()

        def state() -> Any:
            return httpx.get(f"{ledger}/v1/experiments/{SALT}", trust_env=False).json()

        wait_until(lambda: state()["state"] == "Ended", 30, up.explain)
        assert state()["last"]["action"] == "End"
        assert "ended by hand" in httpx.get(f"{ledger}/experiments/{SALT}", trust_env=False).text
