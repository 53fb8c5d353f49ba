"""``fairlead skew``: served features beside point-in-time features, and why they differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.errors import FAILED, USAGE, CommandError, reporting

if TYPE_CHECKING:
    from feast import FeatureStore

    from fairlead.skew.log import LoggedModel
    from fairlead.skew.report import ModelSkew

_TIME = "%Y-%m-%dT%H:%M:%S"


def skew(
    log: Annotated[Path, typer.Argument(help="The prediction log: its folder, or a file of it.", show_default=False)],
    feature_store: Annotated[
        Path,
        typer.Option("--feature-store", help="Feature repository, or its feature_store.yaml.", show_default=False),
    ],
    *,
    model: Annotated[str | None, typer.Option(help="Only of this model.", show_default="all")] = None,
    variant: Annotated[str | None, typer.Option(help="Only of this variant.", show_default="all")] = None,
    revision: Annotated[str | None, typer.Option(help="Only of this revision.", show_default="all")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=[_TIME], help="Only what was served then or later, UTC.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=[_TIME], help="Only what was served before, UTC.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a model to compare; of more, so many evenly.")] = 10_000,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How far numbers may be apart, as a share of the larger one.")
    ] = 1e-6,
    most_skew: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of values that may differ, of each feature.")
    ] = 0.01,
    picture: Annotated[
        Path | None, typer.Option(help="Draw it into this SVG file, too.", show_default=False, dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Compare served features with point-in-time features, and say how many differ and why.

    Reads the log of a server (--prediction-log), joins features to each row as of the time at which it was served, by
    Feast's own get_historical_features, and compares. Ends with 0 if no feature differs in more than --most-skew of the
    rows, with 1 if one does, and with 2 if nothing could be compared.

    Example: fairlead skew build/prediction-log --feature-store feature_repo
    """
    from fairlead.skew.errors import SkewError  # noqa: PLC0415 -- --help stays quick

    store = _opened(feature_store)
    with reporting(SkewError):
        from fairlead.skew.log import Choice, read_log  # noqa: PLC0415 -- pandas and Arrow take a second

        choice = Choice(
            model=model, variant=variant, revision=revision, since=_utc(since), until=_utc(until), rows=rows
        )
        found = _measured(store, read_log(log, choice), tolerance, quiet=as_json)
    _say(found, most_skew, as_json=as_json)
    if picture is not None:
        _draw(found, most_skew, picture)
    if any(one.worst > most_skew for one in found):
        raise typer.Exit(FAILED)


def _opened(path: Path) -> FeatureStore:
    """Open a feature store.

    Raises:
        CommandError: There is none.
    """
    from fairlead.skew.errors import said  # noqa: PLC0415 -- --help stays quick

    file = path if path.suffix in {".yaml", ".yml"} else path / "feature_store.yaml"
    if not file.is_file():
        raise CommandError(f"--feature-store {path}: has no feature_store.yaml; give the feature repository", USAGE)
    try:
        from feast import FeatureStore  # noqa: PLC0415 -- Feast takes seconds to import
    except ImportError as error:
        raise CommandError("this command needs Feast: pip install 'fairlead[feast]'", USAGE) from error
    try:
        return FeatureStore(repo_path=str(file.parent), fs_yaml_file=file)
    except Exception as error:  # whatever Feast says of its configuration, it is what the user must mend
        raise CommandError(f"--feature-store {path}: cannot be opened ({said(error)})", USAGE) from error


def _measured(store: FeatureStore, logged: Sequence[LoggedModel], tolerance: float, *, quiet: bool) -> list[ModelSkew]:
    import warnings  # noqa: PLC0415 -- with the others

    from rich.console import Console  # noqa: PLC0415 -- --help stays quick
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 -- as above

    from fairlead.skew.measure import measure  # noqa: PLC0415 -- as above

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("rows replayed", total=sum(len(one.rows) for one in logged))
        advance: Callable[[int], None] = lambda done: progress.advance(task, done)  # noqa: E731
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast's stores warn of each other's pandas
            return [measure(store, one, tolerance=tolerance, advance=advance) for one in logged]


def _say(found: Sequence[ModelSkew], most_skew: float, *, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"most_skew": most_skew, "models": [one.document() for one in found]}
        typer.echo(json.dumps(document, indent=2))
        return
    from fairlead.cli.skew_view import print_skew  # noqa: PLC0415 -- --help stays quick

    for one in found:
        print_skew(one, most_skew)


def _draw(found: Sequence[ModelSkew], most_skew: float, path: Path) -> None:
    from fairlead.skew.picture import drawn  # noqa: PLC0415 -- rarely wanted

    try:
        path.write_text(drawn(found, most_skew), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--picture {path}: cannot be written ({error.strerror})", USAGE) from error


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
