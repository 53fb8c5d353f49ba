"""The design of an experiment, from what a ModelDeployment asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.experiment.design import Design, Guardrail, Objective, Phase
from fairlead_operator.api.v1alpha1 import Experiment, seconds
from fairlead_operator.api.v1alpha1.experiment import effect


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a deployment is part of its experiment's design."""

    salt: str
    control: str
    treatments: tuple[str, ...]
    weights_bp: tuple[Mapping[str, int], ...]
    """Of each step; under Manual there is one."""
    predictions: Mapping[str, str]
    """Hash of what decides a prediction, by arm."""


def design_of(experiment: Experiment | None, plan: Plan) -> Design | None:
    """Return the design that the ledger keeps and the analysis reads; None where nothing is compared.

    Args:
        experiment: The block of the spec.
        plan: What else of the deployment is part of it.
    """
    if experiment is None or not experiment.is_judged or not plan.treatments:
        return None
    objective = experiment.objective
    return Design(
        salt=plan.salt,
        control=plan.control,
        treatments=plan.treatments,
        phases=tuple(
            Phase(number=number, weights_bp=dict(weights_bp)) for number, weights_bp in enumerate(plan.weights_bp)
        ),
        objective=Objective(metric=objective.measured, minimum_effect=effect(objective.minimum_effect))
        if objective
        else None,
        guardrails=tuple(Guardrail(metric=one.measured, margin=effect(one.margin)) for one in experiment.guardrails),
        alpha=experiment.alpha,
        requests_per_unit=experiment.requests_per_unit,
        outcome_window_s=seconds(experiment.outcome_window or "0s"),
        maximum_duration_s=seconds(experiment.maximum_duration) if experiment.maximum_duration else None,
        covariate=experiment.covariate.input if experiment.covariate else None,
        meaning=experiment.meaning,
        digests={arm: plan.predictions[arm] for arm in (plan.control, *plan.treatments)},
    )


def differing_field(old: Design, new: Design) -> str | None:
    """Return the first field in which two designs differ; None if they are the same."""
    return next((name for name in Design.model_fields if getattr(old, name) != getattr(new, name)), None)
