"""The programs of the flights example in a cluster. ``python -m flights.cluster --help``."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fairlead.clock import Clock, SystemClock, from_us, to_us
from flights.cluster import shift
from flights.errors import FlightsError
from flights.paths import BUILD, FEATURE_REPO, ROOT

if TYPE_CHECKING:
    from flights.cluster.online import LivePublisher

_LOG = logging.getLogger(__name__)

WEEK_US = timedelta(weeks=1) // timedelta(microseconds=1)

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True
)

StoreOption = Annotated[Path, typer.Option(help="Folder of feature_store.yaml and its registry.")]
DataOption = Annotated[Path, typer.Option(help="Folder of the views' sources.")]
NowOption = Annotated[datetime | None, typer.Option(help="As if it were this time now; UTC.", show_default=False)]


@app.command()
def serve_models(
    folder: Annotated[Path, typer.Option(help="Folder of the model files.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 -- a pod's own
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8080,
) -> None:
    """Serve model files over HTTP until it is told to stop."""
    from flights.cluster.serve_models import model_server  # noqa: PLC0415 -- each program loads what it needs

    server = model_server(folder, host, port)
    # shutdown() waits for serve_forever(), which runs in the thread that gets the signal.
    _on_stop(lambda: threading.Thread(target=server.shutdown).start())
    _LOG.info("serving folder=%s port=%d", folder, server.server_port)
    server.serve_forever()
    server.server_close()


@app.command()
def materialize(store: StoreOption, data: DataOption, now: NowOption = None) -> None:
    """Write into the online store what is known now, and end."""
    from flights.cluster import running  # noqa: PLC0415 -- feast takes 2 s to import

    with _reporting():
        running.materialize(_publisher(store, data), _clock(now), _stopping())


@app.command()
def push(
    store: StoreOption,
    data: DataOption,
    now: NowOption = None,
    every_s: Annotated[float, typer.Option(help="Seconds between writes.", min=0.05, max=60)] = 1.0,
) -> None:
    """Write into the online store what becomes known, as it does, until it is told to stop."""
    from flights.cluster import running  # noqa: PLC0415 -- feast takes 2 s to import

    with _reporting():
        running.push(_publisher(store, data), _clock(now), _stopping(), every_s=every_s)


@app.command()
def now(at: Annotated[datetime | None, typer.Option(help="Time to look at, UTC.", show_default=False)] = None) -> None:
    """Say which moment of 2013 happens again now."""
    time_us = to_us(_utc(at)) if at else SystemClock().now_us()
    weeks = shift.shift_us(time_us) // WEEK_US
    Console().print_json(data={"now": _text(time_us), "in_2013": _text(shift.in_2013(time_us)), "shift_weeks": weeks})


@app.command()
def expected(
    *,
    at: Annotated[
        datetime | None, typer.Option(help="When it is asked, UTC; now if left out.", show_default=False)
    ] = None,
    flights: Annotated[int, typer.Option(help="How many flights, from the next one on.", min=1)] = 10,
    unit: Annotated[str | None, typer.Option(help="Only flights of this plane.", show_default=False)] = None,
    within_s: Annotated[float, typer.Option(help="Seconds for which a steady flight sees no change.", min=0)] = 5.0,
    models: Annotated[Path, typer.Option(help="Folder of the model files.")] = BUILD / "models",
    repo: Annotated[Path, typer.Option(help="The built feature repository.")] = FEATURE_REPO,
) -> None:
    """Compute what every model must say of the flights that come next, without a server or an online store."""
    from flights.cluster.expected import as_json, expected, flights_from, models_in  # noqa: PLC0415 -- feast takes 2 s to import

    time_us = to_us(_utc(at)) if at else SystemClock().now_us()
    with _reporting():
        asked = flights_from(time_us, flights, unit)
        found = expected(asked, time_us, within_us=round(within_s * 1e6), models=models_in(models), repo=repo)
    Console().print_json(data={"at": _text(time_us), "asks": as_json(asked, found)})


@app.command()
def manifests(
    folder: Annotated[Path, typer.Option(help="Folder of the manifests.")] = ROOT / "examples" / "flights" / "cluster",
    repo: Annotated[Path, typer.Option(help="Folder of the definitions.")] = FEATURE_REPO,
) -> None:
    """Write what is generated of the manifests: the ConfigMap with the registry, and the models' digests."""
    from flights.cluster.manifests import write  # noqa: PLC0415 -- feast takes 2 s to import

    with _reporting():
        changed = write(folder, repo)
    Console().print(f"written: {', '.join(changed)}" if changed else "up to date", highlight=False)


def _publisher(store: Path, data: Path) -> LivePublisher:
    from feast import FeatureStore  # noqa: PLC0415 -- feast takes 2 s to import

    from flights.cluster.online import LivePublisher  # noqa: PLC0415 -- as above

    return LivePublisher(FeatureStore(repo_path=str(store)), data)


def _clock(now: datetime | None) -> Clock:
    from flights.cluster.running import MovedClock  # noqa: PLC0415 -- feast takes 2 s to import

    clock = SystemClock()
    return clock if now is None else MovedClock(clock, to_us(_utc(now)) - clock.now_us())


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(time_us: int) -> str:
    return from_us(time_us).isoformat(timespec="milliseconds")


def _stopping() -> threading.Event:
    stopping = threading.Event()
    _on_stop(stopping.set)
    return stopping


def _on_stop(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


@contextmanager
def _reporting() -> Iterator[None]:
    """Say what went wrong in one line, and end with 1."""
    try:
        yield
    except FlightsError as error:
        _LOG.error("%s", error)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("feast").setLevel(logging.WARNING)
    app()
