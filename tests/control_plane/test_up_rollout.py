"""Rollouts by steps under ``fairlead up``, with real processes and a real Envoy, decided by command."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from fairlead import bucket_of
from fairlead_operator.api.manifest import read
from support.console import commands_of
from support.envoy import MODEL, Answer, ManifestFile, Up, is_alive, model, post, running, wait_until

UNITS = [f"N{number}" for number in range(300)]
PAGE = Path(__file__).parents[2] / "docs/concepts/rollout.md"
UNIT = {"unit": {"header": "x-unit-id"}}


def fairlead(up: Up, *arguments: str) -> str:
    """Run a command beside ``up`` and return what it prints."""
    command = [sys.executable, "-m", "fairlead.cli.main", *arguments, "--state", str(up.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answered(up: Up) -> dict[str, set[str]]:
    """Ask for every unit and return which variant answered whom."""
    answers = asyncio.run(post(up.port, [{"x-unit-id": unit} for unit in UNITS]))
    assert {answer.status for answer in answers} == {200}
    by_variant: dict[str, set[str]] = {}
    for unit, answer in zip(UNITS, answers, strict=True):
        by_variant.setdefault(answer.variant, set()).add(unit)
    return by_variant


def wait_for(up: Up, met: Callable[[], bool], timeout_s: float = 20) -> None:
    wait_until(met, timeout_s, up.explain)


def state_of(up: Up) -> str:
    return str(up.status().get("rollout", {}).get("state"))


def test_an_experiment_ramps_is_promoted_and_aborted_by_command(tmp_path: Path) -> None:
    steps = [{"weights": {"boosted": 10}, "hold": "2s"}, {"weights": {"boosted": 50}}]
    manifest = ManifestFile.make(
        tmp_path, routing=UNIT, rollout={"strategy": "Experiment", "steps": steps}, experiment={"id": "e1"}
    )
    up = Up(manifest)
    with running(up):
        wait_for(up, lambda: up.variant("boosted")["weight"] == 10)
        assert "paused" in fairlead(up, "pause", MODEL)
        wait_for(up, lambda: up.condition("Progressing", "reason") == "Paused")
        first = answered(up).get("boosted", set())
        assert first == {unit for unit in UNITS if bucket_of(unit, "flights/arrival-delay/e1") < 1000}
        assert "goes on" in fairlead(up, "resume", MODEL)
        wait_for(up, lambda: state_of(up) == "Deciding")
        second = answered(up)["boosted"]
        assert first < second == {unit for unit in UNITS if bucket_of(unit, "flights/arrival-delay/e1") < 5000}
        assert "step 2 of 2" in fairlead(up, "status")

        pids = up.pids()
        assert "boosted takes everything" in fairlead(up, "promote", MODEL, "boosted")
        wait_for(up, lambda: up.variant("boosted")["weight"] == 100 and state_of(up) == "Stable")
        assert answered(up) == {"boosted": set(UNITS)}
        assert "the promotion is undone" in fairlead(up, "abort", MODEL)
        wait_for(up, lambda: up.variant("boosted")["weight"] == 0)
        assert answered(up) == {"logistic": set(UNITS)}
        assert up.pids() == pids
        told = fairlead(up, "status")
        assert [word in told for word in ("Rollback", "Promote", "Requested")] == [True] * 3


def test_the_winner_becomes_control_in_the_file_without_a_pod_or_a_unit_that_notices(tmp_path: Path) -> None:
    manifest = ManifestFile.make(
        tmp_path, routing=UNIT, rollout={"strategy": "Experiment", "steps": [{"weights": {"boosted": 50}}]}
    )
    manifest.path.write_text(f"# whose it is\n{manifest.path.read_text()}")
    up = Up(manifest)
    with running(up):
        wait_for(up, lambda: state_of(up) == "Deciding")
        fairlead(up, "promote", MODEL)
        wait_for(up, lambda: state_of(up) == "Stable" and up.condition("Progressing", "reason") == "SpecBehind")
        pids = up.pids()
        assert "boosted is the Control now" in fairlead(up, "promote", "-f", str(manifest.path))
        wait_for(up, lambda: up.condition("Progressing", "reason") == "AsSpecified")
        assert up.variant("boosted")["role"] == "Control"
        assert answered(up) == {"boosted": set(UNITS)}
        assert up.pids() == pids
        assert manifest.path.read_text().startswith("# whose it is\n")


def test_the_commands_of_the_page_on_rollouts_work_in_their_order(tmp_path: Path) -> None:
    manifest = ManifestFile.make(
        tmp_path, routing=UNIT, rollout={"strategy": "Experiment", "steps": [{"weights": {"boosted": 50}}]}
    )
    commands = [command.text.split() for command in commands_of(PAGE.read_text())]
    assert [words[1] for words in commands] == ["status", "pause", "resume", "promote", "promote"]
    up = Up(manifest)
    with running(up):
        wait_for(up, lambda: state_of(up) == "Deciding")
        for index, words in enumerate(commands):
            if index == len(commands) - 1:
                wait_for(up, lambda: state_of(up) == "Stable")
            command = [sys.executable, "-m", "fairlead.cli.main", *words[1:]]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, (words, done.stderr)
    assert read(manifest.path).deployment.spec.control.name == "boosted"


@contextmanager
def asking(up: Up, answers: list[Answer]) -> Iterator[None]:
    """Keep asking from another thread's loop; ``answers`` grows."""

    async def ask(stop: asyncio.Event) -> None:
        while not stop.is_set():
            answers.extend(await post(up.port, [{"x-unit-id": unit} for unit in UNITS[:40]], body=b'{"sleep_s": 0.02}'))

    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = Thread(target=lambda: loop.run_until_complete(ask(stop)))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def test_a_canary_of_a_single_model_loses_no_request(tmp_path: Path) -> None:
    steps = [{"weights": {"logistic": 10}, "hold": "1s"}, {"weights": {"logistic": 50}, "hold": "1s"}]
    manifest = ManifestFile.make(tmp_path, routing=UNIT, rollout={"strategy": "Canary", "steps": steps})
    manifest.spec["variants"] = manifest.spec["variants"][:1]
    del manifest.spec["experiment"]
    manifest.write()
    up, answers = Up(manifest), list[Answer]()
    with running(up):
        old = up.variant("logistic")["revision"]
        old_pid = up.pids()[old]
        with asking(up, answers):
            manifest.spec["variants"][0]["model"] = model(tmp_path, "better")
            manifest.write()
            wait_for(up, lambda: state_of(up) == "Ramping")
            wait_for(up, lambda: [past["verdict"] for past in up.status()["history"]] == ["Promote"])
            wait_for(up, lambda: not is_alive(old_pid))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.echo["revision"] for answer in answers}) == 2
        assert up.variant("logistic")["serving"] not in {None, old}
