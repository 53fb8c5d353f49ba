"""What is done about each feature state, and what a deployment may change about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fairlead.policy import Action, FeatureState, Hydration, Policy

FOUND_WRONG = [state for state in FeatureState if state is not FeatureState.PRESENT]

actions = st.sampled_from(Action)
policies = st.builds(Policy, null=actions, not_found=actions, never_written=actions, stale=actions, store_error=actions)
hydrations = st.builds(
    Hydration,
    on_missing=st.none() | st.sampled_from([Action.DEFAULT, Action.NULL, Action.REJECT]),
    on_stale=st.none() | st.sampled_from([Action.USE, Action.DEFAULT, Action.NULL, Action.REJECT]),
    on_store_error=st.none() | st.sampled_from([Action.DEFAULT, Action.NULL, Action.LAST_GOOD, Action.REJECT]),
)


@given(policy=policies)
def test_a_present_value_is_always_used(policy: Policy) -> None:
    assert policy.action(FeatureState.PRESENT) is Action.USE


@given(policy=policies, state=st.sampled_from(FOUND_WRONG))
def test_every_other_state_has_the_action_of_its_own_field(policy: Policy, state: FeatureState) -> None:
    assert policy.action(state) is getattr(policy, state.value.lower())


@given(policy=policies, hydration=hydrations)
def test_a_deployment_overrides_exactly_the_states_it_names(policy: Policy, hydration: Hydration) -> None:
    after = hydration.applied_to(policy)
    for state in ("null", "not_found", "never_written"):
        assert getattr(after, state) is (hydration.on_missing or getattr(policy, state))
    assert after.stale is (hydration.on_stale or policy.stale)
    assert after.store_error is (hydration.on_store_error or policy.store_error)


@given(policy=policies)
def test_a_deployment_that_asks_for_nothing_changes_nothing(policy: Policy) -> None:
    assert Hydration().applied_to(policy) == policy


@given(ttl_s=st.none() | st.floats(1, 1e6), max_age_s=st.none() | st.floats(1, 1e6))
def test_a_maximum_age_is_only_ever_stricter_than_the_ttl(ttl_s: float | None, max_age_s: float | None) -> None:
    hydration = Hydration(max_age_s={} if max_age_s is None else {"plane": max_age_s})
    age = hydration.max_age_of("plane", ttl_s)
    assert age is None or age <= min(ttl_s or float("inf"), max_age_s or float("inf"))
    assert hydration.max_age_of("another", ttl_s) == ttl_s


def test_rejecting_store_errors_means_no_answer_without_the_store() -> None:
    assert Policy().answers_without_store
    assert not Policy(store_error=Action.REJECT).answers_without_store


@given(policy=policies)
def test_a_policy_feeds_a_default_exactly_if_some_state_leads_to_it(policy: Policy) -> None:
    chosen = {policy.action(state) for state in FOUND_WRONG}
    assert policy.feeds_default == bool(chosen & {Action.DEFAULT, Action.LAST_GOOD})


def test_using_a_null_feeds_a_missing_value() -> None:
    assert Policy(null=Action.USE).feeds_missing
    assert Policy(stale=Action.NULL).feeds_missing
    assert not Policy(stale=Action.USE).feeds_missing


def test_an_unknown_state_or_action_is_refused() -> None:
    with pytest.raises(ValidationError, match="present"):
        Policy.model_validate({"present": "Use"})
    with pytest.raises(ValidationError, match="stale"):
        Policy.model_validate({"stale": "use"})


@pytest.mark.parametrize("deadline_s", [0, -1, 61, float("nan")])
def test_a_deadline_is_over_zero_and_at_most_a_minute(deadline_s: float) -> None:
    with pytest.raises(ValidationError, match="deadline_s"):
        Hydration(deadline_s=deadline_s)
