"""``fairlead upgrade``: another server release for a deployment in a cluster, or in its manifest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead_operator.platforms.kubernetes.ownership import Owner, owner_of
from support.cluster_world import RELEASE, Scene, alone, experiment, manual, scene_of
from support.commands import Ran, commands_of, here
from support.kube.faults import Refuse, calls

HERE = ("-n", "flights")
NEXT = "0.4.0"


async def upgrade(scene: Scene, *words: str) -> Ran:
    return await commands_of(scene.server, scene.folder).run("upgrade", "delay", *HERE, *words)


def spec_of(scene: Scene) -> dict[str, Any]:
    live = scene.server.get("ModelDeployment", "flights", "delay")
    assert live
    spec: dict[str, Any] = live["spec"]
    return spec


async def test_control_is_rolled_to_the_release_and_keeps_everything_meanwhile(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene, scene.life() as life:
        await life.rest()
        before = scene.service("logistic")
        said = await upgrade(scene, "--to", NEXT)
        assert said.code == 0, said
        assert f"server release {RELEASE} -> {NEXT}; new revisions of logistic are started, and each" in said.out
        assert "`fairlead status delay -n flights --watch` follows it" in said.out
        live: Any = scene.server.get("ModelDeployment", "flights", "delay")
        managers = {entry["manager"] for entry in live["metadata"]["managedFields"] if "f:spec" in entry["fieldsV1"]}
        assert "fairlead-cli" in managers
        await life.rest()
        assert scene.service("logistic") != before
        assert scene.status()["servingRelease"] == NEXT
        assert scene.weights == {"logistic": 100}
        again = await upgrade(scene, "--to", NEXT)
    assert (again.code, "is asked for already" in again.out) == (0, True)


async def test_weights_stay_while_every_variant_is_upgraded(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual(10)) as scene, scene.life() as life:
        await life.rest()
        before = {name: scene.service(name) for name in ("logistic", "boosted")}
        said = await upgrade(scene, "--to", NEXT)
        assert "new revisions of logistic, boosted are started" in said.out
        await life.rest()
        assert scene.weights == {"logistic": 90, "boosted": 10}
        assert all(scene.service(name) != was for name, was in before.items())


async def test_a_canary_takes_the_release_by_its_steps(tmp_path: Path) -> None:
    steps = {"strategy": "Canary", "steps": [{"weights": {"logistic": 20}, "hold": "30m"}]}
    async with scene_of(tmp_path, alone(rollout=steps)) as scene, scene.life() as life:
        await life.rest()
        said = await upgrade(scene, "--to", NEXT)
        assert "a new revision of logistic is rolled out by Canary, in 1 step" in said.out
        await life.rest()
        assert scene.status()["rollout"]["weight"] == "20"
        assert "the canary under way is replaced" in (await upgrade(scene, "--to", "0.5.0")).out


async def test_a_running_experiment_keeps_its_release(tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        await life.rest()
        refused = await upgrade(scene, "--to", NEXT)
        assert (refused.code, "delay: experiment e1 has frozen the server release" in refused.reason) == (1, True)
        assert "give spec.experiment.id a new value" in refused.reason
        scene.annotate(request="promote boosted flights/delay/e1")
        await life.rest()
        decided = await upgrade(scene, "--to", NEXT)
        assert "it is decided, so remove spec.experiment (`fairlead promote -f FILE`" in decided.reason
        assert spec_of(scene)["serving"] == {"release": RELEASE}
        message = 'ModelDeployment "delay" is invalid: spec.serving.release: the experiment has frozen it'
        scene.server.faults.inject(Refuse(422, "Invalid", message), calls("patch", "modeldeployments"))
        scene.edit(experiment=None, rollout={"strategy": "Manual", "steps": None})
        by_api = await upgrade(scene, "--to", NEXT)
    assert (by_api.code, by_api.reason) == (1, f"error: {message}")


@pytest.mark.parametrize("given", [experiment, alone])
async def test_the_release_in_force_is_pinned_and_nothing_moves(tmp_path: Path, given: Callable[..., Any]) -> None:
    async with scene_of(tmp_path, given(serving={})) as scene, scene.life() as life:
        await life.rest()
        before, in_force = scene.service("logistic"), scene.status()["servingRelease"]
        pinned = await upgrade(scene, "--to", in_force)
        expected = f"delay: pins server release {in_force}, which is in force; nothing moves\n"
        assert (pinned.code, pinned.out) == (0, expected), pinned
        assert spec_of(scene)["serving"] == {"release": in_force}
        await life.rest()
        assert scene.service("logistic") == before


async def test_a_dry_run_asks_the_api_and_writes_nothing(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene:
        said = await upgrade(scene, "--to", NEXT, "--dry-run")
        assert (said.code, "dry run: the API would take it; nothing is written" in said.out) == (0, True)
        (asked,) = [record for record in scene.server.requests if record.call.verb == "patch"]
        assert not asked.changed
        assert spec_of(scene)["serving"] == {"release": RELEASE}


async def test_a_write_counts_on_the_spec_that_was_read_whatever_the_status_is(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene:

        async def report(_: Any) -> None:
            scene.server.before_write.clear()
            scene.server.patch("ModelDeployment", "flights", "delay", {"metadata": {"labels": {"team": "a"}}})

        async def edit(_: Any) -> None:
            scene.server.before_write.clear()
            scene.edit(modelName="other")

        scene.server.before_write.append(report)
        assert (await upgrade(scene, "--to", NEXT)).code == 0
        scene.server.before_write.append(edit)
        refused = await upgrade(scene, "--to", "0.5.0")
        assert (refused.code, "somebody has changed it at the same moment" in refused.reason) == (1, True)
        assert spec_of(scene)["serving"] == {"release": NEXT}


async def test_what_a_gitops_tool_keeps_is_left_to_a_commit(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene:
        mark = {"argocd.argoproj.io/tracking-id": "models:serving.fairlead.dev/ModelDeployment:flights/delay"}
        scene.server.patch("ModelDeployment", "flights", "delay", {"metadata": {"annotations": mark}})
        refused = await upgrade(scene, "--to", NEXT)
        assert (refused.code, "delay: Argo CD keeps this spec" in refused.reason) == (1, True)
        assert f"commit `spec.serving.release: {NEXT}`" in refused.reason
        assert spec_of(scene)["serving"] == {"release": RELEASE}
        forced = await upgrade(scene, "--to", NEXT, "--force")
        assert (forced.code, "Argo CD may undo this; write it down there, too" in forced.out) == (0, True)
        assert spec_of(scene)["serving"] == {"release": NEXT}


@pytest.mark.parametrize(
    ("managers", "owner"),
    [
        (["kubectl-client-side-apply"], Owner("kubectl apply", "kubectl-client-side-apply", writes_again=False)),
        (["kubectl", "kustomize-controller"], Owner("Flux", "kustomize-controller", writes_again=True)),
        (["argocd-controller", "fairlead-cli"], Owner("Argo CD", "argocd-controller", writes_again=True)),
        (["fairlead-cli", "kubectl-edit"], None),
    ],
)
def test_whose_a_spec_is_is_read_from_managed_fields(managers: list[str], owner: Owner | None) -> None:
    entries = [{"manager": manager, "fieldsV1": {"f:spec": {}}} for manager in managers]
    noise = [
        {"manager": "helm-controller", "fieldsV1": {"f:metadata": {}}},
        {"manager": "helm-controller", "subresource": "status", "fieldsV1": {"f:spec": {}}},
    ]
    assert owner_of({"metadata": {"managedFields": [*noise, *entries]}}) == owner
    assert owner_of({"metadata": {}}) is None


def test_a_flux_label_is_enough() -> None:
    found = owner_of({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "models"}}})
    assert found is not None
    assert (found.tool, found.writes_again) == ("Flux", True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("serving: {release: 0.3.1}   # as tested", "serving: {release: 0.4.0}   # as tested"),
        ("serving:\n    release: '0.3.1'", "serving:\n    release: 0.4.0"),
        ("serving: {}", "serving: {release: 0.4.0}"),
        ("paused: false", "serving: {release: 0.4.0}\n  paused: false"),
    ],
)
def test_the_manifest_names_the_release_and_nothing_else_is_touched(tmp_path: Path, before: str, after: str) -> None:
    head = (
        "# whose it is\napiVersion: serving.fairlead.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: m}\nspec:\n"
    )
    digest = f'"sha256:{"a" * 64}"'
    tail = f"""
  featureStore: {{path: store}}   # the local one
  variants: [{{name: a, role: Control, model: {{uri: a.onnx, digest: {digest}}}}}]
"""
    file = tmp_path / "m.yaml"
    file.write_text(f"{head}  {before}{tail}")
    would = here("upgrade", "-f", str(file), "--to", NEXT, "--dry-run")
    assert (would.code, file.read_text()) == (0, f"{head}  {before}{tail}")
    done = here("upgrade", "-f", str(file), "--to", NEXT)
    assert (done.code, file.read_text()) == (0, f"{head}  {after}{tail}")
    assert "look at the change and commit it" in done.out
    again = here("upgrade", "-f", str(file), "--to", NEXT)
    assert (again.code, "is 0.4.0 already; nothing is left to write" in again.reason) == (2, True)


def test_a_manifest_in_one_line_is_edited_and_its_experiment_is_spoken_of(tmp_path: Path) -> None:
    given = functools.partial(experiment, experiment={"id": "e1"})
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(given(serving={}), default_flow_style=True, width=10_000))
    done = here("upgrade", "-f", str(file), "--to", NEXT)
    assert "where experiment e1 runs it is refused until its id is a new one" in done.out
    assert yaml.safe_load(file.read_text()) == given(serving={"release": NEXT})


@pytest.mark.parametrize("words", [("-n", "flights"), ("--context", "prod"), ("--kubeconfig", "k"), ("tip",)])
def test_with_a_manifest_nothing_is_named_that_would_be_ignored(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "m.yaml"
    text = yaml.safe_dump(alone(serving={"release": RELEASE}))
    file.write_text(text)
    refused = here("upgrade", "-f", str(file), "--to", NEXT, *words)
    named = {"-n": "--namespace", "tip": "NAME"}.get(words[0], words[0])
    assert (refused.code, refused.reason.startswith(f"error: {named}: "), file.read_text()) == (2, True, text), refused
    assert here("upgrade", "delay", "-f", str(file), "--to", NEXT).code == 0


def test_on_one_machine_the_release_is_the_installed_package() -> None:
    refused = here("upgrade", "delay", "--to", NEXT)
    assert (refused.code, "fairlead-server (0.1.0); in a cluster give -n NAMESPACE" in refused.reason) == (2, True)
    assert "'latest' is no exact release" in here("upgrade", "delay", "--to", "latest").reason


async def test_a_paused_deployment_is_upgraded_once_it_goes_on(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene:
        commands = commands_of(scene.server, tmp_path)
        nobody = await commands.run("upgrade", *HERE, "--to", NEXT)
        assert (nobody.code, "NAME: say which deployment" in nobody.reason) == (2, True)
        assert (await commands.run("pause", "delay", *HERE)).code == 0
        said = await upgrade(scene, "--to", NEXT)
    assert "it is paused, so nothing happens until `fairlead resume`" in said.out
