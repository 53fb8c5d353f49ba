"""How one contract is hydrated, compiled once: views, keys, ages, policies. Needs no store.

What the store adds (Feast's tables and on-demand functions) is in ``source.py``, so that a server whose store is
away still knows every feature and what its policy says about a STORE_ERROR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from fairlead.contract import Contract, DType, Feature, Scalar
from fairlead.policy import Action, FeatureState, Hydration
from fairlead_server.errors import ContractMismatch

ARRAY_TYPES: Mapping[DType, np.dtype[np.generic]] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "bool": np.dtype(np.bool_),
    "string": np.dtype(np.object_),
}
"""Element type of the array that a graph's input takes, by the contract's name for it."""

FLOATS: frozenset[DType] = frozenset({"float32", "float64"})
"""Types that have a missing value (NaN)."""


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """One feature of the model and what is done about each state of it."""

    input: str
    """The graph's input, ``view__name``."""
    name: str
    dtype: DType
    takes_missing: bool
    """Whether a full request may bring NaN for it."""
    missing: float | None
    """NaN where the type has one, else None."""
    default: Scalar | None
    """What the model sees for Default; NaN where the contract says null, None where nothing can be said."""
    actions: Mapping[FeatureState, Action]


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One stored view and the features that the model takes from it."""

    name: str
    """The view's name in the feature service (its alias if it has one)."""
    join_keys: tuple[str, ...]
    """Names in a request; empty for a view without entities."""
    features: tuple[FeaturePlan, ...]
    max_age_us: int | None
    """Values older than this are STALE; None never."""
    keeps_last_good: bool
    """Whether any feature may ask for the last good value."""


@dataclass(frozen=True, slots=True)
class OnDemandPlan:
    """One on-demand view and the features that the model takes from it."""

    name: str
    features: tuple[FeaturePlan, ...]


@dataclass(frozen=True, slots=True)
class HydrationPlan:
    """Everything to hydrate for one model."""

    views: tuple[ViewPlan, ...]
    on_demand: tuple[OnDemandPlan, ...]

    @property
    def answers_without_store(self) -> bool:
        """Whether the policies allow predictions while the store does not answer."""
        return all(f.actions[FeatureState.STORE_ERROR] is not Action.REJECT for f in self.features)

    @property
    def features(self) -> tuple[FeaturePlan, ...]:
        """All features, stored ones first."""
        stored = (feature for view in self.views for feature in view.features)
        return (*stored, *(feature for view in self.on_demand for feature in view.features))


def compile_plan(contract: Contract, hydration: Hydration) -> HydrationPlan:
    """Compile how the contract's features are hydrated under a deployment's choices.

    Raises:
        ContractMismatch: A policy puts a missing value where the feature's type has none.
    """
    return HydrationPlan(
        views=tuple(_view(name, features, hydration) for name, features in _by_view(contract, on_demand=False)),
        on_demand=tuple(
            OnDemandPlan(name, tuple(_feature(f, hydration) for f in features))
            for name, features in _by_view(contract, on_demand=True)
        ),
    )


def _by_view(contract: Contract, *, on_demand: bool) -> list[tuple[str, list[Feature]]]:
    chosen = sorted((f for f in contract.features if f.on_demand is on_demand), key=lambda f: f.view)
    return [(name, list(features)) for name, features in groupby(chosen, key=lambda f: f.view)]


def _view(name: str, features: list[Feature], hydration: Hydration) -> ViewPlan:
    max_age_s = hydration.max_age_of(name, features[0].ttl_s)
    plans = tuple(_feature(f, hydration) for f in features)
    return ViewPlan(
        name=name,
        join_keys=features[0].join_keys,
        features=plans,
        max_age_us=None if max_age_s is None else round(max_age_s * 1e6),
        keeps_last_good=any(Action.LAST_GOOD in plan.actions.values() for plan in plans),
    )


def _feature(feature: Feature, hydration: Hydration) -> FeaturePlan:
    feature = feature.model_copy(update={"policy": hydration.applied_to(feature.policy)})
    if feature.needs_default:
        raise ContractMismatch(
            f"feature {feature.input} is {feature.dtype}, which has no missing value, and has no default "
            f"(or its policy says {Action.NULL}): package it with a default, or choose {Action.REJECT}"
        )
    missing = math.nan if feature.dtype in FLOATS else None
    return FeaturePlan(
        input=feature.input,
        name=feature.name,
        dtype=feature.dtype,
        takes_missing=feature.takes_missing,
        missing=missing,
        default=missing if feature.default is None else feature.default,
        actions={state: feature.policy.action(state) for state in FeatureState},
    )
