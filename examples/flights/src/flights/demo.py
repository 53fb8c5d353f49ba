"""The demo: two models, two months of flights as live traffic, and a verdict. ``python -m flights.demo``.

Everything runs as a user would run it: the models are served by ``fairlead up`` in a process of its own, and asked
over HTTP through its gateway; what became of flights is told to its ledger when they land. The result is printed and
written to ``build/demo``: ``result.json``, the decision record, and the experiment's page as it was in the end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import aiohttp
import httpx
import pandas as pd
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from fairlead.assignment import Layout
from fairlead.clock import ReplayClockWriter, from_us, to_us
from fairlead.route import OVERRIDE_HEADER
from fairlead_operator.api.manifest import read
from fairlead_operator.api.v1alpha1 import basis_points
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.local import child
from fairlead_operator.platforms.local.state import State, is_held
from flights import features, raw
from flights.conclusion import conclude
from flights.dataset import open_store
from flights.errors import FlightsError
from flights.expected import expected_states
from flights.law import Law
from flights.outcomes import Outcomes, Told
from flights.paths import BUILD, ROOT
from flights.replay import Answers, Replay
from flights.report import Report, as_table, report
from flights.runs import SERVICES
from flights.scenarios import Play, Scenario, play_of
from flights.store import settings_file
from flights.traffic import Asks, Pace, Tick, asks_of
from flights.training import MANIFEST, RUNS, train_all
from flights.watch import Watch

if TYPE_CHECKING:
    from feast import FeatureStore

    from fairlead_operator.api.v1alpha1 import ModelDeployment

OUTPUT = "probability_late"
FOLDER = BUILD.parent / "demo"
STATE = FOLDER / "state"
"""State of the demo's own ``fairlead up``; a new one each time."""

REPLAY_END = datetime(2014, 1, 1, tzinfo=UTC)
"""Flights asked about before this are replayed."""

LANDED_AFTER = timedelta(days=2)
"""By now all of them have landed, and their labels count."""

READY_WITHIN_S = 90.0
STOP_WITHIN_S = 30.0
OBSERVED_WITHIN_S = 60.0
"""Real time that simulated time waits for an arm that is being restarted."""
SETTLED_WITHIN_S = 30.0
"""Real time in which what has landed last is to be judged, and a decision to be on record."""
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
    scenario: Annotated[
        Scenario, typer.Option(help="What is played: the better model, the better model made slow, or none better.")
    ] = Scenario.DEFAULT,
) -> None:
    """Build features, train two models, serve them, and replay unseen flights until the experiment has a verdict."""
    console = Console(stderr=True)
    try:
        result = run(console, scenario, port=port, rate_per_s=rate, gap_s=gap_ms / 1e3, days=days)
    except (FlightsError, OperatorError, ValueError) as error:
        console.print(f"demo: {error}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(1) from error
    written = FOLDER / "result.json"
    result.write(written)
    Console().print(as_table(result))
    for line in result.story:
        Console().print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(f"written to {written.relative_to(ROOT)}")
    for failure in result.failures:
        console.print(f"demo: {failure} ({result.errors})", style="red", markup=False)
    if result.failures:
        raise typer.Exit(1)


def run(console: Console, scenario: Scenario, *, port: int, rate_per_s: float, gap_s: float, days: int) -> Report:
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
    play = play_of(scenario, MANIFEST, FOLDER)
    endpoint = Endpoint(port, read(play.manifest).deployment)
    with phases.phase("traffic"):
        traffic = _traffic(days)
        clock = _clock()
    state = State(STATE, endpoint.deployment.metadata.name)
    watch = Watch(state.status_file)
    up = _start(port, play)
    try:
        with phases.phase("up"):
            asyncio.run(_await_ready(up, endpoint, watch))
        console.print(f"up: {phases.seconds['up']:.1f} s; while it runs, ask it yourself:", highlight=False)
        console.print(f"  {endpoint.curl}", soft_wrap=True, markup=False, highlight=False)
        console.print(f"  and watch the experiment: {watch.experiment.get('page')}", soft_wrap=True, highlight=False)
        pace = Pace(rate_per_s, gap_s)
        rate_text = f"{pace.mean_per_s(traffic.asks.asked_us):.0f} requests a second on average"
        console.print(f"replay: {rate_text}, {rate_per_s:.0f} within a moment", highlight=False)
        scene = Scene(endpoint, clock, pace, watch)
        with phases.phase("replay"):
            answers, told = asyncio.run(_replay(traffic, scene, console))
        with phases.phase("verdict"):
            asyncio.run(_await_verdict(watch))
            conclusion = conclude(watch, FOLDER, ROOT, told)
    finally:
        _stop(up)
    with phases.phase("expected"):
        expected = _expected(traffic, endpoint.deployment, play.services)
    return report(
        traffic.asks,
        answers,
        law=_law(endpoint.deployment, state, conclusion.winner),
        expected_states=expected,
        seconds=phases.seconds,
        rate_per_s=pace.mean_per_s(traffic.asks.asked_us),
        scenario=scenario.value,
        conclusion=conclusion,
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
    end_us: int
    """Until when simulated time goes on, microseconds since 1970-01-01 UTC."""
    store: FeatureStore
    publisher: Any


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the replay takes place."""

    endpoint: Endpoint
    clock: ReplayClockWriter
    pace: Pace
    watch: Watch


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
    return Traffic(flights, asks_of(flights), to_us((end + LANDED_AFTER).to_pydatetime()), store, publisher)


def _clock() -> ReplayClockWriter:
    """Return the clock of a new state: a demo goes on from nothing."""
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    return ReplayClockWriter(STATE / "clock", start_us=to_us(features.REPLAY_START))


def _start(port: int, play: Play) -> subprocess.Popen[bytes]:
    fairlead = Path(sys.executable).with_name("fairlead")
    tied = [sys.executable, child.__file__, os.getpid()]  # however the demo ends, what it started ends with it
    command = [str(part) for part in (*tied, fairlead, "up", "-f", play.manifest, "--state", STATE, "--port", port)]
    command += ["--server-command", play.server_command] if play.server_command else []
    with _log().open("wb") as log:
        # The servers read the online store that the replay publishes to: SQLite, or Redis by FAIRLEAD_REDIS.
        environment = os.environ | {"FEAST_FS_YAML_FILE_PATH": str(settings_file())}
        return subprocess.Popen([*command, "--clock", "replay"], stdout=log, stderr=subprocess.STDOUT, env=environment)


def _log() -> Path:
    return FOLDER / "up.log"


async def _await_ready(up: subprocess.Popen[bytes], endpoint: Endpoint, watch: Watch) -> None:
    url = f"{endpoint.base}/v2/models/{endpoint.deployment.model_name}/ready"
    variants = [variant.name for variant in endpoint.deployment.spec.variants]
    try:
        async with asyncio.timeout(READY_WITHIN_S), httpx.AsyncClient() as client:
            while not (watch.is_observed and await _all_ready(client, url, variants)):
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


async def _await_verdict(watch: Watch) -> None:
    """Wait until what has landed last was judged; the operator decides in its own time."""
    await watch.until(lambda: watch.is_settled, SETTLED_WITHIN_S)


async def _replay(traffic: Traffic, scene: Scene, console: Console) -> tuple[Answers, Told]:
    watch = scene.watch
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("replay", total=len(traffic.asks))

        def show(tick: Tick, answers: Answers) -> None:
            labels = int(answers.labelled.sum())
            text = f"{from_us(tick.time_us):%d %b %Y %H:%M} UTC · {watch.line} · {labels:,} labels"
            progress.update(task, completed=tick.first, description=text)

        listeners: list[Outcomes] = []

        def listener(session: aiohttp.ClientSession) -> Outcomes:
            listeners.append(Outcomes(session, lambda: watch.ledger))
            return listeners[0]

        async def observed(_: int) -> None:
            if not watch.is_observed and not await watch.until(lambda: watch.is_observed, OBSERVED_WITHIN_S):
                raise DemoError(f"an arm is out of traffic for over {OBSERVED_WITHIN_S:.0f} s; see {_log()}")

        replay = Replay(
            asks=traffic.asks,
            pace=scene.pace,
            url=scene.endpoint.predict,
            output=OUTPUT,
            publisher=traffic.publisher,
            clock=scene.clock,
            on_tick=show,
            listener=listener,
            may_go_on=observed,
        )
        answers = await replay.run(traffic.end_us)
        progress.update(task, completed=len(traffic.asks))
        return answers, listeners[0].told


def _stop(up: subprocess.Popen[bytes]) -> None:
    if up.poll() is None:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()


def _expected(
    traffic: Traffic, deployment: ModelDeployment, services: Mapping[str, str]
) -> dict[str, dict[str, list[str]]]:
    """Return what the raw data says of every feature of every request, by variant and feature."""
    hydration = deployment.spec.hydration.policy()
    return {
        variant: {str(feature): column.tolist() for feature, column in states.items()}
        for variant, service in services.items()
        for states in [expected_states(traffic.store, service, traffic.flights, hydration)]
    }


def _law(deployment: ModelDeployment, state: State, winner: str | None) -> Law:
    control = deployment.spec.control.name
    weights = [
        {one.name: basis_points(step.weights.get(one.name, 0)) for one in deployment.spec.treatments}
        for step in deployment.spec.rollout.steps
    ]
    layouts = tuple(Layout.of(control, weights_bp) for weights_bp in weights)
    return Law(deployment.salt, control, layouts, winner=winner, root=state.ledger_keys())


if __name__ == "__main__":
    app()
