"""The experiment header: what a route signs, a server believes, and nothing else."""

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.assignment import BUCKETS, Layout
from fairlead.route import UNIT_PATTERN, ExperimentRoute, RouteError, RouteKey, verify

KEY = RouteKey("k1", b"0123456789abcdef")
OTHER = RouteKey("k2", b"fedcba9876543210")
KEYS = {"k1": KEY}

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
routes = st.builds(
    ExperimentRoute,
    salt=st.builds(lambda *parts: "/".join(parts), names, names, names),
    phase=st.integers(0, 20),
    revision=names,
    variant=names,
    layout=st.builds(lambda weight: Layout.of("control", {"boosted": weight}), st.integers(0, BUCKETS)),
    unit_source=st.just("header:x-unit-id"),
)
ROUTE = ExperimentRoute(
    "flights/arrival-delay/e1", 0, "boosted-1", "boosted", Layout.of("logistic", {"boosted": 10}), "header:x-unit-id"
)


@given(route=routes)
def test_what_was_signed_is_what_is_read(route: ExperimentRoute) -> None:
    assert verify(route.sign(KEY), KEYS) == route


@given(route=routes)
def test_the_header_is_one_printable_token(route: ExperimentRoute) -> None:
    value = route.sign(KEY)
    assert value.isascii()
    assert value.isprintable()
    assert not set(value) & set(' ,;"\\')


@given(route=routes, data=st.data())
def test_changing_any_character_breaks_the_header(route: ExperimentRoute, data: st.DataObject) -> None:
    value = route.sign(KEY)
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != value[at]))
    with pytest.raises(RouteError):
        verify(value[:at] + other + value[at + 1 :], KEYS)


@given(text=st.text(max_size=200))
def test_no_text_but_a_signed_one_is_believed(text: str) -> None:
    with pytest.raises(RouteError):
        verify(text, KEYS)


def test_a_header_of_another_key_is_refused_by_reason() -> None:
    with pytest.raises(RouteError, match="unknown key"):
        verify(ROUTE.sign(OTHER), KEYS)


def test_a_key_under_anothers_name_does_not_verify() -> None:
    with pytest.raises(RouteError, match="signature differs"):
        verify(ROUTE.sign(RouteKey("k1", OTHER.secret)), KEYS)


def test_both_keys_verify_while_they_rotate() -> None:
    both = {"k1": KEY, "k2": OTHER}
    assert verify(ROUTE.sign(KEY), both) == verify(ROUTE.sign(OTHER), both) == ROUTE


def test_an_error_never_repeats_the_header() -> None:
    value = ROUTE.sign(OTHER)
    with pytest.raises(RouteError) as caught:
        verify(value, KEYS)
    assert value.split(".")[2] not in str(caught.value)


def test_a_signed_layout_that_leaves_buckets_out_is_refused() -> None:
    short = ExperimentRoute("s", 0, "r", "v", Layout(Layout.of("c", {"t": 5}).slices[:1]), "u")
    with pytest.raises(RouteError, match="10000 buckets"):
        verify(short.sign(KEY), KEYS)


def test_the_payload_is_canonical_json_that_others_can_read() -> None:
    payload = ROUTE.sign(KEY).split(".")[2]
    fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert fields == {
        "s": "flights/arrival-delay/e1",
        "p": 0,
        "r": "boosted-1",
        "v": "boosted",
        "a": [["boosted", 10], ["logistic", 9990]],
        "u": "header:x-unit-id",
    }


@pytest.mark.parametrize("unit", ["N14228", "a", "ä b", "x" * 256, "tab\tinside"])
def test_a_unit_matches_its_pattern(unit: str) -> None:
    assert re.fullmatch(UNIT_PATTERN, unit)


@pytest.mark.parametrize("unit", ["", " a", "a ", "a,b", ",", "x" * 257, "\ta"])
def test_what_is_no_unit_does_not_match(unit: str) -> None:
    assert not re.fullmatch(UNIT_PATTERN, unit)


def test_a_key_does_not_show_its_secret() -> None:
    assert "63616e617279" not in repr(RouteKey("k1", bytes.fromhex("63616e617279")))
    assert "canary" not in repr(RouteKey("k1", b"canary"))
