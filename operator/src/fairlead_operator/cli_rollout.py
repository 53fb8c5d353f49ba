"""Commands that decide about a rollout, on one machine or in a cluster: pause, resume, promote, abort."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from fairlead.cli.errors import USAGE, CommandError, reporting
from fairlead_operator import cli_completion as names
from fairlead_operator.cli_files import replace_file
from fairlead_operator.cli_options import (
    ContextOption,
    KubeconfigOption,
    NameArgument,
    NamespaceOption,
    StateOption,
    cluster_of,
)

if TYPE_CHECKING:
    from fairlead_operator.core.desired import Desired
    from fairlead_operator.core.record import Record
    from fairlead_operator.platforms.kubernetes.contexts import Cluster
    from fairlead_operator.platforms.local.remembered import Remembered


def pause(
    name: NameArgument,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Keep a deployment as it is: no weight moves, no edit is taken up, and steps are not counted on.

    On one machine what stops answering still loses its weight, and gets it back; in a cluster nothing is written.

    Example: fairlead pause arrival-delay -n flights
    """
    from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION  # noqa: PLC0415 -- --help stays quick

    found = _found(name, cluster_of(namespace, context, kubeconfig), state)
    if found.is_paused:
        raise CommandError(f"{name}: is paused already; `fairlead resume {name}` lets it go on")
    _annotate(found, {PAUSED_ANNOTATION: "true"})
    _say(found, f"paused; nothing moves until `fairlead resume {name}`")


def resume(
    name: NameArgument,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Let a paused deployment go on where it was.

    Example: fairlead resume arrival-delay
    """
    from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION  # noqa: PLC0415 -- --help stays quick

    found = _found(name, cluster_of(namespace, context, kubeconfig), state)
    if not found.is_paused:
        where = "its manifest says spec.paused: true; change it there" if found.manifest_pauses else "is not paused"
        raise CommandError(f"{name}: {where}")
    _annotate(found, {PAUSED_ANNOTATION: None})
    _say(found, "goes on where it was")


def promote(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the deployment; with -f it is in the file.",
            show_default=False,
            autocompletion=names.deployments,
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Argument(
            help="The winner; the only candidate if left out.", show_default=False, autocompletion=names.variants
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Write a past promotion into this manifest instead: the winner as Control."),
    ] = None,
    *,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Let a candidate take everything, without waiting for steps or evidence.

    With -f it moves no weight: it makes the winner the Control in a manifest file, for you to commit. The former
    Control stays as a Treatment without weight and no server is started or stopped; comments are kept.

    Example: fairlead promote arrival-delay boosted
    """
    if file is not None:
        _write_down(file, name, variant, cluster_of(namespace, context, kubeconfig), state)
        return
    if name is None:
        raise CommandError("NAME: say which deployment, or give its manifest with -f FILE", USAGE)
    from fairlead_operator.core.requests import promotion  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick

    found = _found(name, cluster_of(namespace, context, kubeconfig), state)
    with reporting(OperatorError):
        request = promotion(found.desired, found.rollout, variant)
    _ask(found, request.text, request.outlook)


def abort(
    name: NameArgument,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Give everything back to control; after a promotion, go back to what it replaced while that is kept.

    Example: fairlead abort arrival-delay
    """
    import time  # noqa: PLC0415 -- --help stays quick

    from fairlead_operator.core.requests import abortion  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick

    found = _found(name, cluster_of(namespace, context, kubeconfig), state)
    with reporting(OperatorError):
        request = abortion(found.desired, found.rollout, time.time())
    _ask(found, request.text, request.outlook)


class _Deployment(Protocol):
    """What the commands need of a deployment, wherever it is."""

    @property
    def desired(self) -> Desired: ...
    @property
    def rollout(self) -> Record: ...
    @property
    def is_up(self) -> bool: ...
    @property
    def is_paused(self) -> bool: ...
    @property
    def manifest_pauses(self) -> bool: ...
    def annotate(self, changes: Mapping[str, str | None]) -> None: ...


def _found(name: str, cluster: Cluster | None, state: Path) -> _Deployment:
    """Return the deployment in a cluster if one is named, else the one on this machine."""
    if cluster is None:
        return _remembered(state, name)
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.kubernetes.deployed import deployed  # noqa: PLC0415 -- needs a client

    with reporting(OperatorError):
        return deployed(cluster, name)


def _annotate(found: _Deployment, changes: Mapping[str, str | None]) -> None:
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick

    with reporting(OperatorError):
        found.annotate(changes)


def _remembered(state: Path, name: str) -> Remembered:
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.remembered import remembered  # noqa: PLC0415 -- --help stays quick

    with reporting(OperatorError):
        found = remembered(state, name)
    if found is None:
        raise CommandError(f"{state}: no deployment {name} here; start it with `fairlead up -f FILE`, or give --state")
    return found


def _ask(found: _Deployment, text: str, outlook: str) -> None:
    from fairlead_operator.api.v1alpha1 import REQUEST_ANNOTATION  # noqa: PLC0415 -- --help stays quick

    _annotate(found, {REQUEST_ANNOTATION: text})
    later = "; it is paused, so nothing happens until `fairlead resume`" if found.is_paused else ""
    _say(found, outlook + later)


def _say(found: _Deployment, sentence: str) -> None:
    stopped = "" if found.is_up else " (`fairlead up` is not running; from its next start)"
    typer.echo(f"{found.desired.name}: {sentence}{stopped}")


def _write_down(file: Path, name: str | None, variant: str | None, cluster: Cluster | None, state: Path) -> None:
    """Make the winner the Control in ``file``."""
    from fairlead_operator.api.manifest import read  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.succession import succeeded  # noqa: PLC0415 -- --help stays quick

    with reporting(OperatorError):
        manifest = read(file)
        deployment = manifest.deployment.metadata.name
        winner = variant if name in {None, deployment} else variant or name
        winner = winner or _winner(deployment, cluster, state)
        if winner is None:
            where = "the cluster" if cluster else state
            message = f"no promotion of {deployment} is known in {where}"
            raise CommandError(f"{message}; name the winner: fairlead promote -f {file} VARIANT", USAGE)
        replace_file(file, succeeded(manifest, winner))
    typer.echo(f"{file}: {winner} is the Control now; look at the change and commit it")


def _winner(name: str, cluster: Cluster | None, state: Path) -> str | None:
    """Return the variant that was promoted last; None if nobody knows of one."""
    from fairlead_operator.core.goal import current_run, winner_of  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.remembered import remembered  # noqa: PLC0415 -- --help stays quick

    found = _found(name, cluster, state) if cluster else remembered(state, name)
    run = current_run(found.desired, found.rollout) if found else None
    return winner_of(found.desired, run) if found and run else None
