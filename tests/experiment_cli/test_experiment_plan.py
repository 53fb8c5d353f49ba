"""`fairlead experiment plan`: units and days before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.experiment.planning import Baseline, need
from fairlead_operator.api.v1alpha1.experiment import effect
from support.commands import Ran, here
from support.experiment_manifests import manifest
from support.reports import flights_design


def plan(file: Path, *words: str) -> Ran:
    return here("experiment", "plan", "-f", str(file), "--units-per-day", "400", *words)


KNOWN = ("--baseline", "0.14", "--sigma", "0.1")


@pytest.mark.parametrize("command", ["list", "show", "verify", "plan"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    assert f"Example: fairlead experiment {command}" in here("experiment", command, "--help").out


def test_it_takes_what_planning_says_of_the_same_design(tmp_path: Path) -> None:
    planned = json.loads(plan(manifest(tmp_path), *KNOWN, "--json").out)
    expected = need(flights_design(), Baseline(0.14, 0.1), units_per_day=400)
    assert (planned["units"], planned["median_units"]) == (expected.units, expected.median_units)
    assert planned["days"] == round(expected.days, 2)
    assert (planned["maximum_days"], planned["fits"]) == (None, True)


def test_units_and_days_are_said_with_what_they_mean(tmp_path: Path) -> None:
    said = plan(manifest(tmp_path, maximumDuration="60d"), *KNOWN)
    assert said.code == 0
    assert said.err == ""
    assert "to find a change of 5\N{NO-BREAK SPACE}% in brier, the smallest worth shipping" in said.out
    assert "the typical stop" in said.out
    assert "maximumDuration is 60.0 days: enough" in said.out


def test_a_maximum_duration_that_is_shorter_is_warned_of(tmp_path: Path) -> None:
    said = plan(manifest(tmp_path, maximumDuration="1d12h"), *KNOWN)
    assert said.code == 0
    assert "warning: " in said.err
    assert "spec.experiment.maximumDuration: 1.5 days is shorter than the" in said.err


def test_a_proportion_needs_its_baseline_alone(tmp_path: Path) -> None:
    clicks = {"metric": "clicks", "kind": "Proportion", "better": "Higher", "minimumEffect": "0.5pp"}
    planned = json.loads(plan(manifest(tmp_path, objective=clicks), "--baseline", "0.1", "--json").out)
    assert 50_000 < planned["units"] < 300_000


@pytest.mark.parametrize("size", ["5%", "0.1pp", "0.02", "12.5%"])
def test_sizes_mean_what_the_api_says(tmp_path: Path, size: str) -> None:
    from fairlead.cli.experiment_plan import read  # noqa: PLC0415 -- beside the others' imports it would be slow

    objective = {"metric": "error", "minimumEffect": size}
    assert read(manifest(tmp_path, objective=objective)).objective.minimum_effect == effect(size)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--baseline and --sigma: needed to plan for brier; give them, or --like"),
        (("--baseline", "0.14"), "--sigma: needed to plan for brier"),
        (("--baseline", "0", "--sigma", "0.1"), "a relative effect needs a metric that is above 0"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    refused = plan(manifest(tmp_path), *words)
    assert (refused.code, said in refused.reason) == (2, True), refused


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ({"objective": {"metric": "brier"}}, "spec.experiment.objective.minimumEffect: field required"),
        ({"objective": {"metric": "brier", "minimumEffect": "five"}}, "spec.experiment.objective.minimumEffect: "),
        ({"objective": {"metric": "clicks", "minimumEffect": "5%"}}, "clicks is not built in; say kind and better"),
        ({"maximumDuration": "soon"}, "spec.experiment.maximumDuration: "),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, experiment: dict[str, Any], said: str) -> None:
    file = manifest(tmp_path, **experiment)
    refused = plan(file, *KNOWN)
    assert (refused.code, f"{file}: " in refused.reason, said in refused.reason) == (2, True, True), refused


def test_of_a_canary_there_is_nothing_to_plan(tmp_path: Path) -> None:
    file = tmp_path / "canary.yaml"
    file.write_text("kind: ModelDeployment\nspec: {rollout: {strategy: Canary}}\n")
    refused = plan(file, *KNOWN)
    assert (refused.code, "ends with its steps; there is nothing to plan" in refused.reason) == (2, True), refused


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: 2\n")
    assert "broken.yaml:2: is no YAML; mend it" in plan(broken, *KNOWN).reason
    assert "none.yaml: no such file or directory" in plan(tmp_path / "none.yaml", *KNOWN).reason
    broken.write_text("kind: Deployment\n")
    assert "broken.yaml: kind: " in plan(broken, *KNOWN).reason
