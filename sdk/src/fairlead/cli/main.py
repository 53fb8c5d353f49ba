"""``fairlead``: the commands of every installed package, and how they fail.

A package adds commands by an entry point of group ``fairlead.commands``: a function that takes the application and
registers them. What a command needs beyond its arguments it imports when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

import fairlead
from fairlead.cli.errors import CommandError
from fairlead.cli.inspect import inspect

PLUGINS = "fairlead.commands"
"""Group of the entry points."""


def application() -> typer.Typer:
    """Return the application with the commands of every installed package."""
    app = typer.Typer(
        name="fairlead",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command()(inspect)
    for plugin in sorted(importlib.metadata.entry_points(group=PLUGINS), key=lambda entry: entry.name):
        plugin.load()(app)
    return app


def main() -> None:
    """Run the command line; ends the process with 0, or with the failing command's code."""
    try:
        application()(prog_name="fairlead")
    except CommandError as error:
        typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from None


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    """Serve ONNX models with features from Feast, and run A/B tests on them that can be trusted.

    Example: fairlead up -f examples/flights/modeldeployment.yaml
    """
    if version:
        typer.echo(fairlead.__version__)
        raise typer.Exit


if __name__ == "__main__":
    main()
