"""The replay against a real HTTP server: order of publishing, time and requests; losses counted, never hidden."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from aiohttp import web

from fairlead.assignment import Layout, assign
from fairlead.clock import ReplayClock, ReplayClockWriter
from flights.replay import Answers, Replay
from flights.report import Report, as_table, report
from flights.traffic import NEVER_US, Asks, Pace

LAYOUT = Layout.of("logistic", {"boosted": 5000})
SALT = "flights/arrival-delay/e1"


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

    async def predict(self, request: web.Request) -> web.Response:
        unit = request.headers.get("x-unit-id")
        self.seen.append((self.clock.now_us(), unit))
        if unit and unit == self.fail_unit:
            return web.Response(status=503, text="down")
        arm = assign(unit, SALT, LAYOUT) if unit else "logistic"
        states = {"tail_performance__flights_12h": ["PRESENT"]}
        answer = {"predictions": [{"probability_late": 0.25}], "parameters": {"feature_states": states}}
        return web.json_response(answer, headers={"x-variant": arm})


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
        salt=SALT,
        layout=LAYOUT,
        control="logistic",
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
    assert {name: arm.units for name, arm in result.arms.items()} == result.expected_units
    result.write(tmp_path / "result.json")
    written = orjson.loads((tmp_path / "result.json").read_bytes())
    assert written["arms"]["boosted"]["states"]["STORE_ERROR"] == 0
    assert as_table(result).row_count == 15


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
