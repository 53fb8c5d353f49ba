"""Pydantic and the CRD's schema refuse the same, each with a message that names the fix."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fairlead_operator.api import v1alpha1
from fairlead_operator.api.crd import RULES
from fairlead_operator.api.v1alpha1 import ModelDeployment
from support.admission import complaints
from support.refusals import (
    REFUSALS,
    TRANSITIONS,
    Refusal,
    Transition,
    canary,
    changed,
    experiment,
    guarded,
    judged,
    manual,
)


@pytest.mark.parametrize(
    "good",
    [experiment(), judged(), manual(), canary(), guarded()],
    ids=["experiment", "judged", "manual", "canary", "guarded"],
)
def test_what_is_good_is_accepted_by_both(good: dict[str, Any]) -> None:
    ModelDeployment.model_validate_json(_json(good))
    assert list(complaints(good)) == []


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_pydantic_refuses(refusal: Refusal) -> None:
    if not refusal.python:
        ModelDeployment.model_validate_json(_json(refusal.broken))
        return
    assert refusal.python in _refused(refusal.broken)


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
    assert list(complaints(changed(running, {"status.servingRelease": "0.2.0"}), running)) == []


def test_names_that_an_older_schema_let_in_may_stay_but_not_be_joined() -> None:
    old = changed(experiment(), {"metadata.name": "a" * 30})
    assert list(complaints(changed(old, {"spec.paused": True}), old)) == []
    (complaint,) = complaints(changed(old, {"spec.variants.3.name": "ghost-of-old"}), old)
    assert "together have over 36 letters" in complaint


def test_every_rule_is_in_the_tables() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    assert set(names) <= {case.name for case in REFUSALS} | {case.name for case in TRANSITIONS}


def test_every_message_of_the_validators_is_in_the_table() -> None:
    said = "\n".join(_refused(refusal.broken) for refusal in REFUSALS if refusal.python)
    literals = [text for path in Path(v1alpha1.__path__[0]).glob("*.py") for text in _literals(path)]
    assert len(literals) > 20
    assert [text for text in literals if text not in said] == []


def _refused(deployment: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        ModelDeployment.model_validate_json(_json(deployment))
    return str(caught.value)


def _literals(path: Path) -> Iterator[str]:
    """Yield the sentences, or their parts between inserted values, that the module's private functions say."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        if function.name.startswith("_") and not function.name.startswith("__"):
            yield from (
                node.value
                for node in ast.walk(function)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip().count(" ")
            )


def _json(deployment: dict[str, Any]) -> str:
    return json.dumps(deployment)
