"""Build the feature repository: sources, registry, online store. ``python -m flights.features``.

Each step is left out when nothing it depends on has changed since it was last done (data, definitions, code and
versions of packages). Feast is imported only when there is something to do.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fairlead import features
from flights import stamps
from flights.files import RawDataError, data_digest
from flights.paths import FEATURE_REPO
from flights.store import REDIS_SETTING, apply, materialize, open_store, settings_file

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

FEATURE_SERVICES = ("late_logistic", "late_boosted")
"""One feature service per model."""

YEAR_START = datetime(2013, 1, 1, tzinfo=UTC)
"""Materialization looks back to here, whatever a row's age: what has expired is STALE, what never was NOT_FOUND."""

REPLAY_START = datetime(2013, 11, 1, tzinfo=UTC)
"""The online store is materialized up to here; what becomes known later is for the replay to publish."""

_HERE = Path(__file__).parent
_RECORD = "built.json"


def build(repo: Path = FEATURE_REPO, *, progress: Progress | None = None) -> list[str]:
    """Bring a feature repository up to date.

    Args:
        repo: Folder of the definitions; what is built goes to ``data/`` in it.
        progress: Where to show how far it is.

    Returns:
        Names of the steps that were done: ``sources``, ``store``; none if everything was up to date.

    Raises:
        RawDataError: The raw data is missing or differs.
    """
    progress = progress or Progress(disable=True)
    with _locked(repo / "data"):
        return [name for name, done in (("sources", _sources), ("store", _store)) if done(repo, progress)]


def built_digest(name: str, repo: Path = FEATURE_REPO) -> str | None:
    """Return the digest of a step if it is done and up to date, else None."""
    digest = _digests(repo)[name]
    return digest if stamps.done_steps(repo / "data" / _RECORD).get(name) == digest else None


def _sources(repo: Path, progress: Progress) -> bool:
    if built_digest("sources", repo):
        return False
    from flights import raw, sources  # noqa: PLC0415 -- pandas and pyarrow take a second to import

    with stamps.step(repo / "data" / _RECORD, "sources", _digests(repo)["sources"]):
        builders = sources.source_builders()
        task = progress.add_task("Sources", total=len(builders) + 1)
        frames = sources.RawFrames(raw.load_flights(), raw.load_weather(), raw.load_planes())
        progress.advance(task)
        for view, source_of in builders.items():
            sources.write_source(source_of(frames), repo / "data" / f"{view}.parquet")
            progress.advance(task)
    return True


def _store(repo: Path, progress: Progress) -> bool:
    on_redis = bool(os.environ.get(REDIS_SETTING))
    if built_digest("store", repo) and not on_redis:  # what Redis holds is not ours to know
        return False
    with stamps.step(repo / "data" / _RECORD, "store", _digests(repo)["store"]):
        task = progress.add_task("Registry", total=None)
        (repo / "data" / "registry.db").unlink(missing_ok=True)
        store = open_store(repo)
        apply(store)
        views = store.list_feature_views()
        _empty_online(store, views)
        progress.update(task, description="Online store", total=len(views))
        for view in views:
            materialize(store, view.name, YEAR_START, REPLAY_START)
            progress.advance(task)
    return True


def _empty_online(store: FeatureStore, views: list[FeatureView]) -> None:
    online = store.provider.online_store
    online.teardown(store.config, views, [])
    online.update(store.config, [], views, [], [], partial=False)


def _digests(repo: Path) -> dict[str, str]:
    code = [_HERE / name for name in ("files.py", "raw.py", "windows.py", "sources.py")]
    packages = stamps.versions("numpy", "pandas", "pyarrow")
    sources = stamps.digest_of([data_digest(), *stamps.file_digests(code), *packages])
    fairlead_features = Path(features.__file__).parent
    definitions = [repo / "definitions.py", settings_file(repo), _HERE / "features.py", _HERE / "store.py"]
    stores = [fairlead_features / "sqlite.py", fairlead_features / "duckdb.py"]
    packages = stamps.versions("feast", "duckdb", "ibis-framework")
    store = stamps.digest_of([sources, *stamps.file_digests([*definitions, *stores]), *packages])
    return {"sources": sources, "store": store}


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Let one build at a time into a data folder; another waits."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: python -m flights.features --repo feature_repo")
def main(
    repo: Annotated[Path, typer.Option(help="Folder of definitions.py and feature_store.yaml.")] = FEATURE_REPO,
) -> None:
    """Build the flights features: sources from the raw data, registry, online store up to the start of the replay."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    if not (repo / "definitions.py").is_file():
        console.print(f"{repo}/definitions.py: no such file; give the feature repository with --repo")
        raise typer.Exit(2)
    try:
        with Progress(*columns, console=console) as progress:
            done = build(repo, progress=progress)
    except RawDataError as error:
        console.print(str(error), soft_wrap=True, markup=False)
        raise typer.Exit(1) from error
    console.print(f"Features: built {', '.join(done)}" if done else "Features: up to date")


if __name__ == "__main__":
    app()
