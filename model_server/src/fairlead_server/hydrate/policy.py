"""What the model sees for a feature in a given state, and the last good values that one action needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from fairlead.contract import Scalar
from fairlead.policy import Action, FeatureState
from fairlead_server.errors import FeatureRejected, StoreUnavailable
from fairlead_server.hydrate.found import Key
from fairlead_server.hydrate.plan import FeaturePlan, ViewPlan


def visible(feature: FeaturePlan, state: FeatureState, value: Scalar | None, last_good: Scalar | None) -> Scalar:
    """Return what the model sees.

    Args:
        feature: The feature, with its actions.
        state: How it was found.
        value: What was found; None for states without a value.
        last_good: A value read earlier for the same entity and still young enough; None if there is none.

    Raises:
        FeatureRejected: The action is Reject, or has nothing to put in.
        StoreUnavailable: The same, and the reason is the store.
    """
    match feature.actions[state]:
        case Action.USE:
            seen = feature.missing if value is None else value
        case Action.NULL:
            seen = feature.missing
        case Action.LAST_GOOD if last_good is not None:
            seen = last_good
        case Action.REJECT:
            seen = None
        case _:
            seen = feature.default
    if seen is None:
        raise _rejection(feature, state)
    return seen


def _rejection(feature: FeaturePlan, state: FeatureState) -> FeatureRejected | StoreUnavailable:
    if state is FeatureState.STORE_ERROR:
        return StoreUnavailable(
            f"feature {feature.input}: the online store does not answer, and the feature has no substitute; try again",
            field=feature.input,
        )
    return FeatureRejected(
        f"feature {feature.input} is {state}, which its policy rejects; check that the entity is known and its "
        "features are written",
        field=feature.input,
    )


class LastGood:
    """The last values read, by view and key; the least recently written keys leave first."""

    def __init__(self, rows: int) -> None:
        """Start empty.

        Args:
            rows: How many rows (one entity in one view) are kept.
        """
        self._limit = rows
        self._rows: OrderedDict[tuple[str, Key], dict[str, tuple[int, Scalar]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def remember(self, view: ViewPlan, key: Key, event_us: int, values: Mapping[str, Scalar]) -> None:
        """Keep the values read for a key, by feature name, with their event time."""
        kept = self._rows.setdefault((view.name, key), {})
        kept.update((name, (event_us, value)) for name, value in values.items())
        self._rows.move_to_end((view.name, key))
        if len(self._rows) > self._limit:
            self._rows.popitem(last=False)

    def recall(self, view: ViewPlan, key: Key, now_us: int) -> dict[str, Scalar]:
        """Return what is kept for a key and not older than the view's limit, by feature name."""
        kept = self._rows.get((view.name, key), {})
        oldest_us = -1 if view.max_age_us is None else now_us - view.max_age_us
        return {name: value for name, (event_us, value) in kept.items() if event_us >= oldest_us}
