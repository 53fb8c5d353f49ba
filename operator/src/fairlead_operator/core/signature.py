"""What servers tell of their models, and whether an experiment fits it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.experiment.design import Design, Meaning
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.evidence import meaning_of, unfit
from fairlead_operator.core.observed import Problem


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and answers, as its server tells it."""

    meaning: Meaning | None = None
    """Of the output that prediction tokens carry; None if it carries none, or it was not told."""
    features: Mapping[str, str] = field(default_factory=dict)
    """Datatype (V2) by name, ``view__name``; empty if it was not told."""


UNTOLD = Signature()


def signature_of(metadata: Mapping[str, Any]) -> Signature:
    """Return what V2 model metadata tells."""
    inputs = metadata.get("inputs")
    told = [one for one in inputs if isinstance(one, Mapping)] if isinstance(inputs, list) else []
    features = {str(one.get("name")): str(one.get("datatype")) for one in told if _is_feature(one)}
    return Signature(meaning_of(metadata), features)


def misfit(design: Design | None, signatures: Mapping[str, Signature]) -> Problem | None:
    """Return what of an experiment does not fit the models; None if all does, or that is not known yet.

    Args:
        design: How the experiment is judged.
        signatures: By the name of the arm, as far as servers have told.
    """
    meanings = {arm: one.meaning for arm, one in signatures.items() if one.meaning is not None}
    return unfit(design, meanings) or _covariate_misfit(design, signatures)


def _covariate_misfit(design: Design | None, signatures: Mapping[str, Signature]) -> Problem | None:
    """Return why the covariate cannot be recorded in every arm alike."""
    if design is None or design.covariate is None:
        return None
    feature = design.covariate.replace("__", ":", 1)
    for arm in design.arms:
        features = signatures.get(arm, UNTOLD).features
        if not features:
            continue
        datatype = features.get(design.covariate)
        if datatype is None:
            message = f"{arm} has no feature {feature}; take a covariate that is a feature of every arm's model"
        elif datatype == _TEXT:
            message = f"{feature} is text in {arm}; take a covariate that is a number"
        else:
            continue
        return Problem(ConditionType.EXPERIMENT_HEALTHY, Reason.METRIC_UNFIT, message, stops_growth=True)
    return None


def _is_feature(tensor: Mapping[str, Any]) -> bool:
    parameters = tensor.get("parameters")
    return isinstance(parameters, Mapping) and parameters.get("role") == "feature"


_TEXT = "BYTES"
