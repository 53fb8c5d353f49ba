"""An exposure is counted only for a verified header of this revision whose unit the law puts in this arm."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fairlead import route
from fairlead.assignment import Layout, assign
from fairlead.route import EXPERIMENT_HEADER, ExperimentRoute, RouteKey
from fairlead_server.exposure.experiment import ExperimentReader, Outcome, joined, unit_digest
from fairlead_server.exposure.keys import RouteKeys
from fairlead_server.metrics import ServerMetrics

KEY = RouteKey("k1", bytes(range(16)))
OTHER = RouteKey("k2", bytes(range(16, 48)))
LAYOUT = Layout.of("logistic", {"boosted": 5000})
UNIT = next(f"N{i}" for i in range(100) if assign(f"N{i}", "flights/arrival-delay/e1", LAYOUT) == "boosted")
ROUTE = ExperimentRoute(
    salt="flights/arrival-delay/e1",
    phase=0,
    revision="boosted-6f1c9d",
    variant="boosted",
    layout=LAYOUT,
    unit_source="header:x-unit-id",
)


class Seconds:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _write_keys(folder: Path, *keys: RouteKey) -> None:
    content = {"keys": [{"id": key.id, "secret": key.secret.hex()} for key in keys]}
    fresh = folder / "route-keys.json.new"
    fresh.write_text(json.dumps(content))
    fresh.replace(folder / "route-keys.json")


def judged(reader: ExperimentReader, headers: Mapping[str, str]) -> Outcome:
    """Judge and count, as for a request that was answered."""
    judgement = reader.judge(headers)
    reader.count(judgement)
    return judgement.outcome


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def reader(tmp_path: Path, registry: CollectorRegistry) -> ExperimentReader:
    _write_keys(tmp_path, KEY, OTHER)
    metrics = ServerMetrics(registry).of(model="arrival-delay", variant="boosted")
    return ExperimentReader(RouteKeys(tmp_path), "boosted-6f1c9d", metrics)


def _headers(route: ExperimentRoute = ROUTE, key: RouteKey = KEY, unit: str | None = UNIT) -> dict[str, str]:
    return {EXPERIMENT_HEADER: route.sign(key)} | ({} if unit is None else {"x-unit-id": unit})


def _forged(**fields: object) -> dict[str, str]:
    """Change the signed payload and keep the signature."""
    version, key_id, payload, mac = ROUTE.sign(KEY).split(".")
    content = json.loads(base64.urlsafe_b64decode(payload + "==")) | fields
    changed = base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
    return {EXPERIMENT_HEADER: f"{version}.{key_id}.{changed}.{mac}", "x-unit-id": UNIT}


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        (_headers(), Outcome.EXPOSED),
        (_headers(key=OTHER), Outcome.EXPOSED),
        ({"x-unit-id": UNIT}, Outcome.NONE),
        ({}, Outcome.NONE),
        (_headers(replace(ROUTE, revision="logistic-91ab07")), Outcome.SHADOW),
        (_headers(replace(ROUTE, variant="logistic")), Outcome.MISMATCH),
        (_headers(key=RouteKey("k3", bytes(16))), Outcome.UNVERIFIED),
        (_headers(key=RouteKey("k1", bytes(16))), Outcome.UNVERIFIED),
        (_forged(r="boosted-6f1c9d", v="logistic"), Outcome.UNVERIFIED),
        (_forged(s="flights/arrival-delay/e2"), Outcome.UNVERIFIED),
        ({EXPERIMENT_HEADER: "", "x-unit-id": UNIT}, Outcome.UNVERIFIED),
        ({EXPERIMENT_HEADER: "v1.k1..", "x-unit-id": UNIT}, Outcome.UNVERIFIED),
        ({EXPERIMENT_HEADER: "\u00ff.\u20ac.x.\u00ff", "x-unit-id": UNIT}, Outcome.UNVERIFIED),
        (_headers(unit=None), Outcome.UNVERIFIED),
        (_headers(unit=""), Outcome.UNVERIFIED),
        (_headers(unit="a,b"), Outcome.UNVERIFIED),
        (_headers(unit=" a"), Outcome.UNVERIFIED),
        (_headers(unit="u" * 257), Outcome.UNVERIFIED),
        (_headers(replace(ROUTE, unit_source="cookie:uid")), Outcome.UNVERIFIED),
        (_headers(replace(ROUTE, unit_source="cookie:uid")) | {"cookie": f"a=b; uid={UNIT}; c=d"}, Outcome.EXPOSED),
        (_headers(replace(ROUTE, unit_source="cookie:uid")) | {"cookie": f"uid=x; uid={UNIT}"}, Outcome.EXPOSED),
        (_headers(replace(ROUTE, unit_source="cookie:uid")) | {"cookie": f"xuid={UNIT}"}, Outcome.UNVERIFIED),
        (_headers(replace(ROUTE, unit_source="cookie:uid")) | {"cookie": "uid="}, Outcome.UNVERIFIED),
    ],
)
def test_headers_come_to_an_outcome_that_is_counted(
    reader: ExperimentReader, registry: CollectorRegistry, headers: Mapping[str, str], outcome: Outcome
) -> None:
    assert judged(reader, headers) is outcome
    labels = {"model": "arrival-delay", "variant": "boosted", "outcome": outcome.value}
    assert registry.get_sample_value("fairlead_exposures_total", labels) == 1


@given(value=st.text(max_size=80), unit=st.text(max_size=20))
def test_no_made_up_header_exposes_anything(value: str, unit: str) -> None:
    metrics = ServerMetrics(CollectorRegistry()).of(model="m", variant="v")
    reader = ExperimentReader(RouteKeys(None), "boosted-6f1c9d", metrics)
    assert reader.judge({EXPERIMENT_HEADER: value, "x-unit-id": unit}).outcome is Outcome.UNVERIFIED


def test_a_signed_payload_of_another_version_is_not_verified(reader: ExperimentReader) -> None:
    head = f"v1.{KEY.id}.{route._encode(b'{}')}"
    header = f"{head}.{route._encode(route._mac(head, KEY.secret))}"
    assert reader.judge({EXPERIMENT_HEADER: header, "x-unit-id": UNIT}).outcome is Outcome.UNVERIFIED


def test_headers_given_twice_are_one_value_with_a_comma() -> None:
    assert joined([("a", "1"), ("b", "2"), ("a", "1"), ("a", "")]) == {"a": "1,1,", "b": "2"}


def test_a_unit_is_judged_by_its_bytes(reader: ExperimentReader) -> None:
    """Web frameworks decode header bytes as latin-1; the gateway hashed the bytes."""
    unit = next(f"é{i}" for i in range(100) if assign(f"é{i}", ROUTE.salt, LAYOUT) == "boosted")
    as_received = unit.encode().decode("latin-1")
    assert reader.judge(_headers(unit=as_received)).outcome is Outcome.EXPOSED


def test_a_judgement_and_its_log_carry_the_units_digest_never_the_unit(
    reader: ExperimentReader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    found = reader.judge(_headers(replace(ROUTE, variant="logistic"), unit="N14228-secret"))
    assert found.unit == unit_digest(b"N14228-secret", ROUTE.salt)
    assert found.unit_digest is not None
    assert found.unit_digest in caplog.text
    assert "N14228-secret" not in caplog.text
    assert "N14228-secret" not in repr(found)


def test_a_digest_is_the_same_in_an_experiment_and_another_in_the_next() -> None:
    assert unit_digest(b"u", "ns/m/e1") == unit_digest(b"u", "ns/m/e1") != unit_digest(b"u", "ns/m/e2")


def test_keys_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    clock = Seconds()
    keys = RouteKeys(tmp_path, clock)
    assert keys.current() == {}
    _write_keys(tmp_path, KEY)
    assert keys.current() == {}
    clock.now_s = 1.0
    assert keys.current() == {"k1": KEY}
    _write_keys(tmp_path, KEY, OTHER)
    clock.now_s = 2.0
    assert keys.current() == {"k1": KEY, "k2": OTHER}
    (tmp_path / "route-keys.json").unlink()
    clock.now_s = 3.0
    assert keys.current() == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"keys": 1}',
        '{"keys": [{"id": "k1", "secret": "00"}]}',
        '{"keys": [{"id": "K", "secret": "00"}]}',
    ],
)
def test_a_file_that_is_not_valid_leaves_the_keys_as_they_were(tmp_path: Path, content: str) -> None:
    clock = Seconds()
    _write_keys(tmp_path, KEY)
    keys = RouteKeys(tmp_path, clock)
    assert keys.current() == {"k1": KEY}
    (tmp_path / "route-keys.json").write_text(content)
    clock.now_s = 1.0
    assert keys.current() == {"k1": KEY}


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    clock = Seconds()
    _write_keys(tmp_path, KEY)
    keys = RouteKeys(tmp_path, clock)
    before = keys.current()
    os.utime(tmp_path, None)
    clock.now_s = 5.0
    assert keys.current() is before
