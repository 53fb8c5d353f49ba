import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead_operator.api.manifest import parse, read
from fairlead_operator.api.v1alpha1 import basis_points, seconds
from fairlead_operator.errors import ManifestError
from support.envoy import ManifestFile

GOOD = f"""\
apiVersion: serving.fairlead.dev/v1alpha1
kind: ModelDeployment
metadata:
  name: arrival-delay
  namespace: flights
spec:
  featureStore:
    path: store
  variants:
    - name: logistic
      role: Control
      model:
        uri: logistic.onnx
        digest: sha256:{"a" * 64}
    - name: boosted
      role: Treatment
      model:
        uri: boosted.onnx
        digest: sha256:{"b" * 64}
  rollout:
    weights:
      boosted: 12.25
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        (f"sha256:{'b' * 64}", "sha256:b", 19, "spec.variants[1].model.digest", "sha256: and 64 hexadecimal digits"),
        ("name: boosted", "name: logistic", 15, "spec.variants[1].name", "logistic is listed twice"),
        ("role: Treatment", "role: Control", 16, "spec.variants[1].role", "is a second Control"),
        ("role: Control", "role: Treatment", 9, "spec.variants", "no variant has role Control"),
        ("role: Treatment", "role: treatment", 16, "spec.variants[1].role", "'Treatment'"),
        ("role: Treatment", "role: Shadow", 22, "spec.rollout.weights.boosted", "gets copies only"),
        ("boosted: 12.25", "boosted: 101", 22, "spec.rollout.weights.boosted", "less than or equal to 100"),
        ("boosted: 12.25", "boosted: 0.125", 22, "spec.rollout.weights.boosted", "more than two decimals"),
        ("boosted: 12.25", "logistic: 5", 22, "spec.rollout.weights.logistic", "takes the rest"),
        (
            "boosted: 12.25",
            "bosted: 5",
            22,
            "spec.rollout.weights.bosted",
            "is no variant (variants: logistic, boosted)",
        ),
        ("boosted: 12.25", "boosted: much", 22, "spec.rollout.weights.boosted", "valid number"),
        ("    path: store", "    pfad: store", 8, "spec.featureStore.pfad", "is not a known field"),
        ("    path: store", "    {}", 7, "spec.featureStore", "exactly one of path"),
        ("  name: arrival-delay\n", "", 3, "metadata.name", "is required"),
        ("  name: arrival-delay", "  name: Arrival_Delay", 4, "metadata.name", "lower-case letters"),
        ("kind: ModelDeployment", "kind: Deployment", 1, "kind", "is 'Deployment', not ModelDeployment"),
        ("  rollout:", "  hydration: {deadline: 20}\n  rollout:", 20, "spec.hydration.deadline", "valid string"),
        ("  rollout:", "  hydration: {deadline: 20x}\n  rollout:", 20, "spec.hydration.deadline", "such as 20ms"),
        ("  rollout:", "  hydration: {deadline: 2h}\n  rollout:", 20, "spec.hydration.deadline", "at most 60s"),
        ("  rollout:", "  routing: {retries: {attempts: 11}}\n  rollout:", 20, "spec.routing.retries.attempts", "10"),
        ("  rollout:", "  routing: {unit: {header: x-variant}}\n  rollout:", 20, "spec.routing.unit.header", "choose"),
        ("  rollout:", "  serving: {release: latest}\n  rollout:", 20, "spec.serving.release", "one exact release"),
        ("  rollout:", "  experiment: {id: E 1}\n  rollout:", 20, "spec.experiment.id", "lower-case letters"),
        (
            "      boosted: 12.25",
            "      boosted: 1\n      boosted: 2",
            23,
            "spec.rollout.weights.boosted",
            "given twice",
        ),
        ("      boosted: 12.25", "      boosted: [", 23, "", "is not YAML"),
    ],
)
def test_a_complaint_names_file_line_field_and_fix(old: str, new: str, line: int, field: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError) as caught:
        parse(GOOD.replace(old, new, 1).encode(), "m.yaml")
    assert (caught.value.line, caught.value.field) == (line, field)
    assert str(caught.value).startswith(f"m.yaml:{line}: {field}")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 documents"),
        (GOOD.encode() + b"---\n" + GOOD.encode(), "2 documents"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"a: &x [*x]\n", "aliases"),
        (
            b"a: &a [1]\n" + b"".join(b"%c: &%c [*%c,*%c,*%c]\n" % (c, c, c - 1, c - 1, c - 1) for c in b"bcdefghijkl"),
            "aliases",
        ),
        (b"- 1\n", "not ModelDeployment"),
    ],
)
def test_a_file_that_is_no_manifest_says_what_it_is(content: bytes, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        parse(content, "m.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.yaml: cannot be read"):
        read(tmp_path / "none.yaml")


def test_two_treatments_have_half_of_the_traffic_each_at_most(tmp_path: Path) -> None:
    manifest = ManifestFile.make(tmp_path)
    third: dict[str, Any] = {**copy.deepcopy(manifest.spec["variants"][1]), "name": "third"}
    manifest.spec["variants"].append(third)
    manifest.weigh(third=50.01)
    with pytest.raises(ManifestError, match=r"spec\.rollout\.weights\.third: is over 50, the slot of each of 2"):
        read(manifest.path)


def test_an_alias_stands_for_what_it_names() -> None:
    digest = f"sha256:{'a' * 64}"
    aliased = GOOD.replace(digest, f"&d {digest}").replace(f"sha256:{'b' * 64}", "*d")
    assert [v.model.digest for v in parse(aliased.encode(), "m.yaml").spec.variants] == [digest, digest]


def test_references_are_resolved_against_the_manifests_folder(tmp_path: Path) -> None:
    manifest = read(ManifestFile.make(tmp_path).path)
    assert manifest.resolve("../a%20b.onnx") == tmp_path.parent / "a b.onnx"
    assert manifest.resolve("file:///a/b.onnx") == Path("/a/b.onnx")
    with pytest.raises(ManifestError, match=r"yaml:\d+: spec\.featureStore\.path: s3://x: one machine reads files"):
        manifest.resolve("s3://x", ("spec", "featureStore", "path"))


def test_a_salt_names_the_experiment_or_the_rollout(tmp_path: Path) -> None:
    manifest = ManifestFile.make(tmp_path)
    assert read(manifest.path).deployment.salt == "flights/arrival-delay/e1"
    del manifest.spec["experiment"]
    manifest.write()
    assert read(manifest.path).deployment.salt == "flights/arrival-delay/rollout"


def test_weights_and_durations_keep_their_units() -> None:
    deployment = parse(GOOD.encode(), "m.yaml")
    assert deployment.weights_bp == {"boosted": 1225}
    assert [basis_points(p) for p in (0, 0.01, 33.33, 100)] == [0, 1, 3333, 10000]
    assert [seconds(d) for d in ("20ms", "1m30s", "24h")] == [0.02, 90, 86400]


def test_the_example_of_the_flights_is_a_good_manifest() -> None:
    file = Path(__file__).parents[2] / "examples/flights/modeldeployment.yaml"
    deployment = read(file).deployment
    assert deployment.model_name == "arrival-delay"
    assert yaml.safe_load(file.read_text())["spec"]["featureStore"]["path"] == "../../feature_repo"
