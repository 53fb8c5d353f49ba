"""Generated files are those of the API as it is; every reason has a page to turn to."""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.api.crd import HEADER, definition, documented, findings, manifest
from fairlead_operator.api.crd.definition import at

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "operator/crds/serving.fairlead.dev_modeldeployments.yaml"


def test_generated_files_do_not_differ_from_the_api() -> None:
    done = subprocess.run(
        [sys.executable, "tools/gen.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert GOLDEN.read_text().startswith(HEADER)


def test_the_definition_is_structural_and_follows_the_conventions() -> None:
    assert findings(definition()) == []


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("spec", {"$ref": "#/x"}, "spec: has $ref"),
        ("spec.serving.release", {"default": "0.1.0"}, "spec.serving.release: has default"),
        ("spec.routing", {"additionalProperties": False}, "spec.routing: has additionalProperties true or false"),
        ("spec.routing.unit", {"nullable": True}, "spec.routing.unit: has nullable"),
        ("spec.modelName", {"description": ""}, "spec.modelName: has no description"),
        ("spec.modelName", {"maxLength": None}, "spec.modelName: has neither maxLength nor enum"),
        ("spec.modelName", {"pattern": r"^\d+$"}, "spec.modelName: has a pattern that RE2 and Python read differently"),
        ("spec.modelName", {"pattern": "[a-z]+"}, "spec.modelName: has a pattern that is not anchored"),
        ("spec.modelName", {"type": None}, "spec.modelName: has type None"),
        ("spec.variants", {"maxItems": None}, "spec.variants: has no maxItems"),
        ("spec.variants", {"x-kubernetes-list-type": None}, "spec.variants: has no x-kubernetes-list-type"),
        ("spec.variants", {"x-kubernetes-list-map-keys": ["model.uri"]}, "spec.variants: has key model.uri"),
        ("spec.variants", {"x-kubernetes-list-type": "set"}, "spec.variants: is a set of objects"),
        ("spec.rollout.weights", {"maxProperties": None}, "spec.rollout.weights: has no maxProperties"),
        ("spec.variants[].scaling.minReplicas", {"maximum": None}, "minReplicas: has no maximum"),
        ("spec.experiment", {"required": ["name"]}, "spec.experiment: requires name"),
        ("spec.experiment", {"x-kubernetes-validations": [{"rule": "true"}]}, "has a rule without a message"),
    ],
)
def test_the_linter_finds_what_is_not_structural(path: str, change: dict[str, Any], says: str) -> None:
    broken = copy.deepcopy(definition())
    found = at(broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"], path)
    found |= change
    for key in [key for key, value in found.items() if value is None]:
        del found[key]
    assert any(says in finding for finding in findings(broken)), findings(broken)


def test_bounds_that_a_field_tightens_are_those_in_force() -> None:
    root = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    longest = {
        path: at(root, path)["maxLength"] for path in ("metadata.name", "spec.variants[].name", "spec.experiment.id")
    }
    assert longest == {"metadata.name": 34, "spec.variants[].name": 30, "spec.experiment.id": 40}


def test_the_definition_says_what_kubectl_shows() -> None:
    crd = yaml.safe_load(manifest())["spec"]
    assert crd["scope"] == "Namespaced"
    assert crd["names"]["shortNames"] == ["mdep"]
    assert crd["names"]["categories"] == ["fairlead"]
    (version,) = crd["versions"]
    assert version["subresources"] == {"status": {}}
    names = [column["name"] for column in version["additionalPrinterColumns"]]
    assert names == ["Ready", "Reason", "Stable", "Candidate", "Weight", "Verdict", "Age"]


def test_an_edit_of_the_spec_is_never_refused_for_its_status() -> None:
    root = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    status = root["properties"]["status"]
    assert "required" not in status
    assert "x-kubernetes-validations" not in yaml.safe_dump(status)
    assert "enum" not in at(root, "status.conditions[].reason")


@pytest.mark.parametrize("kind", [ConditionType, Reason])
def test_every_type_and_reason_says_what_it_means(kind: Any) -> None:
    assert set(documented(kind)) == {member.value for member in kind}


def test_every_reason_has_its_heading_in_the_runbook() -> None:
    page = (ROOT / "docs/runbooks/conditions.md").read_text()
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert set(headings) == {reason.value for reason in Reason}
    assert len(headings) == len(set(headings))
    linked = set(re.findall(r"\]\(#(\w+)\)", page))
    assert linked <= {reason.value.lower() for reason in Reason}
