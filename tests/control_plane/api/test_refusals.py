"""Pydantic and the CRD's schema refuse the same, each with a message that names the fix."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from fairlead_operator.api.crd import RULES
from fairlead_operator.api.v1alpha1 import ModelDeployment
from support.admission import complaints
from support.refusals import REFUSALS, TRANSITIONS, Refusal, Transition, canary, changed, experiment, manual


@pytest.mark.parametrize("good", [experiment(), manual(), canary()], ids=["experiment", "manual", "canary"])
def test_what_is_good_is_accepted_by_both(good: dict[str, Any]) -> None:
    ModelDeployment.model_validate_json(_json(good))
    assert list(complaints(good)) == []


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
    said = list(complaints(refusal.broken))
    assert any(refusal.cluster in complaint for complaint in said), said


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: transition.name)
def test_an_experiment_freezes_what_decides_its_outcome(transition: Transition) -> None:
    assert list(complaints(transition.base)) == []
    said = list(complaints(transition.after, transition.base))
    if not transition.cluster:
        assert said == []
    else:
        assert any(transition.cluster in complaint for complaint in said), said


def test_pinning_the_release_in_force_changes_nothing_and_is_allowed() -> None:
    running = changed(experiment(), {"status": {"servingRelease": "0.1.0"}})
    assert list(complaints(changed(running, {"spec.serving.release": "0.1.0"}), running)) == []
    (complaint,) = complaints(changed(running, {"spec.serving.release": "0.2.0"}), running)
    assert complaint.startswith("spec.serving.release: experiment e1 has frozen serving.release")


def test_every_rule_is_in_the_tables() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    assert set(names) <= {case.name for case in REFUSALS} | {case.name for case in TRANSITIONS}


def _json(deployment: dict[str, Any]) -> str:
    return json.dumps(deployment)
