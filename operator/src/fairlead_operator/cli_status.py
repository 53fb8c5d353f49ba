"""``fairlead status``: a deployment as it is, once or for as long as somebody watches, here or in a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from fairlead.cli.errors import USAGE, CommandError, reporting
from fairlead_operator import cli_completion as names
from fairlead_operator.cli_options import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    OutputFormat,
    OutputOption,
    StateOption,
    cluster_of,
)

if TYPE_CHECKING:
    from fairlead_operator.console import View
    from fairlead_operator.platforms.kubernetes.contexts import Cluster

_LOOK_S = 0.5
"""How often the state folder is looked at while somebody watches."""


def status(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Deployment to show; all of them if left out.", show_default=False, autocompletion=names.deployments
        ),
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show every change; Ctrl-C ends it.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="In a cluster: the deployments of all namespaces.")
    ] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Show what is served, by whom, where a rollout stands, and why something is not as it should be.

    JSON and YAML are the whole resource with its status, or a list of them.

    Example: fairlead status arrival-delay -n flights --watch
    """
    if everywhere and name is not None:
        raise CommandError("--all-namespaces: a NAME is given too; give its --namespace instead", USAGE)
    cluster = cluster_of("" if everywhere and namespace is None else namespace, context, kubeconfig)
    if cluster is None:
        _on_this_machine(state, name, output, watch=watch)
    else:
        _in_cluster(cluster, name, output, watch=watch, everywhere=everywhere)


def _in_cluster(cluster: Cluster, name: str | None, output: OutputFormat, *, watch: bool, everywhere: bool) -> None:
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.kubernetes.deployed import Place, asked  # noqa: PLC0415 -- needs a client
    from fairlead_operator.platforms.kubernetes.views import followed, listed, viewed  # noqa: PLC0415 -- see above

    async def show(place: Place) -> None:
        shown = _Shown(output, listing=name is None, live=watch)
        with shown:
            if watch:
                async for views in followed(place, name, _tell, everywhere=everywhere):
                    shown.show(views)
            else:
                shown.show([await viewed(place, name)] if name else await listed(place, everywhere=everywhere))

    with reporting(OperatorError):
        _until_interrupted(lambda: asked(cluster, show))


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _on_this_machine(state: Path, name: str | None, output: OutputFormat, *, watch: bool) -> None:
    from fairlead_operator.platforms.local.state import is_held  # noqa: PLC0415 -- --help stays quick

    first = _views(state, name)
    shown = _Shown(output, listing=len(first) > 1, live=watch)
    with shown:
        shown.show(first)
        if watch:
            _until_interrupted(lambda: asyncio.run(_follow(shown, state, name)))
    if not is_held(state):
        raise CommandError(f"{state}: `fairlead up` is not running; this is how it ended")


async def _follow(shown: _Shown, state: Path, name: str | None) -> None:
    async for views in _changes(state, name):
        shown.show(views)


async def _changes(state: Path, name: str | None) -> AsyncIterator[Sequence[View]]:
    """Yield how the state folder's deployments are after each change, until nothing serves them any more."""
    from fairlead_operator.platforms.local.state import is_held  # noqa: PLC0415 -- --help stays quick

    before = _views(state, name)
    while is_held(state):
        await asyncio.sleep(_LOOK_S)
        now = _views(state, name)
        if now != before:
            yield now
        before = now


def _views(state: Path, name: str | None) -> list[View]:
    from fairlead_operator.console import View  # noqa: PLC0415 -- --help stays quick

    found = sorted(state.glob(f"{name or '*'}/status.json"))
    if not found:
        what = f"deployment {name}" if name else "deployment"
        raise CommandError(f"{state}: no {what} here; start one with `fairlead up -f FILE`, or give its --state")
    return [View(json.loads(file.read_bytes()), _targets(state, file.parent.name)) for file in found]


def _targets(state: Path, name: str) -> dict[str, float] | None:
    """Return the weights that are aimed at; None if the state folder does not say."""
    from fairlead_operator.console import targets_of  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.remembered import remembered  # noqa: PLC0415 -- --help stays quick

    try:
        found = remembered(state, name)
    except OperatorError:
        return None
    return targets_of(found.desired, found.rollout) if found else None


def _until_interrupted(work: Callable[[], object]) -> None:
    try:
        work()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


class _Shown:
    """What is on the screen: one picture after the other, or documents."""

    def __init__(self, output: OutputFormat, *, listing: bool, live: bool) -> None:
        from fairlead_operator.console import Screen  # noqa: PLC0415 -- --help stays quick

        self._output = output
        self._listing = listing
        self._screen = Screen(live=live and output is OutputFormat.TABLE)

    def __enter__(self) -> Self:
        self._screen.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.end()

    def show(self, views: Sequence[View]) -> None:
        """Show how things are now."""
        from fairlead_operator.console import overview, picture  # noqa: PLC0415 -- --help stays quick

        if self._output is OutputFormat.TABLE:
            self._screen.show(overview(views) if self._listing else picture(views[0]))
            return
        document: dict[str, Any] = views[0].resource if not self._listing else _list_of(views)
        if self._output is OutputFormat.JSON:
            typer.echo(json.dumps(document, indent=2))
        else:
            import yaml  # noqa: PLC0415 -- --help stays quick

            typer.echo(yaml.safe_dump(document, sort_keys=False, explicit_start=self._screen.has_shown), nl=False)
        self._screen.has_shown = True


def _list_of(views: Sequence[View]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": [view.resource for view in views]}
