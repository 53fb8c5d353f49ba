"""Commands that decide about a rollout: what they ask for, what they say, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fairlead.cli.errors import CommandError
from fairlead.cli.main import application
from fairlead_operator.api.manifest import parse, read
from fairlead_operator.core.desired import Desired, desired_from
from fairlead_operator.core.observed import Health
from fairlead_operator.core.record import Record, State
from fairlead_operator.core.rollout import Analysis, Verdict
from fairlead_operator.errors import ManifestError
from fairlead_operator.platforms.local import state as local
from fairlead_operator.platforms.local.succession import succeeded
from support.world import CANARY, RAMP, World, deployment, desired, steps

UNIT = {"unit": {"header": "x-unit-id"}}
NAME = "arrival-delay"
RUN = "flights/arrival-delay/e1"
EXPERIMENT: dict[str, Any] = {"rollout": {"strategy": "Experiment", "steps": RAMP}, "routing": UNIT}
ALONE: dict[str, Any] = {"roles": {"logistic": "Control"}, "experiment": None, "weights": {}}
A_CANARY: dict[str, Any] = {**ALONE, "rollout": {"strategy": "Canary", "steps": CANARY}}


def remember(folder: Path, record: Record, **spec: Any) -> local.State:
    """Leave a state folder behind, as ``fairlead up`` would have."""
    state = local.State(folder / ".fairlead", NAME)
    kept = local.StateRecord(generation=1, manifest=deployment(**spec).model_dump_json())
    state.write(kept.with_rollout(record))
    return state


def call(folder: Path, *arguments: str) -> str:
    """Run a command and return what it says.

    Raises:
        CommandError: It was refused.
    """
    result = CliRunner().invoke(application(), [*arguments, "--state", str(folder / ".fairlead")])
    if isinstance(result.exception, CommandError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def at(state: State, **spec: Any) -> Record:
    """Return the record of a rollout that has come to a state."""
    wanted = desired(**{**EXPERIMENT, **spec})
    world = World()
    for _ in range(60):
        world.reconcile(wanted)
        if world.state is state:
            return world.record
        world.become(Health.READY, *(["logistic"] if state is State.DEPLOYING else []))
        world.wait(60)
        if world.state is State.DECIDING:
            world.analysis = Analysis(Verdict.PASS, "ObjectiveMet", "boosted")
    raise AssertionError(f"did not come to {state}")


def test_a_pause_is_asked_for_once_and_taken_back(tmp_path: Path) -> None:
    state = remember(tmp_path, Record("0.1.0"))
    assert "nothing moves until `fairlead resume arrival-delay`" in call(tmp_path, "pause", NAME)
    assert state.annotations() == {"serving.fairlead.dev/paused": "true"}
    with pytest.raises(CommandError, match="is paused already"):
        call(tmp_path, "pause", NAME)
    assert "goes on" in call(tmp_path, "resume", NAME)
    assert state.annotations() == {}
    with pytest.raises(CommandError, match="is not paused"):
        call(tmp_path, "resume", NAME)


def test_a_pause_in_the_manifest_is_taken_back_there(tmp_path: Path) -> None:
    remember(tmp_path, Record("0.1.0")).write_status({"spec": {"paused": True}})
    with pytest.raises(CommandError, match=r"spec\.paused: true; change it there"):
        call(tmp_path, "resume", NAME)


@pytest.mark.parametrize("arguments", [["promote", NAME], ["promote", NAME, "boosted"]])
@pytest.mark.parametrize("state", [State.RAMPING, State.DECIDING])
def test_a_promotion_names_variant_and_run(tmp_path: Path, arguments: list[str], state: State) -> None:
    kept = remember(tmp_path, at(state), **EXPERIMENT)
    said = call(tmp_path, *arguments)
    assert "arrival-delay: boosted takes everything; this decides experiment e1" in said
    assert "`fairlead up` is not running" in said
    assert kept.annotations() == {"serving.fairlead.dev/request": f"promote boosted {RUN}"}


@pytest.mark.parametrize("state", [State.PENDING, State.DEPLOYING, State.RAMPING, State.DECIDING, State.PROMOTING])
def test_an_abort_says_who_takes_everything_back(tmp_path: Path, state: State) -> None:
    kept = remember(tmp_path, at(state), **EXPERIMENT)
    assert "logistic takes everything back" in call(tmp_path, "abort", NAME)
    assert kept.annotations() == {"serving.fairlead.dev/request": f"abort {RUN}"}


def long_ago(record: Record) -> Record:
    """Return the record as if its past were further away."""
    return record.later(-100 * 365 * 86400.0)


def now(record: Record) -> Record:
    """Return the record as if everything had just happened."""
    return record.later(100 * 365 * 86400.0)


@pytest.mark.parametrize(
    ("arguments", "spec", "record", "says"),
    [
        (["promote", NAME], {}, Record("0.1.0"), r"is Manual, so nothing is promoted; change spec\.rollout\.weights"),
        (["abort", NAME], ALONE, Record("0.1.0"), r"is Manual, so nothing is aborted; change spec\.variants"),
        (["promote", NAME], A_CANARY, Record("0.1.0"), "no rollout is under way; it begins with a change of the spec"),
        (["promote", NAME, "logistic"], EXPERIMENT, at(State.RAMPING), "is no candidate of this rollout"),
        (["promote", NAME], EXPERIMENT, at(State.DEPLOYING), "the rollout is Deploying; a candidate with weight"),
        (["promote", NAME], EXPERIMENT, at(State.STABLE), r"boosted was promoted already \(ObjectiveMet\)"),
        (["abort", NAME], EXPERIMENT, long_ago(at(State.STABLE)), "what it replaced is not kept any more"),
        (["pause", "other"], {}, Record("0.1.0"), "no deployment other here"),
        (["promote"], {}, Record("0.1.0"), "NAME: say which deployment"),
    ],
)
def test_what_cannot_be_decided_now_is_refused_with_the_reason(
    tmp_path: Path, arguments: list[str], spec: dict[str, Any], record: Record, says: str
) -> None:
    kept = remember(tmp_path, record, **spec)
    with pytest.raises(CommandError, match=says):
        call(tmp_path, *arguments)
    assert kept.annotations() == {}


def test_a_promotion_may_be_undone_while_what_it_replaced_is_kept(tmp_path: Path) -> None:
    remember(tmp_path, now(at(State.STABLE)), **EXPERIMENT)
    assert "the promotion is undone: arrival-delay-logistic-" in call(tmp_path, "abort", NAME)


def test_several_candidates_are_told_apart(tmp_path: Path) -> None:
    roles = {"logistic": "Control", "a": "Treatment", "b": "Treatment"}
    spec = {**EXPERIMENT, "roles": roles, "rollout": {"strategy": "Experiment", "steps": steps(({"a": 1}, None))}}
    remember(tmp_path, at(State.RAMPING, **spec), **spec)
    with pytest.raises(CommandError, match="say which variant is to be promoted: a, b"):
        call(tmp_path, "promote", NAME)


BLOCK = """\
# Whose models these are.
apiVersion: serving.fairlead.dev/v1alpha1
kind: ModelDeployment
metadata: {name: arrival-delay, namespace: flights}
spec:
  featureStore: {path: 'store'}   # the local one
  variants:
  - name: logistic
    role: Control   # since spring
    model: {uri: a.onnx, digest: "sha256:AAAA"}
  # the new one
  - {name: boosted, role: Treatment, model: {uri: b.onnx, digest: "sha256:BBBB"}}
  rollout:
    strategy: Experiment
    # carefully
    steps:
    - {weights: {boosted: 10}, hold: 30m}   # half an hour
    - weights:
        boosted: 50
    # kept a while
    keepPrevious: 2h
  # what is compared
  experiment:
    id: e1   # the first
  # who is asked
  routing:
    unit: {header: x-unit-id}
""".replace("AAAA", "a" * 64).replace("BBBB", "b" * 64)
AFTER = """\
# Whose models these are.
apiVersion: serving.fairlead.dev/v1alpha1
kind: ModelDeployment
metadata: {name: arrival-delay, namespace: flights}
spec:
  featureStore: {path: 'store'}   # the local one
  variants:
  - name: logistic
    role: Treatment   # since spring
    model: {uri: a.onnx, digest: "sha256:AAAA"}
  # the new one
  - {name: boosted, role: Control, model: {uri: b.onnx, digest: "sha256:BBBB"}}
  rollout:
    strategy: Manual
    # carefully
    # kept a while
    keepPrevious: 2h
  # what is compared
  # who is asked
  routing:
    unit: {header: x-unit-id}
""".replace("AAAA", "a" * 64).replace("BBBB", "b" * 64)


def written(folder: Path, text: str) -> Path:
    file = folder / "modeldeployment.yaml"
    file.write_text(text)
    return file


def wanted(content: bytes) -> Desired:
    return desired_from(parse(content, "m.yaml"), "0.1.0")


def test_the_winner_becomes_control_in_the_manifest_and_nothing_else_is_touched(tmp_path: Path) -> None:
    remember(tmp_path, at(State.STABLE), **EXPERIMENT)
    file = written(tmp_path, BLOCK)
    assert "boosted is the Control now; look at the change and commit it" in call(tmp_path, "promote", "-f", str(file))
    assert file.read_text() == AFTER
    before, after = wanted(BLOCK.encode()), wanted(AFTER.encode())
    assert (after.control, after.treatments, after.experiment_id) == ("boosted", ("logistic",), None)
    assert {revision.name for revision in before.revisions.values()} == {
        revision.name for revision in after.revisions.values()
    }
    with pytest.raises(CommandError, match="boosted is the Control already"):
        call(tmp_path, "promote", "-f", str(file), "boosted")


def test_a_manifest_in_flow_style_and_one_without_a_strategy_are_edited_too(tmp_path: Path) -> None:
    digest = f'"sha256:{"a" * 64}"'
    head = "apiVersion: serving.fairlead.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: m}\n"
    variants = ", ".join(
        f"{{name: {name}, role: {role}, model: {{uri: {name}.onnx, digest: {digest}}}}}"
        for name, role in (("a", "Control"), ("b", "Treatment"))
    )
    for rollout in (
        "rollout: {strategy: Experiment, steps: [{weights: {b: 50}}], keepPrevious: 2h}, experiment: {id: e1}",
        "rollout: {keepPrevious: 2h, strategy: Experiment, steps: [{weights: {b: 50}}]}, experiment: {id: e1}",
        "experiment: {id: e1}, rollout: {weights: {b: 50}}",
        "rollout: {weights: {b: 50}, keepPrevious: 2h}",
        "rollout: {strategy: Manual, weights: {b: 50}}",
    ):
        spec = f"{{featureStore: {{path: s}}, routing: {{unit: {{header: x}}}}, variants: [{variants}], {rollout}}}"
        file = written(tmp_path, f"{head}spec: {spec}\n")
        after = wanted(succeeded(read(file), "b"))
        assert (after.control, after.experiment_id, after.strategy.name) == ("b", None, "Manual")
        assert dict(after.strategy.steps[0].weights_bp) == {"a": 0}


def test_who_has_won_must_be_known_or_said(tmp_path: Path) -> None:
    file = written(tmp_path, BLOCK)
    with pytest.raises(CommandError, match=r"no promotion of arrival-delay is known .*promote -f .* VARIANT"):
        call(tmp_path, "promote", "-f", str(file))
    call(tmp_path, "promote", "-f", str(file), NAME, "boosted")
    assert file.read_text() == AFTER
    with pytest.raises(ManifestError, match=r"forest is no Treatment \(Treatments: logistic\)"):
        succeeded(read(file), "forest")
