"""What servers are told and remember: valid files alone, and verified headers while their keys are known."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from fairlead.assignment import Layout
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.route import ExperimentRoute, RouteError, RouteKey
from fairlead_server.exposure.keys import FILE_NAME, RouteKeys
from fairlead_server.exposure.routes import KnownRoutes
from fairlead_server.exposure.told import ToldFeedback

KEY, OTHER = RouteKey("k1", bytes(16)), RouteKey("k2", bytes(range(16)))
ROUTE = ExperimentRoute(
    "flights/delay/1", 0, "delay-boosted-1", "boosted", Layout.of("boosted", {}), "header:x-unit-id"
)
FEEDBACK = Feedback("http://ledger", KeyRing((SigningKey("k1", b"\xab" * 16),), bytes(16)), "server.t0psecret")


class Seconds:
    """A monotonic clock that goes on a second each time it is looked at."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def write_keys(folder: Path, *keys: RouteKey) -> None:
    listed = ", ".join(f'{{"id": "{key.id}", "secret": "{key.secret.hex()}"}}' for key in keys)
    (folder / FILE_NAME).write_text(f'{{"keys": [{listed}]}}')


def test_feedback_that_is_not_valid_leaves_what_was_told_before_and_is_logged_without_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = ToldFeedback(tmp_path, Seconds())
    assert told.current() is None
    (tmp_path / FEEDBACK_FILE).write_text(FEEDBACK.dumped())
    assert told.current() == FEEDBACK
    version = told.version
    (tmp_path / FEEDBACK_FILE).write_text(FEEDBACK.dumped().replace("http://", "nowhere://"))
    assert told.current() == FEEDBACK
    assert told.version == version
    assert "feedback.json: ledger:" in caplog.text
    (tmp_path / FEEDBACK_FILE).unlink()
    assert told.current() is None
    assert told.version > version
    assert "t0psecret" not in caplog.text
    assert "ab" * 16 not in caplog.text


def test_a_header_is_verified_once_while_the_keys_stay(tmp_path: Path) -> None:
    write_keys(tmp_path, KEY)
    routes = KnownRoutes(RouteKeys(tmp_path, Seconds()))
    header = ROUTE.sign(KEY)
    known = routes.find(header)
    assert known.route == ROUTE
    assert routes.find(header) is known


def test_a_header_does_not_outlive_its_key(tmp_path: Path) -> None:
    write_keys(tmp_path, KEY, OTHER)
    routes = KnownRoutes(RouteKeys(tmp_path, Seconds()))
    header = ROUTE.sign(KEY)
    routes.find(header)
    write_keys(tmp_path, OTHER)
    with pytest.raises(RouteError, match="unknown key"):
        routes.find(header)
    assert routes.find(ROUTE.sign(OTHER)).route == ROUTE


def test_headers_used_longest_ago_are_forgotten_and_forgeries_push_nothing_out(tmp_path: Path) -> None:
    write_keys(tmp_path, KEY)
    routes = KnownRoutes(RouteKeys(tmp_path, Seconds()))
    kept, old = ROUTE.sign(KEY), replace(ROUTE, phase=1).sign(KEY)
    first, second = routes.find(kept), routes.find(old)
    for phase in range(2, 300):
        routes.find(replace(ROUTE, phase=phase).sign(KEY))
        assert routes.find(kept) is first
        with pytest.raises(RouteError):
            routes.find(f"v1.k1.forged.{phase}")
    assert routes.find(old) is not second
    assert routes.find(old) == routes.find(old)
