"""``fairlead``: the commands of every installed package, and how they fail.

A package adds commands by an entry point of group ``fairlead.commands``: a function that takes the application and
registers them. What a command needs beyond its arguments it imports when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Annotated, Any

import typer

import fairlead
from fairlead.cli.completion import completion, prepare_completion
from fairlead.cli.errors import CommandError
from fairlead.cli.inspect import inspect
from fairlead.cli.skew import skew
from fairlead.features import light_feast

PLUGINS = "fairlead.commands"
"""Group of the entry points."""


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(fairlead.__version__)
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
]


def application() -> typer.Typer:
    """Return the application with the commands of every installed package."""
    app = bare_application("fairlead", _root)
    app.command()(inspect)
    app.command()(skew)
    app.command()(completion)
    for plugin in sorted(importlib.metadata.entry_points(group=PLUGINS), key=lambda entry: entry.name):
        plugin.load()(app)
    return app


def bare_application(name: str, root: Callable[..., None]) -> typer.Typer:
    """Return an application without commands.

    Args:
        name: What it is called.
        root: What it does before a command, and where its options and its description come from.
    """
    app = typer.Typer(
        name=name,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    return app


def main() -> None:
    """Run the command line; ends the process with 0, or with the failing command's code."""
    prepare_completion()
    light_feast.install()
    run(application(), prog_name="fairlead")


def run(app: Callable[..., Any], **given: Any) -> None:
    """Run an application; ends the process with 0, or with the failing command's code.

    Args:
        app: The application, or its command.
        given: What it is called with.
    """
    try:
        app(**given)
    except CommandError as error:
        typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from None


def _root(version: VersionOption = False) -> None:
    """Serve ONNX models with features from Feast, and run A/B tests on them that can be trusted.

    Example: fairlead up -f examples/flights/modeldeployment.yaml
    """


if __name__ == "__main__":
    main()
