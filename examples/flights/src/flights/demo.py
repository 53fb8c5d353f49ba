"""The demo: features, models, servers, and two months of flights as live traffic. ``python -m flights.demo``.

Everything runs as a user would run it: the models are served by ``fairlead up`` in a process of its own, and asked
over HTTP through its gateway. The result is printed and written to ``build/demo/result.json``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pandas as pd
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from fairlead.assignment import Layout
from fairlead.clock import ReplayClockWriter, from_us, to_us
from fairlead.route import OVERRIDE_HEADER
from fairlead_operator.api.manifest import read
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.local import child
from fairlead_operator.platforms.local.state import is_held
from flights import features, raw
from flights.dataset import open_store
from flights.errors import FlightsError
from flights.expected import expected_states
from flights.paths import BUILD, ROOT
from flights.replay import Answers, Replay
from flights.report import Report, as_table, report
from flights.runs import SERVICES
from flights.store import settings_file
from flights.traffic import Asks, Pace, Tick, asks_of
from flights.training import MANIFEST, RUNS, train_all

if TYPE_CHECKING:
    from feast import FeatureStore

    from fairlead_operator.api.v1alpha1 import ModelDeployment

OUTPUT = "probability_late"
FOLDER = BUILD.parent / "demo"
STATE = FOLDER / "state"
"""State of the demo's own ``fairlead up``; a new one each time."""

REPLAY_END = datetime(2014, 1, 1, tzinfo=UTC)
"""Flights asked about before this are replayed."""

LAST_LANDING = datetime(2014, 1, 3, tzinfo=UTC)
"""By now all of them have landed."""

READY_WITHIN_S = 90.0
STOP_WITHIN_S = 30.0
POLL_S = 0.2


class DemoError(FlightsError):
    """The demo cannot go on; the message says what to do."""


@dataclass(slots=True)
class Phases:
    """Real seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body as phase ``name``."""
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: python -m flights.demo --rate 400")
def main(
    port: Annotated[int, typer.Option(help="Port of the gateway, REST and gRPC.", min=1, max=65535)] = 8080,
    rate: Annotated[float, typer.Option(help="Requests per second within a moment.", min=1, max=5000)] = 1000.0,
    gap_ms: Annotated[float, typer.Option(help="Milliseconds before each moment, to publish.", min=0, max=1000)] = 5.0,
    days: Annotated[int, typer.Option(help="Days to replay, from 1 November 2013.", min=1, max=61)] = 61,
) -> None:
    """Build features, train two models, serve them, and replay unseen flights as live traffic with delayed labels."""
    console = Console(stderr=True)
    try:
        result = run(console, port=port, rate_per_s=rate, gap_s=gap_ms / 1e3, days=days)
    except (FlightsError, OperatorError, ValueError) as error:
        console.print(f"demo: {error}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(1) from error
    written = FOLDER / "result.json"
    result.write(written)
    Console().print(as_table(result))
    console.print(f"written to {written.relative_to(ROOT)}")
    for failure in result.failures:
        console.print(f"demo: {failure} ({result.errors})", style="red", markup=False)
    if result.failures:
        raise typer.Exit(1)


def run(console: Console, *, port: int, rate_per_s: float, gap_s: float, days: int) -> Report:
    """Run all phases and return the report.

    Raises:
        DemoError: A step failed; the message says what to do.
    """
    phases = Phases()
    with phases.phase("features"), Progress(console=console, transient=True) as progress:
        features.build(progress=progress)
    console.print(f"features: {phases.seconds['features']:.1f} s", highlight=False)
    with phases.phase("train"):
        train_all(list(SERVICES), manifest=MANIFEST, runs=RUNS, console=console)
    console.print(f"train: {phases.seconds['train']:.1f} s", highlight=False)
    if is_held(STATE):
        raise DemoError("another demo is running on this checkout; wait for it, or stop it with Ctrl-C")
    endpoint = Endpoint(port, read(MANIFEST).deployment)
    with phases.phase("traffic"):
        traffic = _traffic(days)
        clock = _clock()
    up = _start(port)
    try:
        with phases.phase("up"):
            asyncio.run(_await_ready(up, endpoint))
        console.print(f"up: {phases.seconds['up']:.1f} s; while it runs, ask it yourself:", highlight=False)
        console.print(f"  {endpoint.curl}", soft_wrap=True, markup=False, highlight=False)
        pace = Pace(rate_per_s, gap_s)
        rate_text = f"{pace.mean_per_s(traffic.asks.asked_us):.0f} requests a second on average"
        console.print(f"replay: {rate_text}, {rate_per_s:.0f} within a moment", highlight=False)
        with phases.phase("replay"):
            answers = asyncio.run(_replay(traffic, endpoint, clock, pace, console))
    finally:
        _stop(up)
    with phases.phase("expected"):
        expected = _expected(traffic, endpoint.deployment)
    deployment = endpoint.deployment
    return report(
        traffic.asks,
        answers,
        salt=deployment.salt,
        layout=Layout.of(deployment.spec.control.name, deployment.weights_bp),
        control=deployment.spec.control.name,
        expected_states=expected,
        seconds=phases.seconds,
        rate_per_s=pace.mean_per_s(traffic.asks.asked_us),
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the models are asked."""

    port: int
    deployment: ModelDeployment

    @property
    def base(self) -> str:
        """Address of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def predict(self) -> str:
        """Address of V1 predictions."""
        return f"{self.base}/v1/models/{self.deployment.model_name}:predict"

    @property
    def curl(self) -> str:
        """A command that asks for a prediction."""
        keys = '"tailnum": "N14228", "origin": "EWR", "dest": "IAH", "carrier": "UA"'
        body = f'{{"instances": [{{{keys}, "hour": 5, "weekday": 4, "distance": 1400}}]}}'
        return f"curl -si {self.predict} -H 'x-unit-id: N14228' -d '{body}'"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is replayed, and the store it needs."""

    flights: pd.DataFrame
    asks: Asks
    store: FeatureStore
    publisher: Any


def _traffic(days: int) -> Traffic:
    from flights.publish import Publisher  # noqa: PLC0415 -- feast takes 2 s to import

    start = pd.Timestamp(features.REPLAY_START)
    end = min(start + pd.Timedelta(days=days), pd.Timestamp(REPLAY_END))
    flights = raw.load_flights()
    flights = flights[(flights["asked_at"] >= start) & (flights["asked_at"] < end)]
    flights = flights.sort_values(["asked_at", "flight_id"], kind="stable").reset_index(drop=True)
    store = open_store()
    publisher = Publisher(store)
    publisher.reset_to(to_us(features.REPLAY_START))
    return Traffic(flights, asks_of(flights), store, publisher)


def _clock() -> ReplayClockWriter:
    """Return the clock of a new state: a demo goes on from nothing."""
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    return ReplayClockWriter(STATE / "clock", start_us=to_us(features.REPLAY_START))


def _start(port: int) -> subprocess.Popen[bytes]:
    fairlead = Path(sys.executable).with_name("fairlead")
    tied = [sys.executable, child.__file__, os.getpid()]  # however the demo ends, what it started ends with it
    command = [str(part) for part in (*tied, fairlead, "up", "-f", MANIFEST, "--state", STATE, "--port", port)]
    with _log().open("wb") as log:
        # The servers read the online store that the replay publishes to: SQLite, or Redis by FAIRLEAD_REDIS.
        environment = os.environ | {"FEAST_FS_YAML_FILE_PATH": str(settings_file())}
        return subprocess.Popen([*command, "--clock", "replay"], stdout=log, stderr=subprocess.STDOUT, env=environment)


def _log() -> Path:
    return FOLDER / "up.log"


async def _await_ready(up: subprocess.Popen[bytes], endpoint: Endpoint) -> None:
    url = f"{endpoint.base}/v2/models/{endpoint.deployment.model_name}/ready"
    variants = [variant.name for variant in endpoint.deployment.spec.variants]
    try:
        async with asyncio.timeout(READY_WITHIN_S), httpx.AsyncClient() as client:
            while not await _all_ready(client, url, variants):
                if up.poll() is not None:
                    raise DemoError(f"fairlead up ended with {up.returncode}: {_last_line(_log())}")
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        log = _log().relative_to(ROOT)
        raise DemoError(f"the models were not ready within {READY_WITHIN_S:.0f} s; see {log}") from error


async def _all_ready(client: httpx.AsyncClient, url: str, variants: list[str]) -> bool:
    try:
        answers = [await client.get(url, headers={OVERRIDE_HEADER: variant}) for variant in variants]
    except httpx.TransportError:
        return False
    return all(answer.is_success for answer in answers)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


async def _replay(
    traffic: Traffic, endpoint: Endpoint, clock: ReplayClockWriter, pace: Pace, console: Console
) -> Answers:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("replay", total=len(traffic.asks))

        def show(tick: Tick, answers: Answers) -> None:
            labels = int(answers.labelled.sum())
            text = f"{from_us(tick.time_us):%d %b %Y %H:%M} UTC · {tick.first:,} asked · {labels:,} labels"
            progress.update(task, completed=tick.first, description=text)

        replay = Replay(
            asks=traffic.asks,
            pace=pace,
            url=endpoint.predict,
            output=OUTPUT,
            publisher=traffic.publisher,
            clock=clock,
            on_tick=show,
        )
        answers = await replay.run(to_us(LAST_LANDING))
        progress.update(task, completed=len(traffic.asks))
        return answers


def _stop(up: subprocess.Popen[bytes]) -> None:
    if up.poll() is None:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()


def _expected(traffic: Traffic, deployment: ModelDeployment) -> dict[str, dict[str, list[str]]]:
    """Return what the raw data says of every feature of every request, by variant and feature."""
    hydration = deployment.spec.hydration.policy()
    return {
        variant: {str(feature): column.tolist() for feature, column in states.items()}
        for variant, service in SERVICES.items()
        for states in [expected_states(traffic.store, service, traffic.flights, hydration)]
    }


if __name__ == "__main__":
    app()
