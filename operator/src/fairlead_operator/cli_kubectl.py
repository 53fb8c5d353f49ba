"""``kubectl fairlead``: the commands that work in a cluster, where the kubeconfig says which one if nobody else does.

kubectl finds the plugin as ``kubectl-fairlead`` on the PATH, and asks ``kubectl_complete-fairlead`` what to offer to a
shell.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from fairlead.cli.main import VersionOption, bare_application, run
from fairlead_operator.cli import cluster_commands
from fairlead_operator.cli_options import KUBECTL
from fairlead_operator.doctor.command import commands as doctor

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = "kubectl fairlead"
_OF_ONE_MACHINE = ("state", "local", "port")
"""Options that mean nothing in a cluster."""
_NO_FILES = 4
_FILES = 0
"""What cobra, which kubectl is made with, calls directives: whether file names may be offered, too."""


def plugin() -> Any:
    """Return the plugin's command, as the library beneath typer has it."""
    app = bare_application(_PROGRAM, _root)
    cluster_commands(app)
    doctor(app)
    command: Any = typer.main.get_command(app)
    for verb in command.commands.values():
        verb.help = verb.help.replace("Example: fairlead ", "Example: kubectl fairlead ")
        for option in verb.params:
            option.hidden = getattr(option, "hidden", False) or option.name in _OF_ONE_MACHINE
    return command


def _root(version: VersionOption = False) -> None:
    """Look at ModelDeployments, ask them, and decide about their rollouts; the kubeconfig's namespace is meant.

    Example: kubectl fairlead status arrival-delay
    """


def main() -> None:
    """Run the plugin; ends the process with 0, or with the failing command's code."""
    run(plugin(), prog_name=_PROGRAM, obj=KUBECTL)


def complete() -> None:
    """Print what fits the words so far, as kubectl reads it: one a line, what it is after a tab, a directive last."""
    *words, incomplete = sys.argv[1:] or [""]
    for line in offered(words, incomplete):
        print(line)  # noqa: T201 -- for kubectl


def offered(words: Sequence[str], incomplete: str) -> list[str]:
    """Return the lines that answer kubectl.

    Args:
        words: What has been typed after ``kubectl fairlead``, the last word left out.
        incomplete: The last word, as far as it goes.
    """
    from typer._completion_classes import BashComplete  # noqa: PLC0415 -- typer has no public name for it

    found = BashComplete(plugin(), {"obj": KUBECTL}, _PROGRAM, "").get_completions(list(words), incomplete)
    lines = [f"{item.value}\t{(item.help or '').strip().partition(chr(10))[0]}".rstrip() for item in found]
    return [*lines, f":{_NO_FILES if lines else _FILES}"]
