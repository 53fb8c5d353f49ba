"""Fuzzing's own parts, and every input that once broke something or that searches begin with."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.findings import Cause
from fuzz.inside import require_no_failure, run
from fuzz.mutate import pieces
from fuzz.rig import Rig, Unforeseen
from fuzz.targets import TARGETS, kept

from fuzz import seeds

INPUTS = [(target, name) for target in TARGETS for name in (*seeds.of(target), *kept(target))]
CHANGED = 25


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 -- changes, no secrets


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    uvicorn = logging.getLogger("uvicorn.error")
    level = uvicorn.level
    uvicorn.setLevel(logging.CRITICAL)
    made = Rig(tmp_path_factory.mktemp("models"))
    yield made
    made.close()
    uvicorn.setLevel(level)


@pytest.mark.parametrize(("target", "name"), INPUTS)
def test_what_searches_begin_with_and_what_was_once_found_does_no_harm(rig: Rig, target: str, name: str) -> None:
    run(rig, target, (dict(seeds.of(target)) | dict(kept(target)))[name])


@pytest.mark.parametrize("target", TARGETS)
def test_a_little_search_finds_nothing(rig: Rig, target: str) -> None:
    chance = _chance(7)
    known = list(seeds.of(target).values())
    for _ in range(CHANGED):
        run(rig, target, TARGETS[target].mutate(chance, chance.choice(known)))


def test_seeds_are_answered_and_not_only_refused(rig: Rig) -> None:
    body = seeds.of("v2-json")["kinds"]
    assert rig.run(rig.strictly("/v2/models/kinds/infer", body)).status == 200


@pytest.mark.parametrize("target", TARGETS)
def test_changes_depend_on_chance_alone(target: str) -> None:
    seed = next(iter(seeds.of(target).values()))
    first, second = (TARGETS[target].mutate(_chance(3), seed) for _ in range(2))
    assert first == second


def test_pieces_are_the_whole() -> None:
    data = _chance(1).randbytes(300)
    assert all(b"".join(pieces(data, seed)) == data for seed in range(20))


def test_a_wrong_answer_an_error_logged_and_a_raising_callback_are_findings(rig: Rig) -> None:
    with pytest.raises(Unforeseen, match="500 Internal"):
        require_no_failure(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 500 Internal Server Error\r\n\r\n")
    logging.getLogger("fairlead_server.protocol").error("request failed")
    with pytest.raises(Unforeseen, match="request failed"):
        rig.require_calm()
    rig.loop.call_soon(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        rig.run(rig.strictly("/v2", b""))


def test_findings_of_one_cause_are_one(tmp_path: Path) -> None:
    first, second = (Cause.of(Unforeseen(f"row {row} is wrong at {tmp_path.name[:0]}")) for row in (1, 22))
    assert first == second
