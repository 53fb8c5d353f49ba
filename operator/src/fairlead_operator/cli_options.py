"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ManifestOption = Annotated[
    Path, typer.Option("--file", "-f", help="The ModelDeployment, a YAML file.", show_default=False)
]
StateOption = Annotated[Path, typer.Option("--state", help="Folder of the state.")]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="In a cluster: the deployment's namespace.", show_default="on this machine"),
]
ContextOption = Annotated[
    str | None, typer.Option(help="In a cluster: context of the kubeconfig.", show_default="the current one")
]
NameArgument = Annotated[str, typer.Argument(help="Name of the deployment.", show_default=False)]
