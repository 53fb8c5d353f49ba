"""Units land where the assignment law says, over REST and gRPC, at every step of a ramp: a real istiod and Envoy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fairlead import Layout, assign
from support import figures
from support.cluster_deployments import Deployed
from support.cluster_scene import CONTROL, FIRST, NAME, SECOND, Scene
from support.gateway_asks import units_over_grpc, units_over_rest

UNITS = [f"unit-{number}" for number in range(10_000)]
ASKS = {"REST": units_over_rest, "gRPC": units_over_grpc}
HOLD = "4s"
"""Long enough to pause a step in; no time passes while it is paused."""


def test_one_treatment_ramps_to_everything_and_nobody_leaves_it(scene: Scene) -> None:
    rollout = _ramp({FIRST: 10}, {FIRST: 50})
    deployed = scene.deploy(second="Shadow", rollout=rollout, experiment={"id": "one"})
    salt = f"{deployed.namespace}/{NAME}/one"
    ten = _landed_at(deployed, salt, {FIRST: 10})
    fifty = _landed_at(deployed, salt, {FIRST: 50})
    assert _leavers(ten, fifty) == set()
    deployed.request(f"promote {FIRST}")
    deployed.wait_weights(**{FIRST: 100})
    _assert_landed(deployed, [FIRST] * len(UNITS))
    assert deployed.wait_condition("Progressing", "False")["reason"] == "SpecBehind"


def test_two_treatments_ramp_in_slots_of_their_own_until_one_has_everything(scene: Scene) -> None:
    weights: list[dict[str, int]] = [{FIRST: 10, SECOND: 10}, {FIRST: 25, SECOND: 25}, {FIRST: 50, SECOND: 50}]
    deployed = scene.deploy(rollout=_ramp(*weights), experiment={"id": "two"})
    salt = f"{deployed.namespace}/{NAME}/two"
    landed = [_landed_at(deployed, salt, step) for step in weights]
    assert _leavers(landed[0], landed[1]) | _leavers(landed[1], landed[2]) == set()
    deployed.request(f"promote {SECOND}")
    deployed.wait_weights(**{SECOND: 100})
    _assert_landed(deployed, [SECOND] * len(UNITS))


def test_the_command_assign_says_who_lands_where(scene: Scene, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "rollout": {"strategy": "Manual", "weights": {FIRST: 20, SECOND: 5}},
        "experiment": {"id": "told"},
    }
    deployed = scene.deploy(**given)
    deployed.wait_weights(**{FIRST: 20, SECOND: 5})
    file = tmp_path / "deployment.yaml"
    file.write_text(yaml.safe_dump(scene.manifest(**given)))
    command = [str(Path(sys.executable).with_name("fairlead")), "assign", "--file", str(file), "--output", "json"]
    told = subprocess.run(command, input="\n".join(UNITS), capture_output=True, text=True, check=True, timeout=60)
    _assert_landed(deployed, [one["arm"] for one in json.loads(told.stdout)["assignments"]])


def _ramp(*weights: Mapping[str, int]) -> dict[str, Any]:
    """Return an experiment of these steps, the last of which lasts until somebody decides."""
    *held, last = weights
    return {"strategy": "Experiment", "steps": [*({"weights": w, "hold": HOLD} for w in held), {"weights": last}]}


def _landed_at(deployed: Deployed, salt: str, weights: Mapping[str, int]) -> list[str]:
    """Wait for a step, hold it by a pause, and return where every unit landed; where the law says, or it fails."""
    deployed.wait_weights(**weights)
    deployed.patch(paused=True)
    layout = Layout.of(CONTROL, {arm: weight * 100 for arm, weight in weights.items()})
    expected = [assign(unit, salt, layout) for unit in UNITS]
    _assert_landed(deployed, expected)
    deployed.patch(paused=False)
    return expected


def _assert_landed(deployed: Deployed, expected: Sequence[str]) -> None:
    deployed.wait(lambda: units_over_rest(deployed.address, deployed.host, UNITS[:300]) == expected[:300], 10)
    for protocol, asked in ASKS.items():
        start_s = time.monotonic()
        landed = asked(deployed.address, deployed.host, UNITS)
        took_s = time.monotonic() - start_s
        wrong = {unit: (seen, law) for unit, seen, law in zip(UNITS, landed, expected, strict=True) if seen != law}
        assert not wrong, f"{len(wrong)} of {len(UNITS)} over {protocol}: {dict(list(wrong.items())[:5])}"
        figures.note(f"split-{protocol}", units=len(UNITS), wrong=0, seconds=took_s)


def _leavers(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """Return the units that were in a treatment before and are not afterwards."""
    return {unit for unit, old, new in zip(UNITS, before, after, strict=True) if old not in {CONTROL, new}}
