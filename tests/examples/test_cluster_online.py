"""Materialized and pushed, the online store holds what is known at each moment: whatever died, whoever wrote."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from feast import FeatureStore
from typer.testing import CliRunner

from fairlead.clock import ReplayClock, ReplayClockWriter, from_us
from flights.cluster import running
from flights.cluster.__main__ import app
from flights.cluster.expected import OUTPUT, expected, flights_from, instance
from flights.cluster.online import NOTE, LivePublisher, OnlineError
from flights.cluster.shift import PERIOD_US, START_US
from flights.publish import Publisher
from flights.store import open_store
from support.flights import copied_repo, online_rows
from support.flights_cluster import mount_feature_store
from support.server_process import server_process
from support.servers import RedisServer, redis_server
from support.waiting import until

pytestmark = [pytest.mark.flights, pytest.mark.timeout(300)]

PASSWORD = "0123456789"  # noqa: S105 -- of a server that lives for a test; digits, which Feast would read as a number
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
SEAM_US = START_US + 85 * PERIOD_US
"""When the replay months begin again, in November 2026."""
MOMENT_US = SEAM_US + 30 * 24 * HOUR_US + 3 * MINUTE_US


@dataclass(frozen=True, slots=True)
class Cluster:
    """What pods of the example share: mounted files, variables, and a Redis."""

    mounted: Path
    data: Path
    server: RedisServer
    client: Any

    def publisher(self) -> LivePublisher:
        return LivePublisher(FeatureStore(repo_path=str(self.mounted)), self.data)

    def everything(self) -> dict[bytes, dict[bytes, bytes]]:
        """Return all features in Redis, by key."""
        return {key: self.client.hgetall(key) for key in self.client.scan_iter(_type="hash")}

    def state_of(self, time_us: int, publisher: LivePublisher) -> dict[bytes, dict[bytes, bytes]]:
        """Return what an empty store holds after one writing; it is empty again."""
        self.client.flushall()
        publisher.publish(time_us)
        found = self.everything()
        self.client.flushall()
        return found

    def start(self) -> None:
        self.server.start()
        redis.Redis(port=self.server.port).config_set("requirepass", PASSWORD)


@pytest.fixture(scope="module")
def cluster(flights_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with redis_server(folder) as server, pytest.MonkeyPatch.context() as patch:
        redis.Redis(port=server.port).config_set("requirepass", PASSWORD)
        patch.setenv("REDIS_ADDRESS", server.address)
        patch.setenv("REDIS_PASSWORD", PASSWORD)
        client = redis.Redis(port=server.port, password=PASSWORD)
        yield Cluster(mount_feature_store(folder / "mounted"), flights_repo / "data", server, client)


@pytest.fixture(scope="module")
def publisher(cluster: Cluster) -> LivePublisher:
    return cluster.publisher()


@pytest.fixture(scope="module")
def at_moment(cluster: Cluster, publisher: LivePublisher) -> dict[bytes, dict[bytes, bytes]]:
    """The state that every way to ``MOMENT_US`` must lead to."""
    return cluster.state_of(MOMENT_US, publisher)


@pytest.fixture(autouse=True)
def empty(cluster: Cluster) -> None:
    cluster.client.flushall()


@pytest.fixture
def clock_file(tmp_path: Path) -> Path:
    ReplayClockWriter(tmp_path / "clock", MOMENT_US)
    return tmp_path / "clock"


@contextmanager
def pushing(publisher: LivePublisher, clock_file: Path) -> Iterator[None]:
    """Let ``push`` run in a thread."""
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(running.push, publisher, ReplayClock(clock_file), stopping, every_s=0.05)
        try:
            yield
        finally:
            stopping.set()
        ended.result()


def test_in_2013_it_is_what_the_replay_publishes(tmp_path: Path) -> None:
    repo = copied_repo(tmp_path / "feature_repo", online=False)
    time_us = START_US + 80 * HOUR_US
    store = open_store(repo)
    views = store.list_feature_views()
    store.provider.online_store.update(store.config, [], views, [], [], partial=False)
    replay = Publisher(store, repo)
    replay.reset_to(time_us)
    replayed = online_rows(repo)
    replay.reset_to(START_US - HOUR_US)
    publisher = LivePublisher(store, repo / "data")
    publisher.publish(START_US)
    publisher.publish(time_us)
    assert online_rows(repo) == replayed


def test_many_small_steps_lead_to_the_same_state_as_one(
    cluster: Cluster, publisher: LivePublisher, at_moment: dict[bytes, dict[bytes, bytes]]
) -> None:
    publisher.publish(MOMENT_US - 2 * HOUR_US)
    for step in range(1, 13):
        publisher.publish(MOMENT_US - 2 * HOUR_US + step * HOUR_US // 6)
    assert cluster.everything() == at_moment
    assert int(cluster.client.get(NOTE)) == MOMENT_US


def test_the_steps_over_a_seam_lead_to_the_state_behind_it(cluster: Cluster, publisher: LivePublisher) -> None:
    behind = cluster.state_of(SEAM_US + HOUR_US, publisher)
    for hours in (-30, -1, 0, 1):
        publisher.publish(SEAM_US + hours * HOUR_US)
    assert cluster.everything() == behind


def test_written_again_nothing_changes_and_nothing_goes_back(
    cluster: Cluster, publisher: LivePublisher, at_moment: dict[bytes, dict[bytes, bytes]]
) -> None:
    publisher.publish(MOMENT_US)
    for earlier_us in (0, HOUR_US, 24 * HOUR_US):
        publisher.publish(MOMENT_US - earlier_us)
        publisher.publish(MOMENT_US - earlier_us, anew=True)
    assert cluster.everything() == at_moment
    assert int(cluster.client.get(NOTE)) == MOMENT_US


def test_a_job_and_two_pushers_at_once_lead_to_the_state_of_the_last_moment(
    cluster: Cluster, publisher: LivePublisher, at_moment: dict[bytes, dict[bytes, bytes]]
) -> None:
    steps = [MOMENT_US - (4 - step) * HOUR_US for step in range(5)]

    def push(one: LivePublisher) -> None:
        for time_us in steps:
            one.publish(time_us)

    def materialize(one: LivePublisher) -> None:
        one.publish(steps[0], anew=True)

    with ThreadPoolExecutor(3) as pool:
        started = [pool.submit(push, publisher), pool.submit(push, cluster.publisher())]
        started.append(pool.submit(materialize, cluster.publisher()))
    for one in started:
        one.result()
    assert cluster.everything() == at_moment


async def test_what_was_killed_in_the_middle_is_made_whole_by_the_next(
    cluster: Cluster, publisher: LivePublisher, at_moment: dict[bytes, dict[bytes, bytes]]
) -> None:
    job = get_context("fork").Process(target=publisher.publish, args=(MOMENT_US,))  # feast is imported already
    job.start()
    await until(lambda: cluster.client.dbsize() > 100, timeout_s=60)
    job.kill()
    job.join()
    assert cluster.client.get(NOTE) is None
    assert cluster.everything().keys() < at_moment.keys()
    publisher.publish(MOMENT_US)
    assert cluster.everything() == at_moment


async def test_a_store_that_was_emptied_or_away_is_filled_again(
    cluster: Cluster, publisher: LivePublisher, at_moment: dict[bytes, dict[bytes, bytes]], clock_file: Path
) -> None:
    def whole() -> bool:
        return cluster.client.get(NOTE) is not None

    with pushing(publisher, clock_file):
        await until(whole, timeout_s=60)
        cluster.client.flushall()
        await until(whole, timeout_s=60)
        assert cluster.everything() == at_moment
        cluster.server.kill()
        cluster.start()
        await until(whole, timeout_s=60)
    assert cluster.everything() == at_moment


def test_a_job_tries_again_and_says_why_it_gives_up(
    cluster: Cluster, publisher: LivePublisher, clock_file: Path
) -> None:
    cluster.client.config_set("maxmemory", 1)
    with pytest.raises(OnlineError, match="the online store failed \\(OutOfMemoryError\\)"):
        running.materialize(publisher, ReplayClock(clock_file), threading.Event(), attempts=2, every_s=0.01)
    cluster.client.config_set("maxmemory", 0)
    running.materialize(publisher, ReplayClock(clock_file), threading.Event(), attempts=1)
    assert int(cluster.client.get(NOTE)) == MOMENT_US


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back what a program does about signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_the_program_of_the_job_writes_and_ends(cluster: Cluster) -> None:
    began = f"{from_us(MOMENT_US):%Y-%m-%dT%H:%M:%S}"
    arguments = [f"--store={cluster.mounted}", f"--data={cluster.data}", f"--now={began}"]
    done = CliRunner().invoke(app, ["materialize", *arguments])
    assert done.exit_code == 0, done.output
    assert int(cluster.client.get(NOTE)) >= MOMENT_US
    wrong = CliRunner().invoke(app, ["materialize", *arguments[:1], "--data=/nowhere"])
    assert wrong.exit_code == 1


def answers(url: str, rows: list[dict[Any, Any]]) -> list[float]:
    body = {"instances": [instance(row) for row in rows]}
    answer = httpx.post(f"{url}/v1/models/arrival-delay:predict", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return [one[OUTPUT] for one in answer.json()["predictions"]]


def test_a_server_that_mounts_the_config_map_answers_what_the_file_says_of_point_in_time_features(
    cluster: Cluster, publisher: LivePublisher, flights_models: dict[str, Path], tmp_path: Path
) -> None:
    """Right behind the seam, where rows of both repetitions count; asked later than expected by less than a minute."""
    expected_us = SEAM_US + 33 * MINUTE_US
    served_us = expected_us + 40 * SECOND_US
    models = {"boosted": flights_models["boosted"]}
    asked = flights_from(expected_us, 400)
    told = expected(asked, expected_us, within_us=MINUTE_US, models=models)
    publisher.publish(served_us)
    ReplayClockWriter(tmp_path / "clock", served_us)
    arguments = ["--model", str(models["boosted"]), "--model-name", "arrival-delay"]
    arguments += ["--feature-store", str(cluster.mounted), "--clock", f"replay:{tmp_path / 'clock'}"]
    with server_process(tmp_path, arguments) as server:
        server.wait_ready()
        served = np.array(answers(server.url, asked.to_dict("records")))
    right = np.abs(served - told.probability["boosted"]) <= 1e-6
    assert right[told.steady].all()
    assert not told.steady.all()
    assert np.mean(told.steady) > 0.5
    columns = told.features["boosted"].values()
    assert np.mean([np.isnan(column.astype(float)) for column in columns]) < 0.5
