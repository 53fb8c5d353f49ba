"""The design of an experiment, as a ModelDeployment asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.experiment.design import Better, Design, Effect, Kind, Meaning, Scale, Source
from fairlead_operator.api.v1alpha1.experiment import effect
from fairlead_operator.core.desired import Desired, refuse_breaking_edit
from fairlead_operator.core.evidence import meaning_of, unfit
from fairlead_operator.core.signature import Signature, misfit, signature_of
from fairlead_operator.errors import EditRefused
from support.world import desired, experiment, steps

BLOCK: dict[str, Any] = {
    "id": "e1",
    "objective": {"metric": "brier", "minimumEffect": "5%"},
    "guardrails": [
        {"metric": "latency_ms", "margin": "10%"},
        {"metric": "error", "margin": "0.1pp"},
        {"metric": "wait_s", "kind": "Quantile", "better": "Lower", "quantile": 0.99, "margin": "0.5"},
    ],
    "outcomeWindow": "24h",
    "covariate": {"feature": "tail_performance:mean_delay_7d"},
    "maximumDuration": "14d",
}
LONGER = {
    "strategy": "Experiment",
    "steps": steps(({"boosted": 10}, "30m"), ({"boosted": 50}, "1h"), ({"boosted": 60}, None)),
}
RAMP = {"strategy": "Experiment", "steps": steps(({"boosted": 10}, "30m"), ({"boosted": 50}, None))}


def designed(block: dict[str, Any] = BLOCK, rollout: dict[str, Any] = RAMP) -> Design | None:
    return wanted(block, rollout).design


def wanted(block: dict[str, Any] = BLOCK, rollout: dict[str, Any] = RAMP) -> Desired:
    return desired(experiment=block, rollout=rollout, routing={"unit": {}})


@pytest.mark.parametrize(
    ("size", "means"),
    [
        ("5%", Effect(size=0.05, scale=Scale.RELATIVE)),
        ("0.1pp", Effect(size=0.001, scale=Scale.ABSOLUTE)),
        ("0.02", Effect(size=0.02, scale=Scale.ABSOLUTE)),
        ("12", Effect(size=12, scale=Scale.ABSOLUTE)),
    ],
)
def test_a_size_says_its_scale(size: str, means: Effect) -> None:
    found = effect(size)
    assert found.scale is means.scale
    assert found.size == pytest.approx(means.size)


def test_a_deployment_says_the_whole_design() -> None:
    design = designed()
    assert design is not None
    assert (design.salt, design.control, design.treatments) == ("flights/arrival-delay/e1", "logistic", ("boosted",))
    assert [phase.number for phase in design.phases] == [0, 1]
    assert [phase.weights_bp for phase in design.phases] == [{"boosted": 1000}, {"boosted": 5000}]
    assert design.objective is not None
    told = {name: (metric.kind, metric.better, metric.source) for name, metric in design.metrics.items()}
    assert told == {
        "brier": (Kind.MEAN, Better.LOWER, Source.ACTUAL),
        "latency_ms": (Kind.MEAN, Better.LOWER, Source.SYSTEM),
        "error": (Kind.PROPORTION, Better.LOWER, Source.SYSTEM),
        "wait_s": (Kind.QUANTILE, Better.LOWER, Source.OUTCOME),
    }
    assert (design.alpha, design.requests_per_unit) == (0.05, 50)
    assert (design.outcome_window_s, design.maximum_duration_s) == (86400, 14 * 86400)
    assert (design.covariate, design.meaning) == ("tail_performance__mean_delay_7d", Meaning.PROBABILITY)
    assert design.digests == {name: one.prediction for name, one in wanted().revisions.items()}


def test_an_experiment_without_metrics_has_no_design() -> None:
    assert experiment().design is None
    assert desired(experiment=None).design is None


def test_an_observed_experiment_is_one_phase() -> None:
    design = designed(rollout={"strategy": "Manual", "weights": {"boosted": 25}})
    assert design is not None
    assert [phase.weights_bp for phase in design.phases] == [{"boosted": 2500}]


def test_how_long_a_step_lasts_is_no_part_of_the_design() -> None:
    longer = {**RAMP, "steps": steps(({"boosted": 10}, "2h"), ({"boosted": 50}, None))}
    before, after = designed(), designed(rollout=longer)
    assert before is not None
    assert after is not None
    assert before.digest == after.digest


@pytest.mark.parametrize(
    ("block", "rollout", "says"),
    [
        ({**BLOCK, "alpha": 0.1}, RAMP, r"its design \(alpha\)"),
        ({**BLOCK, "guardrails": []}, RAMP, r"its design \(guardrails\)"),
        ({"id": "e1"}, RAMP, r"its design \(objective and guardrails\)"),
        (BLOCK, LONGER, r"its design \(phases\)"),
    ],
)
def test_a_running_experiment_keeps_its_design(block: dict[str, Any], rollout: dict[str, Any], says: str) -> None:
    with pytest.raises(EditRefused, match=says):
        refuse_breaking_edit(wanted(), wanted(block, rollout))
    refuse_breaking_edit(wanted(), wanted({**block, "id": "e2"}, rollout))


def test_a_metric_must_fit_what_the_model_answers() -> None:
    probability, number = Meaning.PROBABILITY, Meaning.NUMBER
    brier, absolute = designed(), designed({**BLOCK, "objective": {"metric": "absolute_error", "minimumEffect": "5%"}})
    assert unfit(brier, {"logistic": probability, "boosted": probability}) is None
    assert unfit(brier, {}) is None
    assert unfit(None, {"logistic": number}) is None
    assert unfit(absolute, {"logistic": number, "boosted": number}) is None
    improper = unfit(absolute, {"logistic": probability, "boosted": probability})
    assert improper is not None
    assert "absolute_error is improper" in improper.message
    assert improper.stops_growth
    no_probability = unfit(brier, {"logistic": probability, "boosted": number})
    assert no_probability is not None
    assert no_probability.message.startswith("boosted answers a number that is no probability, which brier does not")


@pytest.mark.parametrize(
    ("logistic", "boosted", "says"),
    [
        ({"plane__age": "FP64"}, {"plane__age": "INT32", "plane__maker": "BYTES"}, None),
        ({"plane__age": "BOOL"}, {}, None),
        ({"plane__age": "FP64"}, {"plane__maker": "BYTES"}, "boosted has no feature plane:age"),
        ({"plane__age": "BYTES"}, {"plane__age": "FP64"}, "plane:age is text in logistic"),
    ],
)
def test_a_covariate_must_be_a_number_in_every_arm(
    logistic: dict[str, str], boosted: dict[str, str], says: str | None
) -> None:
    adjusted = designed({**BLOCK, "covariate": {"feature": "plane:age"}})
    told = {"logistic": Signature(features=logistic), "boosted": Signature(features=boosted)}
    found = misfit(adjusted, told)
    assert (found and found.message.partition(";")[0]) == says
    assert found is None or found.stops_growth
    assert misfit(designed({name: one for name, one in BLOCK.items() if name != "covariate"}), told) is None


def test_features_are_read_from_what_a_server_tells_and_nothing_else_is() -> None:
    inputs = [
        {"name": "tail", "datatype": "BYTES", "parameters": {"role": "entity"}},
        {"name": "plane__age", "datatype": "FP32", "parameters": {"role": "feature"}},
        {"name": "odd"},
        "odd",
    ]
    assert signature_of({"inputs": inputs}).features == {"plane__age": "FP32"}
    assert signature_of({"inputs": "odd"}) == signature_of({}) == Signature()


def test_a_squared_error_of_a_probability_is_its_brier_score() -> None:
    squared = designed({**BLOCK, "objective": {"metric": "squared_error", "minimumEffect": "5%"}})
    assert unfit(squared, {"logistic": Meaning.PROBABILITY}) is None


@pytest.mark.parametrize(
    ("outputs", "meaning"),
    [
        ([{"parameters": {"meaning": "label"}}, {"parameters": {"meaning": "probability"}}], Meaning.PROBABILITY),
        ([{"parameters": {"meaning": "value"}}, {"parameters": {"meaning": "probability"}}], Meaning.PROBABILITY),
        ([{"parameters": {"meaning": "value"}}], Meaning.NUMBER),
        ([{"parameters": {"meaning": "label"}}, {"name": "x"}, 3], None),
        (None, None),
        ({}, None),
    ],
)
def test_the_meaning_is_that_of_the_output_that_tokens_carry(outputs: Any, meaning: Meaning | None) -> None:
    assert meaning_of({"outputs": outputs}) is meaning
