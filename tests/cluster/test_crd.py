"""A real kube-apiserver takes the CRD, and refuses what the documentation says it refuses."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fairlead_operator.api.crd import definition
from fairlead_operator.api.manifest import read
from fairlead_operator.api.objects import from_object
from support.refusals import (
    REFUSALS,
    TRANSITIONS,
    Object,
    Refusal,
    Transition,
    canary,
    changed,
    experiment,
    guarded,
    manual,
    variant,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "operator/crds/serving.fairlead.dev_modeldeployments.yaml"
EXAMPLES = sorted((ROOT / "examples/cluster").glob("*.yaml"))
NAME = "modeldeployments.serving.fairlead.dev"

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl() -> Kubectl:
    """Run kubectl in the cluster, with an object on its standard input if one is given."""
    if "FAIRLEAD_CLUSTER" not in os.environ:
        pytest.skip(f"no cluster: {os.environ.get('FAIRLEAD_CLUSTER_ABSENT', '`make test-cluster` runs this')}")
    facts = json.loads(Path(os.environ["FAIRLEAD_CLUSTER"]).read_text())
    command = [facts["programs"]["kubectl"], f"--kubeconfig={facts['kubeconfig']}"]

    def run(*arguments: str, given: Object | None = None) -> subprocess.CompletedProcess[str]:
        text = None if given is None else json.dumps(given)
        return subprocess.run(
            [*command, *arguments], input=text, capture_output=True, text=True, check=False, timeout=60
        )

    return run


@pytest.fixture(scope="module", autouse=True)
def _crd(kubectl: Kubectl) -> None:
    applied = kubectl("apply", "--server-side", "--force-conflicts", f"--filename={GOLDEN}")
    assert applied.returncode == 0, applied.stderr
    waited = kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{NAME}")
    assert waited.returncode == 0, waited.stderr


@pytest.fixture(scope="module")
def space(kubectl: Kubectl) -> Iterator[str]:
    """A namespace for objects that have to be stored."""
    name = f"crd-{uuid4().hex[:8]}"
    assert kubectl("create", "namespace", name).returncode == 0
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def _offer(kubectl: Kubectl, deployment: Object, *, verb: str = "create") -> str:
    """Return what the API says against ``deployment``; empty if it would take it. Nothing is stored."""
    done = kubectl(verb, "--dry-run=server", "--validate=strict", "--filename=-", given=deployment)
    assert bool(done.returncode) == bool(done.stderr), done.stderr
    return done.stderr


def _store(kubectl: Kubectl, deployment: Object, space: str) -> Object:
    """Store ``deployment`` under a name of its own in ``space``, and return it."""
    own = changed(deployment, {"metadata": {"name": f"t-{uuid4().hex[:8]}", "namespace": space}})
    done = kubectl("create", "--validate=strict", "--filename=-", given=own)
    assert done.returncode == 0, done.stderr
    return own


def test_the_definition_is_established_and_structural(kubectl: Kubectl) -> None:
    stored = json.loads(kubectl("get", "crd", NAME, "--output=json").stdout)
    conditions = {found["type"]: found["status"] for found in stored["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize(
    "good", [experiment(), manual(), canary(), guarded()], ids=["experiment", "manual", "canary", "guarded"]
)
def test_what_is_good_is_taken(kubectl: Kubectl, good: Object) -> None:
    assert _offer(kubectl, good) == ""


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_what_is_documented_as_refused_is_refused(kubectl: Kubectl, refusal: Refusal) -> None:
    assert refusal.cluster in _offer(kubectl, refusal.broken)


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: transition.name)
def test_an_experiment_freezes_what_decides_its_outcome(kubectl: Kubectl, space: str, transition: Transition) -> None:
    own = _store(kubectl, transition.base, space)
    said = _offer(kubectl, changed(transition.after, {"metadata": own["metadata"]}), verb="replace")
    assert transition.cluster in said
    assert bool(transition.cluster) == bool(said), said


def test_the_largest_object_is_within_the_budget_of_rules(kubectl: Kubectl) -> None:
    names = [f"t-{number:02d}-{'x' * 25}" for number in range(32)]
    step = {"weights": dict.fromkeys(names, 3.12), "hold": "1ms" * 10}
    treatments = [variant(name, "Treatment") for name in names]
    large = changed(
        experiment(),
        {
            "metadata.name": "large",
            "spec.variants": [variant("control", "Control"), *treatments],
            "spec.rollout.steps": [step] * 32,
            "spec.hydration.maxAge": {f"view-{number}": "1ms" * 10 for number in range(256)},
        },
    )
    assert _offer(kubectl, large) == ""
    last = {f"spec.rollout.steps.31.weights.{names[-1]}": 3.13}
    assert "an entry of weights is over its slot" in _offer(kubectl, changed(large, last))


@pytest.fixture
def older(kubectl: Kubectl) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """A resource of the same schema in a group of its own, and how to apply it: with rules, or without."""
    group = f"g{uuid4().hex[:8]}.example.org"
    names = {"kind": "ModelDeployment", "listKind": "ModelDeploymentList", "plural": "modeldeployments"}
    spec = {**definition()["spec"], "group": group, "names": names}
    whole = {**definition(), "metadata": {"name": f"modeldeployments.{group}"}, "spec": spec}

    def apply(with_rules: bool) -> None:
        applied = kubectl("apply", "--server-side", "--filename=-", given=whole if with_rules else _lenient(whole))
        assert applied.returncode == 0, applied.stderr
        assert kubectl("wait", "--for=condition=Established", f"crd/modeldeployments.{group}").returncode == 0

    yield group, apply
    kubectl("delete", "crd", f"modeldeployments.{group}", "--wait=false")


def _lenient(schema: Any) -> Any:
    """Return a schema as an older release might have had it: without rules across fields."""
    if isinstance(schema, dict):
        return {key: _lenient(value) for key, value in schema.items() if key != "x-kubernetes-validations"}
    return [_lenient(item) for item in schema] if isinstance(schema, list) else schema


def test_what_an_older_schema_let_in_gets_its_status_and_can_be_deleted(
    kubectl: Kubectl, space: str, older: tuple[str, Callable[[bool], None]]
) -> None:
    group, apply = older
    apply(False)
    stored = changed(
        experiment(),
        {
            "apiVersion": f"{group}/v1alpha1",
            "metadata": {"name": "a" * 30, "namespace": space, "finalizers": ["example.org/kept"]},
            "spec.variants.0.role": "Shadow",
            "spec.featureStore": {"path": "store"},
        },
    )
    created = kubectl("create", "--filename=-", given=stored)
    assert created.returncode == 0, created.stderr
    apply(True)
    where = (f"--namespace={space}", f"modeldeployments.{group}", "a" * 30)
    _until_rules_are_in_force(kubectl, changed(stored, {"metadata.name": "b" * 30}))
    patches: list[Object] = [{"status": {"observedGeneration": 1}}, {"metadata": {"finalizers": []}}]
    for patch in patches:
        options = ("--subresource=status",) if "status" in patch else ()
        written = kubectl("patch", *where, *options, "--type=merge", f"--patch={json.dumps(patch)}")
        assert written.returncode == 0, written.stderr


def _until_rules_are_in_force(kubectl: Kubectl, broken: Object) -> None:
    """Wait until the API server has taken up a changed definition, which takes it a moment."""
    for _ in range(50):
        if kubectl("create", "--dry-run=server", "--filename=-", given=broken).returncode:
            return
    pytest.fail("the rules never came into force")


def test_a_release_may_be_pinned_to_the_one_in_force_and_to_no_other(kubectl: Kubectl, space: str) -> None:
    own = _store(kubectl, experiment(), space)
    status = json.dumps({"status": {"servingRelease": "0.1.0"}})
    where = (f"--namespace={space}", "mdep", own["metadata"]["name"])
    assert kubectl("patch", *where, "--subresource=status", "--type=merge", f"--patch={status}").returncode == 0
    assert _offer(kubectl, changed(own, {"spec.serving.release": "0.1.0"}), verb="replace") == ""
    said = _offer(kubectl, changed(own, {"spec.serving.release": "0.2.0"}), verb="replace")
    assert "experiment e1 has frozen serving.release" in said
    status = json.dumps({"status": {"servingRelease": "0.2.0"}})
    written = kubectl("patch", *where, "--subresource=status", "--type=merge", f"--patch={status}")
    assert written.returncode == 0, "to write a status is never refused"


def test_what_the_api_gives_back_is_read(kubectl: Kubectl, space: str) -> None:
    own = _store(kubectl, experiment(), space)
    where = (f"--namespace={space}", "mdep", own["metadata"]["name"])
    given: dict[str, Any] = json.loads(kubectl("get", *where, "--output=json", "--show-managed-fields").stdout)
    assert given["spec"] == own["spec"], "no default is written into users' objects"
    deployment = from_object(given)
    assert deployment.metadata.name == own["metadata"]["name"]
    assert deployment.metadata.generation == 1


def test_columns_show_the_rollout(kubectl: Kubectl, space: str) -> None:
    own = _store(kubectl, experiment(), space)
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "Ramping",
        "message": "step 1 of 2",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    rollout = {"stable": "logistic-1", "candidate": "boosted-2", "weight": "10", "verdict": "Hold"}
    status = json.dumps({"status": {"conditions": [ready], "rollout": rollout}})
    where = (f"--namespace={space}", "mdep", own["metadata"]["name"])
    patched = kubectl("patch", *where, "--subresource=status", "--type=merge", f"--patch={status}")
    assert patched.returncode == 0, patched.stderr
    header, row = kubectl("get", *where).stdout.splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "STABLE", "CANDIDATE", "WEIGHT", "VERDICT", "AGE"]
    assert row.split()[1:7] == ["False", "Ramping", "logistic-1", "boosted-2", "10", "Hold"]
    assert own["metadata"]["name"] in kubectl("get", "fairlead", f"--namespace={space}").stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_for_clusters_apply(kubectl: Kubectl, example: Path) -> None:
    deployment = read(example).deployment
    kubectl("create", "namespace", deployment.metadata.namespace)
    options = ("--server-side", "--dry-run=server", "--validate=strict")
    applied = kubectl("apply", *options, f"--filename={example}", "--output=json")
    assert applied.returncode == 0, applied.stderr
    assert from_object(json.loads(applied.stdout)).spec == deployment.spec


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


def test_the_example_for_one_machine_is_refused_with_the_fix(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "flights")
    example = ROOT / "examples/flights/modeldeployment.yaml"
    said = kubectl("apply", "--dry-run=server", "--validate=strict", f"--filename={example}").stderr
    assert "spec.featureStore.path: Forbidden: path is for one machine (fairlead up); in a cluster give" in said
    assert "paths and file:// are for one machine: put the file into a store and give its address" in said


def test_every_field_is_explained(kubectl: Kubectl) -> None:
    said = kubectl("explain", "mdep", "--recursive").stdout
    for field in ("consecutive5xx", "digest", "hold", "servingRelease", "lastTransitionTime"):
        assert field in said
    served = json.loads(kubectl("get", "--raw", "/openapi/v3/apis/serving.fairlead.dev/v1alpha1").stdout)
    (schema,) = (
        found for name, found in served["components"]["schemas"].items() if name.endswith(".v1alpha1.ModelDeployment")
    )
    silent = [path for path, field in _fields(schema) if not field.get("description")]
    assert silent == []
    assert "<empty>" not in kubectl("explain", "mdep.spec.variants.model").stdout


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        if f"{path}.{name}" != ".metadata":
            yield f"{path}.{name}", field
            yield from _fields(field.get("items", field), f"{path}.{name}")
