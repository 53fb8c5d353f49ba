"""Pydantic and the CRD's schema refuse the same, each with a message that names the fix."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from fairlead_operator.api.crd import RULES, definition
from fairlead_operator.api.v1alpha1 import ModelDeployment
from support.cel import violations
from support.kube.schema import faults, prune
from support.refusals import REFUSALS, TRANSITIONS, Refusal, Transition, canary, changed, experiment, manual

SCHEMA: dict[str, Any] = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _complaints(deployment: dict[str, Any], old: dict[str, Any] | None = None) -> Iterator[str]:
    """Yield what an API server would say, in its words where our tests look at them."""
    kept = changed(deployment, {})
    yield from (f'unknown field "{path}"' for path in prune(kept, SCHEMA) if not path.startswith("metadata."))
    wrong = [f"{fault.field}: {fault.message}" for fault in faults(kept, SCHEMA)]
    yield from wrong
    if not any("Required value" in one or "must be of type" in one for one in wrong):
        yield from (f"{found.path}: {found.message}" for found in violations(kept, SCHEMA, old))


@pytest.mark.parametrize("good", [experiment(), manual(), canary()], ids=["experiment", "manual", "canary"])
def test_what_is_good_is_accepted_by_both(good: dict[str, Any]) -> None:
    ModelDeployment.model_validate_json(_json(good))
    assert list(_complaints(good)) == []


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_pydantic_refuses(refusal: Refusal) -> None:
    if not refusal.python:
        ModelDeployment.model_validate_json(_json(refusal.broken))
        return
    with pytest.raises(ValidationError) as caught:
        ModelDeployment.model_validate_json(_json(refusal.broken))
    assert refusal.python in str(caught.value)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_the_schema_refuses(refusal: Refusal) -> None:
    complaints = list(_complaints(refusal.broken))
    assert any(refusal.cluster in complaint for complaint in complaints), complaints


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: transition.name)
def test_an_experiment_freezes_what_decides_its_outcome(transition: Transition) -> None:
    assert list(_complaints(transition.base)) == []
    complaints = list(_complaints(transition.after, transition.base))
    if not transition.cluster:
        assert complaints == []
    else:
        assert any(transition.cluster in complaint for complaint in complaints), complaints


def test_pinning_the_release_in_force_changes_nothing_and_is_allowed() -> None:
    running = changed(experiment(), {"status": {"servingRelease": "0.1.0"}})
    assert list(_complaints(changed(running, {"spec.serving.release": "0.1.0"}), running)) == []
    (complaint,) = _complaints(changed(running, {"spec.serving.release": "0.2.0"}), running)
    assert complaint.startswith("spec.serving.release: experiment e1 has frozen serving.release")


def test_every_rule_is_in_the_tables() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    assert set(names) <= {case.name for case in REFUSALS} | {case.name for case in TRANSITIONS}


def _json(deployment: dict[str, Any]) -> str:
    return json.dumps(deployment)
