"""Train, evaluate and package the two flights models: what ``examples/flights/train.py`` runs.

A model is trained again when its features, code or package versions have changed, or when what the manifest names
is no longer there. Each run leaves one record in ``build/flights/runs``; a candidate that does not beat what is
served on the held-out month is recorded and goes no further.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from flights.errors import FlightsError
from flights.manifest import deployed, follow
from flights.paths import BUILD, ROOT
from flights.runs import SERVICES, RunRecord, read_record, record_path, run_digest, write_record

MANIFEST = ROOT / "examples" / "flights" / "modeldeployment.yaml"
CLUSTER_MANIFEST = ROOT / "examples" / "flights" / "cluster" / "modeldeployment.yaml"
"""The same models in a cluster; follows the manifest for one machine."""
RUNS = BUILD / "runs"


class ModelName(StrEnum):
    """The models there are."""

    LOGISTIC = "logistic"
    BOOSTED = "boosted"


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: python examples/flights/train.py --model boosted")
def main(
    model: Annotated[list[ModelName] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    manifest: Annotated[Path, typer.Option(help="ModelDeployment whose digests are written.")] = MANIFEST,
    runs: Annotated[Path, typer.Option(help="Folder of the run records.")] = RUNS,
    again: Annotated[bool, typer.Option("--again", help="Train even if nothing has changed.")] = False,
) -> None:
    """Train the flights models on January to October, evaluate on November, and package what beats what is served."""
    from fairlead.contract import ContractError  # noqa: PLC0415 -- --help needs none of it

    console = Console(stderr=True)
    names = [name.value for name in model] if model else list(SERVICES)
    try:
        records = train_all(names, manifest=manifest, runs=runs, again=again, console=console)
    except (ContractError, FlightsError, ValueError) as error:
        console.print(f"train: {error}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(1) from error
    Console().print(summary(records))


def train_all(
    names: list[str], *, manifest: Path, runs: Path, console: Console, again: bool = False
) -> dict[str, tuple[RunRecord, bool]]:
    """Train the models that are not up to date.

    Returns:
        By model: the record of its run, and whether it was trained now.

    Raises:
        FeaturesNotBuilt: There is nothing to train on.
        ManifestError: The manifest lacks a model.
        PackagingError: A model cannot be packaged; what is served stays.
    """
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        records = {name: _up_to_date(name, manifest, runs, again=again, progress=progress) for name in names}
    if manifest == MANIFEST:
        follow(CLUSTER_MANIFEST, MANIFEST, names)
    return records


def _up_to_date(name: str, manifest: Path, runs: Path, *, again: bool, progress: Progress) -> tuple[RunRecord, bool]:
    served = deployed(manifest, name)
    run = run_digest(name)
    path = record_path(runs, name, run)
    known = read_record(path)
    if known and known.serving_digest == served.digest and served.intact and not again:
        return known, False
    task = progress.add_task(f"{name}: load libraries", total=None)
    began = time.monotonic()
    record = _train(name, run, manifest, lambda what: progress.update(task, description=f"{name}: {what}"))
    record = record.model_copy(update={"seconds": round(time.monotonic() - began, 3)})
    write_record(path, record)
    progress.update(task, description=f"{name}: {_outcome(record)}", total=1, completed=1)
    return record, True


def _train(name: str, run: str, manifest: Path, on_step: Callable[[str], None]) -> RunRecord:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # feast warns that on-demand views are young, once per read
        from flights import fitting  # noqa: PLC0415 -- feast and scikit-learn take 3 s, an unchanged run needs neither
        from flights.store import open_store  # noqa: PLC0415 -- as above

        store = open_store()
        on_step("read the point-in-time rows")
        months = fitting.read_months(name, store)
        return fitting.train(name, run, months, store=store, manifest=manifest, on_step=on_step)


def summary(records: dict[str, tuple[RunRecord, bool]]) -> Table:
    """Return the table of all runs: score, what it had to beat, what became of it."""
    table = Table(title="Arrival 15 or more minutes late, November", title_justify="left", box=None)
    for column in ("model", "Brier", "log loss", "ROC AUC", "to beat", "outcome", "serving"):
        table.add_column(column)
    for name, (record, trained) in records.items():
        metrics = record.metrics
        table.add_row(
            name,
            f"{metrics['brier']:.4f}",
            f"{metrics['log_loss']:.4f}",
            f"{metrics['roc_auc']:.4f}",
            f"{record.rival_brier:.4f} ({record.rival.removesuffix(' model')})",
            _outcome(record) if trained else "up to date",
            (record.serving_digest or "nothing").removeprefix("sha256:")[:8],
        )
    return table


def _outcome(record: RunRecord) -> str:
    if record.packaged:
        return "packaged"
    return "not better"
