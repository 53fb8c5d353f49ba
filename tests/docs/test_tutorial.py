"""The tutorial, walked as a reader would: every command of the page, in order, with `fairlead up` left running."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flights.training import CLUSTER_MANIFEST, MANIFEST
from support.console import Command, commands_of
from support.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"

pytestmark = [pytest.mark.flights, pytest.mark.timeout(600)]


@pytest.fixture
def untouched_manifest() -> Iterator[None]:
    """Put the example's manifests back as they were."""
    before = {manifest: manifest.read_bytes() for manifest in (MANIFEST, CLUSTER_MANIFEST)}
    yield
    for manifest, content in before.items():
        manifest.write_bytes(content)


@contextmanager
def running(command: str) -> Iterator[subprocess.Popen[str]]:
    """Keep a command in a terminal of its own; interrupt it afterwards."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def wait_until_said(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    pytest.fail(f"{text!r} was never said: {''.join(said)}")


def run(command: Command) -> str:
    done = subprocess.run(
        ["bash", "-euc", command.text],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | {"FAIRLEAD_SYSTEM": "no"},
    )
    assert done.returncode == 0, f"$ {command.text}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.usefixtures("untouched_manifest")
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    port = str(free_port())
    state = f"--state {tmp_path / 'state'}"
    commands = commands_of(PAGE.read_text().replace("8080", port))
    up = next(index for index, command in enumerate(commands) if command.runs_on)
    for command in commands[:up]:
        run(command)
    said: dict[str, str] = {}
    with running(f"{commands[up].text} {state} --port {port}") as process:
        wait_until_said(process, "Ctrl-C stops everything")
        for command in commands[up + 1 :]:
            text = command.text.replace("fairlead status", f"fairlead status {state}")
            text = text.replace("fairlead predict", f"fairlead predict {state}")
            text = text.replace("fairlead promote", f"fairlead promote {state}")
            text = text.replace("fairlead abort", f"fairlead abort {state}")
            said[command.text] = run(Command(text, runs_on=False, output=command.output))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    answers = list(said.values())
    assert "probability_late" in answers[0]
    assert "variant" in answers[1]
    assert [line.split("\t")[0] for line in answers[2].splitlines()] == ["N14228", "N24211", "N619AA"]
    assert "dest" in answers[4]
    assert "boosted takes everything" in answers[5]
    assert "decided: Promote boosted (Requested)" in answers[6]
    assert "the promotion is undone" in answers[7]
