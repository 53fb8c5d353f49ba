"""The command ``fairlead doctor``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.errors import USAGE, CommandError, reporting
from fairlead_operator import cli_completion as names
from fairlead_operator.cli_options import namespace_meant

if TYPE_CHECKING:
    from fairlead_operator.doctor.examine import Examined
    from fairlead_operator.doctor.findings import Scope


class OutputFormat(StrEnum):
    """How the command answers."""

    TEXT = "text"
    JSON = "json"


def commands(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


def doctor(
    name: Annotated[
        str | None, typer.Argument(help="Only this deployment; `fairlead` needs its --namespace.", show_default=False)
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            help="Namespace of the deployments.",
            show_default="all of them",
            callback=namespace_meant,
            autocompletion=names.namespaces,
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(help="Context of the kubeconfig.", show_default="the current one", autocompletion=names.contexts),
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="The kubeconfig.", show_default="kubectl's own", dir_okay=False)
    ] = None,
    operator_namespace: Annotated[str, typer.Option(help="Namespace of the operator.")] = "fairlead-system",
    *,
    local: Annotated[bool, typer.Option("--local", help="Look at this machine instead of a cluster.")] = False,
    state: Annotated[Path, typer.Option(help="With --local: folder of the state.")] = Path(".fairlead"),
    port: Annotated[int, typer.Option(help="With --local: port of the gateway.", min=1, max=65535)] = 8080,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="What to print.")] = OutputFormat.TEXT,
) -> None:
    """Look at everything that Fairlead needs, say what is wrong and how to mend it. Nothing is changed.

    Without --namespace it looks at the deployments of the whole cluster. Ends with 0 if nothing stands in the way, with
    1 if something does.

    Example: fairlead doctor -n flights
    """
    from fairlead_operator.doctor.findings import Level, Scope  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.doctor.report import counts, document, lines, summary  # noqa: PLC0415 -- see above

    if name is not None and namespace is None:
        raise CommandError("NAME: give --namespace, too", USAGE)
    if local and (name or namespace or context or kubeconfig):
        raise CommandError(
            "--local: looks at this machine; leave name, --namespace, --context and --kubeconfig out", USAGE
        )
    text = output is OutputFormat.TEXT

    def tell(examined: Examined) -> None:
        for line in lines(examined) if text else ():
            typer.echo(line)

    if local:
        from fairlead_operator.doctor.local import examine_machine  # noqa: PLC0415 -- --help stays quick

        found = examine_machine(state, port)
        for one in found:
            tell(one)
    else:
        scope = Scope(namespace if name is not None else namespace or None, name, operator_namespace)
        found = _cluster(scope, kubeconfig, context, tell)
    typer.echo(summary(found) if text else json.dumps(document(found), indent=2, ensure_ascii=False))
    if counts(found)[Level.BAD]:
        raise typer.Exit(1)


def _cluster(
    scope: Scope, kubeconfig: Path | None, context: str | None, tell: Callable[[Examined], None]
) -> list[Examined]:
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick

    with reporting(OperatorError):
        return asyncio.run(_examined(scope, kubeconfig, context, tell))


async def _examined(
    scope: Scope, kubeconfig: Path | None, context: str | None, tell: Callable[[Examined], None]
) -> list[Examined]:
    from fairlead_operator.doctor.areas import cluster_checks  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.doctor.examine import examine  # noqa: PLC0415 -- see above
    from fairlead_operator.doctor.reader import Reader  # noqa: PLC0415 -- see above
    from fairlead_operator.platforms.kubernetes.client import KubeClient, Patience  # noqa: PLC0415 -- see above
    from fairlead_operator.platforms.kubernetes.contexts import Cluster, connected  # noqa: PLC0415 -- see above

    connection, namespace = await connected(Cluster(scope.namespace or "", context, kubeconfig))
    if scope.name is not None:
        scope = replace(scope, namespace=namespace)
    patience = Patience(connect_s=4.0, attempt_s=8.0, attempts=2)
    client = KubeClient(connection, user_agent="fairlead-doctor", patience=patience)
    found = []
    try:
        async for one in examine(cluster_checks(), Reader(client, address=connection.configuration.host), scope):
            tell(one)
            found.append(one)
    finally:
        await client.close()
    return found
