"""The simulation suite's quick form: a few runs of settings of every kind, judged by the claims of the full one.

A few runs find what is broken; what is measured is in docs/experiments.md.
"""

import pytest
from simulate.runner import in_one_process
from simulate.setting import Setting
from simulate.settings import SETTINGS

SLACK = 3.0
"""Standard errors that a claim may be missed by, with so few runs."""
RUNS = {
    "null-arriving-zipf0.6-icc0-cap50": 50,
    "null-present-zipf1.1-icc0.8-cap50": 50,
    "null-arriving-zipf1.1-icc0.3-nocap": 50,
    "null-heavy-late-zipf0.6-icc0.3-cap50": 30,
    "null-arriving-drift50-zipf0.6-icc0.8-cap50": 30,
    "few-1-of-events-one-request-per-unit-10-90": 50,
    "few-lognormal-spread-2-one-request-per-unit-10-90": 20,
    "effect-1-request-per-unit-20-effect--10": 50,
    "effect-returning-zipf-1.1-icc-0.3-effect--25-cap-50": 50,
    "bounds-two-decades-from-the-effect-that-matters-on": 400,
    "duration-effect-of-1-times-the-one-that-matters": 400,
    "frozen-information-stands-still-traffic-doubles-20-times": 2000,
    "ramp-base-10-to-20-with-the-step-icc-0.3": 20,
    "outage-1-to-3-gaps-of-5-of-the-time-mean-times-3-meanwhile": 20,
    "late-twice-as-late-in-the-treatment-window-of-5-slow-delays": 50,
    "late-twice-as-late-window-of-1-slow-delay-too-short": 50,
    "stall-none-4-hours": 10,
    "stall-3-minutes-a-day": 10,
    "guard-three-margins": 50,
    "tail-twice-as-slow": 2,
    "covariate-effect--15-zipf-0.2-icc-0.3": 50,
    "arms-25-25-25-25": 50,
    "rollout-better-and-complaints-from-1-to-5": 6,
}
"""Runs of settings that take a while; of sample ratios, exact guardrails and agreements all are tried."""
LIGHT = ("ratio", "exact")
CHOSEN = [one for one in SETTINGS if one.name in RUNS or one.table in LIGHT]


def test_every_chosen_setting_is_there() -> None:
    assert RUNS.keys() <= {one.name for one in SETTINGS}


def test_every_setting_has_a_name_of_its_own() -> None:
    assert len({one.name for one in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize("setting", CHOSEN, ids=lambda one: one.name)
def test_what_is_claimed_holds(setting: Setting) -> None:
    result = in_one_process(setting, RUNS.get(setting.name, 50), slack=SLACK)

    assert [claim for claim, holds in result["claims"].items() if not holds] == []


@pytest.mark.timeout(900)  # the first time, the packages' environment is made
@pytest.mark.parametrize("name", ["agreement-returning-zipf-0.6-icc-0.3", "agreement-lognormal-returning"])
def test_independent_packages_agree(name: str) -> None:
    (setting,) = (one for one in SETTINGS if one.name == name)

    result = in_one_process(setting, 2, slack=0.0)

    assert result["claims"]
    assert [claim for claim, holds in result["claims"].items() if not holds] == []
