"""What the model sees for each state under each action, and which last good values are kept."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from fairlead.contract import Feature
from fairlead.policy import Action, FeatureState, Hydration, Policy
from fairlead_server.errors import FeatureRejected, StoreUnavailable
from fairlead_server.hydrate.plan import FeaturePlan, ViewPlan, compile_plan
from fairlead_server.hydrate.policy import LastGood, visible
from fairlead_server.predict.request import PredictResponse
from support.models import make_contract
from support.predictors import NOON, contract_for, running
from support.store import make_repo

MISSING = [state for state in FeatureState if state is not FeatureState.PRESENT]


def _view(action: Action, default: float | None = 7.0, max_age_s: float | None = None) -> ViewPlan:
    policy = Policy(null=action, not_found=action, never_written=action, stale=action, store_error=action)
    feature = Feature(view="w", name="x", dtype="float64", default=default, policy=policy, ttl_s=max_age_s)
    return compile_plan(make_contract([feature]), Hydration()).views[0]


def _feature(action: Action, default: float | None = 7.0) -> FeaturePlan:
    return _view(action, default).features[0]


@pytest.mark.parametrize("state", MISSING)
@pytest.mark.parametrize(
    ("action", "last_good", "wanted"),
    [
        (Action.DEFAULT, 5.0, 7.0),
        (Action.NULL, 5.0, math.nan),
        (Action.LAST_GOOD, 5.0, 5.0),
        (Action.LAST_GOOD, None, 7.0),
        (Action.LAST_GOOD, 0.0, 0.0),
        (Action.USE, 5.0, math.nan),
    ],
)
def test_an_action_stands_in_for_a_missing_value(
    state: FeatureState, action: Action, last_good: float | None, wanted: float
) -> None:
    assert visible(_feature(action), state, None, last_good) == pytest.approx(wanted, nan_ok=True)


def test_use_gives_a_stale_value_and_a_null_default_is_a_missing_value() -> None:
    assert visible(_feature(Action.USE), FeatureState.STALE, 3.0, None) == 3.0
    assert math.isnan(float(visible(_feature(Action.DEFAULT, default=None), FeatureState.NULL, None, None)))


@pytest.mark.parametrize("state", MISSING)
def test_reject_is_the_clients_concern_unless_the_store_failed(state: FeatureState) -> None:
    error = StoreUnavailable if state is FeatureState.STORE_ERROR else FeatureRejected
    with pytest.raises(error, match="w__x") as refused:
        visible(_feature(Action.REJECT), state, None, 5.0)
    assert refused.value.field == "w__x"


def test_an_on_demand_feature_without_a_stand_in_is_rejected_only_when_it_is_missing() -> None:
    feature = Feature(view="d", name="n", dtype="int64", on_demand=True)
    plan = compile_plan(make_contract([feature]), Hydration()).on_demand[0].features[0]
    with pytest.raises(FeatureRejected, match="d__n is NULL"):
        visible(plan, FeatureState.NULL, None, None)


def test_last_good_values_leave_least_recently_written_first() -> None:
    view, kept = _view(Action.LAST_GOOD), LastGood(2)
    for key in ("a", "b", "a", "c"):
        kept.remember(view, (key,), 10, {"x": 1.0})
    assert len(kept) == 2
    assert {key: bool(kept.recall(view, (key,), 10)) for key in "abc"} == {"a": True, "b": False, "c": True}


def test_last_good_values_are_recalled_up_to_the_views_age() -> None:
    view, kept = _view(Action.LAST_GOOD, max_age_s=1.0), LastGood(2)
    kept.remember(view, ("a",), 500, {"x": 1.0})
    assert kept.recall(view, ("a",), 1_000_500) == {"x": 1.0}
    assert kept.recall(view, ("a",), 1_000_501) == {}


def test_a_later_row_without_a_value_keeps_the_earlier_value() -> None:
    view, kept = _view(Action.LAST_GOOD), LastGood(2)
    kept.remember(view, ("a",), 1, {"x": 1.0, "y": 2.0})
    kept.remember(view, ("a",), 2, {"y": 3.0})
    assert kept.recall(view, ("a",), 2) == {"x": 1.0, "y": 3.0}


@pytest.mark.parametrize(
    ("store_error", "answers"), [(Action.REJECT, False), (Action.DEFAULT, True), (Action.LAST_GOOD, True)]
)
def test_one_feature_that_rejects_store_errors_is_enough_to_need_the_store(store_error: Any, *, answers: bool) -> None:
    features = [
        Feature(view="v", name="x", dtype="float64"),
        Feature(view="w", name="x", dtype="float64", policy=Policy(store_error=store_error)),
    ]
    assert compile_plan(make_contract(features), Hydration()).answers_without_store is answers


async def test_a_rejected_request_never_fails_its_neighbours(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    for tail, seats in (("N1", 1), ("N2", None), ("N3", 3)):
        repo.write("plane", {"tailnum": tail}, {"seats": seats, "maker": "", "jet": True}, NOON)
    contract = contract_for(repo, plane__seats={"policy": {"null": Action.REJECT, "not_found": Action.REJECT}})
    async with running(repo.path, contract, tmp_path) as rig:
        tails = [("N1", "N3"), ("N2",), ("N3", "N?"), ("N3",), ("N1",), ("N2", "N1")]
        asked = (rig.ask(*({"tailnum": tail} for tail in of_request)) for of_request in tails)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = {i: str(answer) for i, answer in enumerate(answers) if isinstance(answer, FeatureRejected)}
        assert {i: text.split(",")[0] for i, text in refused.items()} == {
            1: "feature plane__seats is NULL",
            2: "feature plane__seats is NOT_FOUND",
            5: "feature plane__seats is NULL",
        }
        taken = {i: answer for i, answer in enumerate(answers) if isinstance(answer, PredictResponse)}
        assert {i: answer.outputs["seen_plane__seats"].tolist() for i, answer in taken.items()} == {
            0: [1, 3],
            3: [3],
            4: [1],
        }
        assert not any(answer.degraded for answer in taken.values())
