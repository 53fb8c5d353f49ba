"""``fairlead completion``: the script that has a shell complete commands, options and names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """A shell that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="Which shell: bash, zsh or fish.", show_default=False)],
) -> None:
    """Print the script that has a shell complete commands, options, and the names of deployments and variants.

    bash: put `source <(fairlead completion bash)` into ~/.bashrc. zsh: the same with zsh into ~/.zshrc, below compinit.
    fish: write it to ~/.config/fish/completions/fairlead.fish. The plugin `kubectl fairlead` needs none of its own.

    Example: fairlead completion bash
    """
    from typer._completion_shared import get_completion_script  # noqa: PLC0415 -- --help stays quick

    program = context.find_root().info_name or "fairlead"
    script = get_completion_script(prog_name=program, complete_var=_variable(program), shell=shell.value)
    typer.echo(script)


def prepare_completion() -> None:
    """Let the application answer shells that ask it what to offer; cheap enough to be done always."""
    from typer._completion_classes import completion_init  # noqa: PLC0415 -- typer has no public name for it

    completion_init()


def _variable(program: str) -> str:
    """Return the variable by which a script asks; typer derives the same."""
    return f"_{program}_COMPLETE".replace("-", "_").upper()
