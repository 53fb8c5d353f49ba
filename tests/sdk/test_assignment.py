"""Behaviour first: each test name is a sentence about the law; properties before examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.assignment import BUCKETS, Layout, LayoutError, assign, bucket_of

weights = st.integers(0, BUCKETS // 3)


@given(unit=st.text(), before=st.tuples(weights, weights, weights), grown=st.integers(0, 2), to=weights)
def test_raising_one_treatment_moves_units_only_from_control_into_it(
    unit: str, before: tuple[int, int, int], grown: int, to: int
) -> None:
    names = ("a", "b", "c")
    after = list(before)
    after[grown] = max(before[grown], to)
    old = assign(unit, "ns/model/e1", Layout.of("control", dict(zip(names, before, strict=True))))
    new = assign(unit, "ns/model/e1", Layout.of("control", dict(zip(names, after, strict=True))))
    assert new == old or (old == "control" and new == names[grown])


@given(before=st.tuples(weights, weights, weights))
def test_a_layout_covers_every_bucket_once(before: tuple[int, int, int]) -> None:
    layout = Layout.of("control", dict(zip("abc", before, strict=True)))
    assert sum(s.width for s in layout.slices) == BUCKETS


def test_a_known_unit_keeps_its_bucket_for_ever() -> None:
    assert bucket_of("user-0", "kspike/churn/e1") == 8131


def test_a_weight_larger_than_its_slot_is_refused_with_the_limit() -> None:
    with pytest.raises(LayoutError, match=r"b: weight 5001 is outside 0\.\.5000"):
        Layout.of("control", {"a": 0, "b": 5001})
