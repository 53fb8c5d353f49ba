"""The story of `make e2e`: which steps are done, in which order, and how they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.errors import NotSeen, Usage
from e2e.story import Chapter, Ended, Outcome, Seen, Step, Teller, chosen, names_of, play, summary, write_result

from e2e import plan

Log = list[str]


def _step(name: str, *needs: str, fails: str = "", always: bool = False) -> Step[Log]:
    def run(log: Log) -> Seen:
        log.append(name)
        if fails:
            raise NotSeen(fails)
        return Seen(f"{name} was seen", {"count": 1})

    return Step(name, f"what {name} does", run, needs, always)


STORY: tuple[Chapter[Log], ...] = (
    (_step("up", always=True),),
    (_step("install", "up"),),
    (_step("serve", "install"), _step("test", "install")),
    (_step("break", "serve"),),
)


def _teller(lines: list[str], now: Callable[[], float] = lambda: 0.0) -> Teller:
    return Teller(total=4, write=lines.append, now=now)


def test_a_run_is_every_step_in_order() -> None:
    log: Log = []
    ends = play(chosen(STORY), log, _teller([]))
    assert [end.name for end in ends] == ["up", "install", "serve", "test", "break"]
    assert {end.outcome for end in ends} == {Outcome.PASSED}
    assert sorted(log) == sorted(names_of(STORY))


def test_a_run_that_starts_later_does_what_others_stand_on_and_no_step_before() -> None:
    assert names_of(chosen(STORY, start="test")) == ["up", "serve", "test", "break"]
    assert names_of(chosen(STORY, only=["break"])) == ["up", "break"]
    assert names_of(chosen(STORY, start="break", only=["serve"])) == ["up"]


def test_a_step_that_is_not_there_is_named() -> None:
    with pytest.raises(Usage, match="nothing: no such step; there are up, install"):
        chosen(STORY, start="nothing")
    with pytest.raises(Usage, match="a, b: no such step"):
        chosen(STORY, only=["a", "serve", "b"])


def test_what_needs_a_failed_step_is_not_run_and_the_rest_is() -> None:
    story = ((_step("up"),), (_step("serve", "up", fails="no pod"), _step("test", "up")), (_step("break", "serve"),))
    lines: list[str] = []
    ends = {end.name: end for end in play(story, [], _teller(lines))}
    assert {name: end.outcome.value for name, end in ends.items()} == {
        "up": "passed",
        "serve": "failed",
        "test": "passed",
        "break": "not run",
    }
    assert (ends["serve"].problem, ends["break"].problem) == ("no pod", "needs serve")
    assert summary(list(ends.values()), 12.34) == "2 passed, 1 failed, 1 not run in 12.3 s"


def test_steps_of_a_chapter_run_side_by_side() -> None:
    both = threading.Barrier(2)

    def meet(_: Log) -> Seen:
        both.wait(timeout=30)
        return Seen("met")

    ends = play(((Step("one", "", meet), Step("other", "", meet)),), [], _teller([]))
    assert [end.outcome for end in ends] == [Outcome.PASSED, Outcome.PASSED]


def test_an_interrupt_waits_for_no_step_beside_the_one_that_it_hit() -> None:
    go_on = threading.Event()

    def interrupted(_: Log) -> Seen:
        raise KeyboardInterrupt

    def goes_on(_: Log) -> Seen:
        go_on.wait(timeout=60)
        return Seen("went on")

    try:
        with pytest.raises(KeyboardInterrupt):
            play(((Step("one", "", interrupted), Step("other", "", goes_on)),), [], _teller([]))
    finally:
        go_on.set()


def test_an_unforeseen_error_fails_its_step_and_tells_where_it_was() -> None:
    def stumble(_: Log) -> Seen:
        raise KeyError("status")

    (ended,) = play(((Step("one", "", stumble),),), [], _teller([]))
    assert ended.outcome is Outcome.FAILED
    assert "in stumble" in ended.problem


def test_the_story_says_step_time_and_what_was_seen() -> None:
    lines: list[str] = []
    clock = iter([0.0, *(float(second) for second in range(1, 50))])
    play(((_step("up"),), (_step("serve", fails="first line\nsecond line"),)), [], _teller(lines, lambda: next(clock)))
    assert lines[0].endswith("… up: what up does")
    assert "1/4  up" in lines[1]
    assert lines[1].endswith("s  up was seen")
    assert "2/4  serve" in lines[3]
    assert lines[3].splitlines()[0].endswith("FAILED: first line")
    assert lines[3].splitlines()[1].strip() == "second line"


def test_a_wait_is_told_from_time_to_time_and_once() -> None:
    now_s = [0.0]
    lines: list[str] = []
    teller = _teller(lines, lambda: now_s[0])
    for at_s, what in ((1, "a"), (6, "a"), (7, "b"), (12, "b"), (18, "b")):
        now_s[0] = at_s
        teller.waits("serve", what)
    assert [line.split("s      ")[1] for line in lines] == ["serve: a", "serve: b"]


def test_results_are_written_for_programs(tmp_path: Path) -> None:
    ended = Ended("up", Outcome.PASSED, 1.26, Seen("a node", {"pods": 3}))
    write_result(tmp_path / "new/result.json", [ended], cluster="bundled")
    written = json.loads((tmp_path / "new/result.json").read_text())
    step = {"name": "up", "outcome": "passed", "seconds": 1.3, "seen": "a node", "figures": {"pods": 3}, "problem": ""}
    assert written == {"cluster": "bundled", "steps": [step]}


def test_every_step_of_the_real_story_needs_only_what_comes_before() -> None:
    done: set[str] = set()
    whole = (*plan.BEGINNING, *plan.story(with_kafka=True))
    for chapter in whole:
        for step in chapter:
            assert set(step.needs) <= done, step.name
            assert step.title
        done |= set(names_of([chapter]))
    names = names_of(whole)
    assert len(names) == len(set(names))
    assert set(names) - set(names_of(plan.story(with_kafka=False))) == {"cluster", "kafka"}
