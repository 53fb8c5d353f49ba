"""``fairlead experiment``: what experiments say, whether a record is true, and what an experiment will take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.errors import FAILED, USAGE, CommandError

if TYPE_CHECKING:
    from fairlead.cli.ledger import Ledger, Told

ERASED = 3
"""Exit code of ``verify``: the record is whole, and the ledger has fewer units now, for some were erased since."""

_PARTS_OF_DEPLOYMENT, _PARTS_OF_SALT = 2, 3

LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger", help="Address of the ledger.", envvar="FAIRLEAD_LEDGER", show_default="that of `fairlead up` here"
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key", help="File with the API key, ID.SECRET.", show_default="what FAIRLEAD_LEDGER_API_KEY holds"
    ),
]
StateOption = Annotated[Path, typer.Option("--state", help="Folder of the state of `fairlead up`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def commands(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help=_experiment.__doc__)
    group.command("list")(listed)
    group.command()(show)
    group.command()(verify)
    group.command()(plan)
    app.add_typer(group, name="experiment")


def _experiment() -> None:
    """Show experiments, check their decision records, and plan new ones.

    Example: fairlead experiment show flights/arrival-delay
    """


def listed(
    *,
    ledger: LedgerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
    state: StateOption = Path(".fairlead"),
) -> None:
    """List experiments, the latest first.

    Example: fairlead experiment list --ledger http://127.0.0.1:8090
    """
    from fairlead.cli.experiment_view import print_list  # noqa: PLC0415 -- --help stays quick

    found = _ledger(ledger, api_key, state).experiments()
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
    else:
        print_list(found)


def show(
    experiment: Annotated[
        str, typer.Argument(help="NAMESPACE/NAME for its latest, or NAMESPACE/NAME/ID.", show_default=False)
    ],
    *,
    ledger: LedgerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Show what an experiment says: the verdict, what was done, what it does not mean, and the figures of each step.

    Example: fairlead experiment show flights/arrival-delay
    """
    from fairlead.cli.experiment_view import Shown, print_experiment  # noqa: PLC0415 -- --help stays quick

    asked = _ledger(ledger, api_key, state)
    told = _chosen(asked, experiment)
    shown = Shown.of(asked, told)
    if as_json:
        typer.echo(json.dumps(shown.document, indent=2))
    else:
        print_experiment(shown)


def verify(
    record: Annotated[str, typer.Argument(help="The decision record: a file, or its address.", show_default=False)],
    *,
    ledger: LedgerOption = None,
    api_key: KeyOption = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Check a decision record: its hash, that its verdict follows from its evidence, and that the ledger agrees.

    Without a ledger the first two are checked. Ends with 0 if everything agrees, with 1 if something differs (the
    message says what), with 2 if there is no record to read, and with 3 if the record is whole and the ledger has fewer
    units now because some were erased since.

    Example: fairlead experiment verify build/demo/record.json --ledger http://127.0.0.1:8090
    """
    from fairlead.cli import experiment_verify  # noqa: PLC0415 -- --help stays quick

    known = _ledger_if_any(ledger, api_key, state)
    checked = experiment_verify.checked(record, known, api_key)
    for line in checked.lines:
        typer.echo(line)
    if checked.exit_code:
        raise typer.Exit(checked.exit_code)


def plan(
    file: Annotated[Path, typer.Option("--file", "-f", help="The ModelDeployment, a YAML file.", show_default=False)],
    units_per_day: Annotated[
        float, typer.Option("--units-per-day", help="New units that are exposed a day, over all arms.", min=0.001)
    ],
    *,
    baseline: Annotated[
        float | None, typer.Option(help="The objective's metric with control: 0.14.", show_default=False)
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Its standard deviation over units; not needed for a Proportion.", show_default=False, min=0.0
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="Take both from an earlier experiment: NAMESPACE/NAME or NAMESPACE/NAME/ID.", show_default=False
        ),
    ] = None,
    ledger: LedgerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Say how many units and days an experiment takes to find its minimumEffect, the smallest change worth shipping.

    Warns where maximumDuration is shorter. Half of it is the typical stop. What a unit's requests scatter by is known
    from an earlier experiment on the same metric (--like), or from a log (--baseline and --sigma).

    Example: fairlead experiment plan -f modeldeployment.yaml --units-per-day 400 --baseline 0.14 --sigma 0.1
    """
    from fairlead.cli import experiment_plan  # noqa: PLC0415 -- --help stays quick

    planned = experiment_plan.read(file)
    if like is not None:
        asked = _ledger(ledger, api_key, state)
        known = experiment_plan.baseline_like(asked, _chosen(asked, like), planned)
    else:
        known = experiment_plan.baseline_given(planned, baseline, sigma)
    need = experiment_plan.need_of(planned, known, units_per_day)
    if as_json:
        typer.echo(json.dumps(experiment_plan.document(planned, need), indent=2))
        return
    for line in experiment_plan.lines(planned, need, units_per_day):
        typer.echo(line)
    if not need.fits:
        typer.secho("warning: ", fg=typer.colors.YELLOW, bold=True, err=True, nl=False)
        typer.echo(experiment_plan.warning(planned, need), err=True)


def _ledger(address: str | None, api_key: Path | None, state: Path) -> Ledger:
    from fairlead.cli.ledger import ledger_of  # noqa: PLC0415 -- --help stays quick

    found = ledger_of(address, api_key, state)
    if found is None:
        message = f"--ledger: no ledger is known; give its address, or run `fairlead up` here ({state} has none)"
        raise CommandError(message, USAGE)
    return found


def _ledger_if_any(address: str | None, api_key: Path | None, state: Path) -> Ledger | None:
    from fairlead.cli.ledger import ledger_of  # noqa: PLC0415 -- --help stays quick

    return ledger_of(address, api_key, state)


def _chosen(ledger: Ledger, name: str) -> Told:
    """Return the experiment of a name; of a deployment the latest one.

    Raises:
        CommandError: The name is neither, or there is none.
    """
    parts = name.strip("/").split("/")
    if not all(parts) or len(parts) not in (_PARTS_OF_DEPLOYMENT, _PARTS_OF_SALT):
        raise CommandError(f"{name}: is no experiment; give NAMESPACE/NAME or NAMESPACE/NAME/ID", USAGE)
    salt = "/".join(parts)
    if len(parts) == _PARTS_OF_SALT:
        return ledger.experiment(salt)
    found = [one for one in ledger.experiments() if one.salt.rpartition("/")[0] == salt]
    if not found:
        raise CommandError(f"{salt}: the ledger {ledger.address} has no experiment of it", FAILED)
    return found[0]
