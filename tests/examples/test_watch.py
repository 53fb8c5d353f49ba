"""What the demo reads out of a published status, and when it lets time go on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flights.watch import Watch

PAGE = "http://127.0.0.1:4711/experiments/flights/arrival-delay/e1"


def published(file: Path, **status: Any) -> Watch:
    """Publish a status as `fairlead up` does: whole, in one step."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"status": status}))
    fresh.replace(file)
    return Watch(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "status.json"


def test_before_anything_is_published_nothing_is_known(file: Path) -> None:
    watch = Watch(file)
    assert (watch.status, watch.ledger, watch.decision) == ({}, None, None)
    assert not watch.is_observed
    assert not watch.is_settled


@pytest.mark.parametrize(
    ("state", "observing", "may_go_on"),
    [
        ("Pending", False, False),
        ("Deploying", True, False),
        ("Ramping", True, True),
        ("Ramping", False, False),
        ("Deciding", False, False),
        ("Promoting", False, True),
        ("Stable", False, True),
    ],
)
def test_time_waits_while_a_split_is_not_observed(file: Path, state: str, *, observing: bool, may_go_on: bool) -> None:
    watch = published(file, rollout={"state": state}, experiment={"observing": observing, "page": PAGE})
    assert watch.is_observed is may_go_on
    assert watch.ledger == "http://127.0.0.1:4711"


def test_a_decision_is_settled_once_it_is_in_force_and_on_record(file: Path) -> None:
    decision = {"verdict": "Promote", "reason": "Superior", "variant": "boosted"}
    watch = published(file, rollout={"state": "Promoting", "decision": {**decision, "record": "http://r"}})
    assert not watch.is_settled
    assert watch.line == "Promote (Superior)"
    published(file, rollout={"state": "Stable", "decision": decision})
    assert not watch.is_settled
    published(file, rollout={"state": "Stable", "decision": {**decision, "record": "http://r"}})
    assert watch.is_settled


async def test_waiting_ends_when_it_comes_about_or_not_in_time(file: Path) -> None:
    watch = Watch(file)
    asking = asyncio.create_task(watch.until(lambda: watch.ledger is not None, 30))
    published(file, experiment={"page": PAGE})
    assert await asking
    assert not await watch.until(lambda: watch.is_settled, 0.01)
