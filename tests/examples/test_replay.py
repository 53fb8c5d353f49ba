"""The replay against a real HTTP server: order of publishing, time and requests; losses counted, never hidden."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from aiohttp import ClientSession, web

from fairlead.assignment import Layout, assign
from fairlead.clock import ReplayClock, ReplayClockWriter
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.token import Context, mint
from flights.law import Law, obedience
from flights.outcomes import Outcomes, OutcomesNotTold, Told
from flights.replay import HOUR_US, Answers, Replay
from flights.report import ArmReport, Conclusion, Report, as_table, report
from flights.traffic import NEVER_US, Asks, Pace

LAYOUT = Layout.of("logistic", {"boosted": 5000})
SALT = "flights/arrival-delay/e1"
ROOT = KeyRing((SigningKey("k1", b"s" * 16),), b"u" * 16)
STEPS = (Layout.of("logistic", {"boosted": 1000}), LAYOUT)


def some_asks() -> Asks:
    bodies = tuple(orjson.dumps({"instances": [{"tailnum": f"N{i}"}]}) for i in range(6))
    return Asks(
        flight_id=np.arange(6),
        asked_us=np.array([100, 100, 200, 200, 200, 300]),
        landed_us=np.array([150, 250, 350, NEVER_US, 900, 320]),
        late=np.array([1, 0, 1, 0, 0, 1], dtype=np.int8),
        units=("N0", "N1", "N2", "N3", None, "N5"),
        bodies=bodies,
    )


class Gateway:
    """A server that answers by the assignment law, and notes the simulated time of each request."""

    def __init__(self, clock: ReplayClock) -> None:
        self.clock = clock
        self.seen: list[tuple[int, str | None]] = []
        self.fail_unit: str | None = None
        self.untold_unit: str | None = None

    async def predict(self, request: web.Request) -> web.Response:
        unit = request.headers.get("x-unit-id")
        self.seen.append((self.clock.now_us(), unit))
        if unit and unit == self.fail_unit:
            return web.Response(status=503, text="down")
        arm = assign(unit, SALT, LAYOUT) if unit else "logistic"
        states = {"tail_performance__flights_12h": ["PRESENT"]}
        answer = {"predictions": [{"probability_late": 0.25}], "parameters": {"feature_states": states}}
        told = {"x-prediction-id": f"token of {unit}"} if unit and unit != self.untold_unit else {}
        return web.json_response(answer, headers={"x-variant": arm, **told})


class Publishing:
    def __init__(self, clock: ReplayClock) -> None:
        self.clock = clock
        self.calls: list[tuple[int, int]] = []

    def publish_until(self, time_us: int) -> None:
        self.calls.append((time_us, self.clock.now_us()))


@pytest.fixture
def clock_file(tmp_path: Path) -> Path:
    ReplayClockWriter(tmp_path / "clock", start_us=50)
    return tmp_path / "clock"


@pytest.fixture
def clock(clock_file: Path) -> ReplayClockWriter:
    return ReplayClockWriter(clock_file)


@pytest.fixture
async def gateway(clock_file: Path) -> AsyncIterator[tuple[Gateway, str]]:
    gateway = Gateway(ReplayClock(clock_file))
    app = web.Application()
    app.router.add_post("/predict", gateway.predict)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield gateway, f"http://{host}:{port}/predict"
    await runner.cleanup()


async def replayed(url: str, clock: ReplayClockWriter, publisher: Publishing) -> Answers:
    replay = Replay(some_asks(), Pace(500, 0.002), url, "probability_late", publisher, clock)
    return await replay.run(end_us=1000)


def reported(answers: Answers, state: str = "PRESENT") -> Report:
    states = {"tail_performance__flights_12h": [state] * 6}
    expected = {"logistic": states, "boosted": states}
    return report(
        some_asks(),
        answers,
        law=Law(SALT, "logistic", (LAYOUT,)),
        expected_states=expected,
        seconds={"replay": 1.0},
        rate_per_s=500.0,
    )


async def test_features_are_committed_before_time_moves_and_time_moves_before_requests(
    gateway: tuple[Gateway, str], clock: ReplayClockWriter, clock_file: Path
) -> None:
    publisher = Publishing(ReplayClock(clock_file))
    await replayed(gateway[1], clock, publisher)
    assert publisher.calls == [(100, 50), (200, 100), (300, 200), (1000, 300)]
    assert [time_us for time_us, _ in gateway[0].seen] == some_asks().asked_us.tolist()


async def test_a_clean_replay_has_no_failures_and_labels_what_landed(
    gateway: tuple[Gateway, str], clock: ReplayClockWriter, clock_file: Path, tmp_path: Path
) -> None:
    answers = await replayed(gateway[1], clock, Publishing(ReplayClock(clock_file)))
    result = reported(answers)
    assert result.failures == []
    assert sum(arm.requests for arm in result.arms.values()) == 6
    assert sum(arm.labelled for arm in result.arms.values()) == 5
    assert sum(arm.units for arm in result.arms.values()) == 5
    result.write(tmp_path / "result.json")
    written = orjson.loads((tmp_path / "result.json").read_bytes())
    assert written["arms"]["boosted"]["states"]["STORE_ERROR"] == 0
    assert written["scenario"] == "default"
    assert as_table(result).row_count == 13


async def test_a_lost_request_is_counted_with_its_reason(
    gateway: tuple[Gateway, str], clock: ReplayClockWriter, clock_file: Path
) -> None:
    gateway[0].fail_unit = "N3"
    result = reported(await replayed(gateway[1], clock, Publishing(ReplayClock(clock_file))))
    assert result.lost == 1
    assert result.errors == {"503 down": 1}
    assert result.failures == ["1 requests lost"]


async def test_a_wrong_variant_or_state_is_a_failure(
    gateway: tuple[Gateway, str], clock: ReplayClockWriter, clock_file: Path
) -> None:
    answers = await replayed(gateway[1], clock, Publishing(ReplayClock(clock_file)))
    answers.variant = ["logistic" if v == "boosted" else "boosted" for v in answers.variant]
    result = reported(answers, state="STALE")
    assert result.mismatched_assignments == 6
    assert result.mismatched_states == 6
    assert len(result.failures) == 2


async def test_feature_values_that_the_store_owes_are_a_failure_beyond_a_few(
    gateway: tuple[Gateway, str], clock: ReplayClockWriter, clock_file: Path
) -> None:
    answers = await replayed(gateway[1], clock, Publishing(ReplayClock(clock_file)))
    states = answers.states[0] or {}
    answers.states[0] = dict.fromkeys(states, "STORE_ERROR")
    assert reported(answers).failures == ["1 feature values lost to store errors"]
    assert _bears(lost=1, values=1000)
    assert not _bears(lost=2, values=1000)


def _bears(*, lost: int, values: int) -> bool:
    """Return whether a report with so many store errors is sound."""
    arm = ArmReport(10, 10, None, None, 0, {"STORE_ERROR": lost, "PRESENT": values - lost}, 1.0, 1.0)
    return not Report("default", None, {}, 1.0, {"boosted": arm}, 0, (), 0, 0, 0, {}).failures


def token(unit: str, *, phase: int = 1, at_us: int = 100, layout: Layout = LAYOUT, root: KeyRing = ROOT) -> str:
    """Return the token of a unit's prediction, as a server that obeys the law answers it."""
    variant = assign(unit, SALT, layout)
    context = Context(SALT, phase, f"arrival-delay-{variant}-1", variant)
    ring = root.of("flights/arrival-delay")
    digest = ring.unit(unit.encode(), SALT)
    return mint(ring.signing[0], context.encoded(), unit=digest, time_us=at_us, rows=1, outputs=(0.25,), nonce=b"n" * 8)


def exposed_answers() -> Answers:
    """Return answers of which the first three are of step 2, and the rest outside the experiment."""
    asks, answers = some_asks(), Answers.empty(6)
    answers.latency_s[:] = 0.001
    for index, unit in enumerate(asks.units):
        answers.variant[index] = assign(unit, SALT, LAYOUT) if unit else "logistic"
        if unit and index < 3:
            answers.prediction_id[index] = token(unit, at_us=int(asks.asked_us[index]))
    return answers


def law(winner: str | None = None) -> Law:
    return Law(SALT, "logistic", STEPS, winner=winner, root=ROOT)


def test_every_exposed_answer_is_held_against_the_law_of_its_step() -> None:
    found = obedience(some_asks(), exposed_answers(), law())
    assert (found.mismatched, found.exposed) == (0, 3)
    first, second = found.phases
    assert first.units == {"boosted": 0, "logistic": 0}
    assert second.units == second.expected_units
    assert sum(second.requests.values()) == 3
    assert (first.target["boosted"], second.target["boosted"]) == (0.1, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"phase": 0, "layout": LAYOUT},
        {"phase": 7},
        {"at_us": 99},
        {"root": KeyRing((SigningKey("k1", b"x" * 16),), b"u" * 16)},
    ],
    ids=["step", "no such step", "time", "forged"],
)
def test_a_token_that_says_something_else_is_a_mismatch(wrong: dict[str, object]) -> None:
    unit = next(f"N{i}" for i in range(1000) if assign(f"N{i}", SALT, STEPS[0]) != assign(f"N{i}", SALT, LAYOUT))
    asks = some_asks()
    asks = Asks(asks.flight_id, asks.asked_us, asks.landed_us, asks.late, (unit, *asks.units[1:]), asks.bodies)
    answers = Answers.empty(6)
    answers.variant[0] = assign(unit, SALT, LAYOUT)
    answers.prediction_id[0] = token(unit, **wrong)  # type: ignore[arg-type]
    assert obedience(asks, answers, law()).mismatched == 1


def test_outside_the_experiment_nobody_answers_but_control_the_winner_and_the_last_steps_arm() -> None:
    answers = Answers.empty(6)
    answers.variant = ["boosted"] * 6
    treated = sum(assign(unit, SALT, LAYOUT) == "boosted" for unit in some_asks().units if unit)
    assert obedience(some_asks(), answers, law()).mismatched == 6 - treated
    assert obedience(some_asks(), answers, law(winner="boosted")).mismatched == 0


def test_the_story_says_what_was_decided_and_where_it_is_written() -> None:
    end = Conclusion(
        verdict="Pass",
        reason="Superior",
        decision="Promote",
        decided_because="Superior",
        winner="boosted",
        decided_at="2013-12-18T06:00:00Z",
        page="http://127.0.0.1:9/experiments/flights/arrival-delay/e1",
        page_file="build/demo/experiment.html",
        record="build/demo/record.json",
        lines=("brier: 0.15 against 0.16",),
        outcomes=Told(5, 0, {"OutOfWindow": 1}),
    )
    states = {"tail_performance__flights_12h": ["PRESENT"] * 6}
    told = report(
        some_asks(),
        exposed_answers(),
        law=law(),
        expected_states={"logistic": states, "boosted": states},
        seconds={},
        rate_per_s=1.0,
        conclusion=end,
    )
    assert told.story[0] == "verdict: Pass (Superior); boosted was promoted on 2013-12-18T06:00:00Z"
    assert "5 taken, 1 OutOfWindow refused" in told.story[2]


class Ledger:
    """A ledger that fails ``failures`` times before it takes anything."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.batches: list[list[dict[str, object]]] = []

    async def outcomes(self, request: web.Request) -> web.Response:
        if self.failures:
            self.failures -= 1
            return web.Response(status=503, text="down")
        batch = orjson.loads(await request.read())["outcomes"]
        self.batches.append(batch)
        refused = [{"index": i, "fate": "Forged", "message": ""} for i, o in enumerate(batch) if not o["actual"]]
        return web.json_response({"accepted": len(batch) - len(refused), "duplicates": 0, "refused": refused})


@pytest.fixture
async def ledger() -> AsyncIterator[tuple[Ledger, str]]:
    ledger = Ledger()
    app = web.Application()
    app.router.add_post("/v1/outcomes", ledger.outcomes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield ledger, f"http://{host}:{port}"
    await runner.cleanup()


async def test_outcomes_are_told_once_an_hour_of_simulated_time(ledger: tuple[Ledger, str]) -> None:
    async with ClientSession() as session:
        outcomes = Outcomes(session, lambda: ledger[1])
        outcomes.add("a", 1)
        await outcomes.advance(HOUR_US)
        outcomes.add("b", 0)
        await outcomes.advance(HOUR_US + 1)
        outcomes.add("c", 1)
        await outcomes.finish()
    assert ledger[0].batches == [
        [{"prediction_id": "a", "actual": 1}],
        [{"prediction_id": "b", "actual": 0}, {"prediction_id": "c", "actual": 1}],
    ]
    assert outcomes.told == Told(2, 0, {"Forged": 1})


async def test_a_ledger_that_is_being_restarted_loses_no_outcome(ledger: tuple[Ledger, str]) -> None:
    ledger[0].failures = 2
    async with ClientSession() as session:
        outcomes = Outcomes(session, lambda: ledger[1], pause_s=0.001)
        outcomes.add("a", 1)
        await outcomes.finish()
        assert outcomes.told == Told(1, 0, {})
        ledger[0].failures = 1000
        outcomes.add("b", 1)
        with pytest.raises(OutcomesNotTold, match="503 down"):
            await outcomes.finish()


async def test_what_landed_is_told_when_it_has_landed_and_only_with_a_token(
    gateway: tuple[Gateway, str], clock: ReplayClockWriter, clock_file: Path
) -> None:
    heard: list[tuple[str, int, int]] = []
    now = ReplayClock(clock_file)

    class Hearing:
        def add(self, prediction_id: str, actual: int) -> None:
            heard.append((prediction_id, actual, now.now_us()))

        async def advance(self, time_us: int) -> None:
            assert now.now_us() <= time_us

        async def finish(self) -> None:
            heard.append(("end", 0, now.now_us()))

    gateway[0].untold_unit = "N1"
    replay = Replay(
        some_asks(),
        Pace(500, 0.002),
        gateway[1],
        "probability_late",
        Publishing(now),
        clock,
        listener=lambda _: Hearing(),
    )
    await replay.run(end_us=1000)
    assert heard == [
        ("token of N0", 1, 200),
        ("token of N5", 1, 1000),
        ("token of N2", 1, 1000),
        ("end", 0, 1000),
    ]
