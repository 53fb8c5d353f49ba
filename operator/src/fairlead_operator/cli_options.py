"""Options that several commands share, and where a command is at work: on this machine, or in a cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.errors import USAGE, CommandError
from fairlead_operator import cli_completion as names

if TYPE_CHECKING:
    from fairlead_operator.platforms.kubernetes.contexts import Cluster

KUBECTL = "kubectl"
"""What the application carries where kubectl has started it: then a cluster is meant, whether or not one is named."""


class OutputFormat(StrEnum):
    """How a command answers."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def namespace_meant(context: typer.Context, given: str | None) -> str | None:
    """Return the namespace: empty for the one that the kubeconfig names, None on this machine."""
    return "" if given is None and context.find_root().obj == KUBECTL else given


ManifestOption = Annotated[
    Path, typer.Option("--file", "-f", help="The ModelDeployment, a YAML file.", show_default=False)
]
StateOption = Annotated[Path, typer.Option("--state", help="Folder of the state.")]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="In a cluster: the deployment's namespace.",
        show_default=False,
        callback=namespace_meant,
        autocompletion=names.namespaces,
    ),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        help="In a cluster: context of the kubeconfig.", show_default="the current one", autocompletion=names.contexts
    ),
]
KubeconfigOption = Annotated[
    Path | None, typer.Option(help="In a cluster: the kubeconfig.", show_default="what kubectl takes")
]
NameArgument = Annotated[
    str, typer.Argument(help="Name of the deployment.", show_default=False, autocompletion=names.deployments)
]
OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="What to print.")]


def cluster_of(namespace: str | None, context: str | None, kubeconfig: Path | None) -> Cluster | None:
    """Return the cluster that the options name; None if they name this machine.

    Raises:
        CommandError: They name a cluster by halves.
    """
    if namespace is None:
        if context is not None or kubeconfig is not None:
            given = "--context" if context is not None else "--kubeconfig"
            raise CommandError(f"{given}: give --namespace, too, for a deployment in a cluster", USAGE)
        return None
    from fairlead_operator.platforms.kubernetes.contexts import Cluster  # noqa: PLC0415 -- --help stays quick

    return Cluster(namespace, context, kubeconfig)
