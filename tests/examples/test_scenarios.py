"""What the demo plays: manifests that `fairlead up` takes, and which programs serve them."""

from __future__ import annotations

from pathlib import Path

from fairlead_operator.api.manifest import read
from fairlead_operator.core.desired import desired_from
from flights.scenarios import TWIN, Scenario, play_of
from flights.training import MANIFEST


def test_the_default_serves_the_example_as_it_stands(tmp_path: Path) -> None:
    play = play_of(Scenario.DEFAULT, MANIFEST, tmp_path)
    assert (play.manifest, play.server_command) == (MANIFEST, None)
    design = desired_from(read(MANIFEST).deployment, "0").design
    assert design is not None
    assert (design.salt, [phase.weights_bp["boosted"] for phase in design.phases]) == (
        "flights/arrival-delay/e1",
        [1000, 5000],
    )


def test_a_regression_is_the_same_models_of_which_the_treatment_is_slowed(tmp_path: Path) -> None:
    play = play_of(Scenario.REGRESSION, MANIFEST, tmp_path)
    assert play.manifest == MANIFEST
    assert play.server_command is not None
    assert play.server_command.endswith("-m flights.slowed boosted 20")


def test_twins_are_one_model_twice_under_the_example_s_own_salt_and_plan(tmp_path: Path) -> None:
    play = play_of(Scenario.AA, MANIFEST, tmp_path / "demo")
    manifest, original = read(play.manifest), read(MANIFEST)
    control, twin = manifest.deployment.spec.variants
    assert (control.name, twin.name, twin.role) == ("logistic", TWIN, "Treatment")
    assert control.model == twin.model
    assert manifest.resolve(twin.model.uri) == original.resolve(original.deployment.spec.control.model.uri)
    assert manifest.resolve(manifest.deployment.spec.feature_store.path or "").is_dir()
    assert manifest.deployment.salt == original.deployment.salt
    assert [step.weights[TWIN] for step in manifest.deployment.spec.rollout.steps] == [10, 50]
    assert set(play.services) == {"logistic", TWIN}
    assert len(set(play.services.values())) == 1
