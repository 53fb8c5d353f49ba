"""Sums over units: what they are, that they add up, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fairlead.experiment.errors import UnfitEvidence
from fairlead.experiment.evidence import ArmEvidence, Evidence, FirstValues, PhaseEvidence, Sums, Tail
from fairlead.experiment.sums import Array, Moments, tempered

RNG = np.random.Generator(np.random.Philox(7))


def draw(units: int, *, seed: int = 1, level: float = 0.3) -> tuple[Array, Array, Array]:
    rng = np.random.Generator(np.random.Philox(seed))
    n = np.minimum(rng.zipf(1.6, units), 50).astype(np.float64)
    covariate = rng.normal(1e6, 3.0, units)
    x = n * (level + 0.1 * rng.normal(size=units) + 0.01 * (covariate - 1e6))
    return n, x, covariate


def close(mine: Sums, other: Sums, tolerance: float = 1e-9) -> None:
    for name, value in mine.model_dump(exclude_none=True).items():
        theirs = other.model_dump()[name]
        pairs = [(value, theirs)] if not isinstance(value, dict) else [(value[k], theirs[k]) for k in value]
        for one, two in pairs:
            scale = abs(mine.x) + mine.n + abs(mine.n4)
            assert one == pytest.approx(two, rel=tolerance, abs=tolerance * scale), name


def test_sums_are_what_their_names_say() -> None:
    n, x = np.array([1.0, 2.0, 3.0, 0.0]), np.array([1.0, 1.0, 4.0, 0.0])
    sums = Sums.of(n, x)
    d = (x - 1.0 * n)[:3]
    assert (sums.units, sums.n, sums.x, sums.ratio) == (3, 6.0, 6.0, 1.0)
    assert sums.nn == 14.0
    assert sums.dd == pytest.approx((d**2).sum())
    assert sums.dn == pytest.approx((d * n[:3]).sum())
    assert sums.d3n == pytest.approx((d**3 * n[:3]).sum())
    assert sums.d4 == pytest.approx((d**4).sum())


@settings(max_examples=60, deadline=None)
@given(units=st.integers(0, 60), cut=st.integers(0, 60), seed=st.integers(0, 1000), level=st.floats(-1e3, 1e3))
def test_parts_add_up_to_the_whole(units: int, cut: int, seed: int, level: float) -> None:
    n, x, covariate = draw(units, seed=seed, level=level)
    parts = Sums.of(n[:cut], x[:cut], covariate[:cut]) + Sums.of(n[cut:], x[cut:], covariate[cut:])
    close(parts, Sums.of(n, x, covariate), 1e-7)


def test_order_of_adding_does_not_matter() -> None:
    parts = [Sums.of(*draw(40, seed=seed, level=seed)) for seed in range(5)]
    forth = sum(parts[1:], parts[0])
    back = sum(parts[-2::-1], parts[-1])
    close(forth, back)


def test_nothing_is_lost_where_the_spread_is_small_beside_the_mean() -> None:
    n = np.ones(1000)
    x = 1e8 + RNG.normal(size=1000)
    halves = Sums.of(n[:500], x[:500]) + Sums.of(n[500:], x[500:])
    d = x - x.mean()
    assert halves.d4 == pytest.approx((d**4).sum(), rel=1e-6)
    assert halves.dd == pytest.approx((d**2).sum(), rel=1e-6)


def test_sums_about_any_centre_come_to_the_same() -> None:
    n, x, _ = draw(500)
    centre = 0.25
    d = x - centre * n
    powers = {"nn": n**2, "dn": d * n, "dd": d**2, "n4": n**4, "dn3": d * n**3, "d2n2": d**2 * n**2, "d3n": d**3 * n}
    moments = Moments.about(
        centre,
        units=500.0,
        n=n.sum(),
        d=d.sum(),
        **{name: each.sum() for name, each in powers.items()},
        d4=(d**4).sum(),
    )
    close(Sums.from_moments(moments), Sums.of(n, x))


def test_arrays_keep_their_shape() -> None:
    n, x = np.ones((3, 2, 50)), RNG.normal(size=(3, 2, 50))
    moments = Moments.of(n, x)
    assert moments.dd.shape == (3, 2)
    assert moments.d4[1, 1] == pytest.approx(Moments.of(n[1, 1], x[1, 1]).d4)


@pytest.mark.parametrize(
    ("n", "x"), [([1.0], [np.nan]), ([-1.0], [0.0]), ([0.0], [1.0]), ([1.0, 2.0], [1.0]), ([np.inf], [1.0])]
)
def test_what_no_units_can_be_is_refused(n: list[float], x: list[float]) -> None:
    with pytest.raises(UnfitEvidence):
        Sums.of(n, x)


def test_values_too_large_to_be_squared_twice_are_refused() -> None:
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(UnfitEvidence, match="too large"):
        Sums.of([1.0, 1.0], [1e200, -1e200])


@pytest.mark.parametrize(
    "wrong",
    [{"dd": -1.0}, {"d4": float("nan")}, {"units": 0}, {"dd": 1e6}, {"x": float("inf")}, {"surplus": 1}],
)
def test_sums_that_no_units_have_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sums(**{**Sums.of(*draw(20)[:2]).model_dump(), **wrong})


def test_evidence_survives_json() -> None:
    arm = ArmEvidence(
        first_exposures=3,
        metrics={"brier": Sums.of(*draw(30))},
        first_values={"error": FirstValues(units=3, total=1.0)},
        tails={"p99": (Tail(edge=4, sums=Sums.of(*draw(5)[:2])),)},
        left_out={"override": 2},
    )
    phase = PhaseEvidence(number=0, started_us=5, arms={"logistic": arm})
    evidence = Evidence(salt="ns/name/e1", phases=(phase,))
    again = Evidence.model_validate_json(evidence.model_dump_json())
    assert again == evidence
    assert json.loads(again.model_dump_json()) == json.loads(evidence.model_dump_json())


def test_arms_add_up() -> None:
    n, x, covariate = draw(60)
    one, two = (
        ArmEvidence(
            units=30,
            metrics={"brier": Sums.of(n[part], x[part], covariate[part])},
            left_out={"override": 1},
            first_values={"error": FirstValues(units=30, total=2)},
        )
        for part in (slice(0, 30), slice(30, 60))
    )
    both = one + two + ArmEvidence(units=1, left_out={"late": 3})
    assert both.units == 61
    assert both.left_out == {"override": 2, "late": 3}
    assert both.first_values["error"] == FirstValues(units=60, total=4)
    close(both.metrics["brier"], Sums.of(n, x, covariate), 1e-7)


def test_tails_of_other_edges_do_not_add_up() -> None:
    sums = Sums.of([1.0], [0.0])
    one, two = (ArmEvidence(tails={"p99": (Tail(edge=edge, sums=sums),)}) for edge in (1, 2))
    with pytest.raises(UnfitEvidence, match="edges"):
        _ = one + two


def test_phases_are_in_order_and_once() -> None:
    phase = PhaseEvidence(number=1, started_us=0, arms={})
    with pytest.raises(ValidationError, match="in order"):
        Evidence(salt="ns/name/e1", phases=(phase, phase))


def test_a_tempered_unit_keeps_its_mean() -> None:
    n, x = tempered([10.0, 400.0, 0.0], [5.0, 100.0, 0.0], most=50)
    assert n.tolist() == [10.0, 50.0, 0.0]
    assert x.tolist() == [5.0, 12.5, 0.0]


def test_what_is_told_needs_no_scipy() -> None:
    """The operator and the model server read and write these, and have none in their images."""
    modules = ("design", "decision", "evidence", "report", "tail", "words")
    program = "import sys\n" + "".join(f"import fairlead.experiment.{name}\n" for name in modules)
    subprocess.run([sys.executable, "-c", program + "sys.exit('scipy' in sys.modules)"], check=True, timeout=120)
