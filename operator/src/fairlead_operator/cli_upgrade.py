"""``fairlead upgrade``: move a deployment to another release of the model server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.errors import USAGE, CommandError, reporting
from fairlead_operator import cli_completion as names
from fairlead_operator.cli_files import replace_file
from fairlead_operator.cli_options import ContextOption, KubeconfigOption, NamespaceOption, cluster_of

if TYPE_CHECKING:
    from fairlead_operator.platforms.kubernetes.contexts import Cluster
    from fairlead_operator.platforms.kubernetes.deployed import Deployed
    from fairlead_operator.platforms.kubernetes.ownership import Owner

_RELEASE = r"[0-9]+\.[0-9]+\.[0-9]+([.-][a-z0-9.]+)?"


def upgrade(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the deployment; with -f it is in the file.",
            show_default=False,
            autocompletion=names.deployments,
        ),
    ] = None,
    *,
    release: Annotated[str, typer.Option("--to", help="Exact release of the model server, such as 0.2.0.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write the release into this manifest instead, for a commit.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write though a GitOps tool keeps the spec, and may undo it.")
    ] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Move a deployment's variants to another release of the model server, each ready before it takes over.

    The release is fixed when a deployment is made, and upgrading Fairlead itself moves none. While an experiment runs
    its release is frozen, as its models are. Where a GitOps tool keeps the spec nothing is written: commit the line
    that is printed, or have -f write it into the manifest.

    Example: fairlead upgrade arrival-delay --to 0.2.0 -n flights --dry-run
    """
    if not re.fullmatch(_RELEASE, release):
        raise CommandError(f"--to: {release!r} is no exact release; give one such as 0.2.0", USAGE)
    if file is not None:
        if namespace or context or kubeconfig:
            given = "--namespace" if namespace else "--context" if context else "--kubeconfig"
            raise CommandError(f"{given}: -f writes a file, and asks no cluster; leave one of the two out", USAGE)
        _write_down(file, name, release, dry_run=dry_run)
        return
    cluster = cluster_of(namespace, context, kubeconfig)
    if cluster is None:
        raise CommandError(f"--namespace: {_on_this_machine()}; in a cluster give -n NAMESPACE", USAGE)
    if name is None:
        raise CommandError("NAME: say which deployment, or give its manifest with -f FILE", USAGE)
    _move(cluster, name, release, dry_run=dry_run, force=force)


def _move(cluster: Cluster, name: str, release: str, *, dry_run: bool, force: bool) -> None:
    from fairlead_operator.core.release import upgrade as planned  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.kubernetes.deployed import deployed  # noqa: PLC0415 -- needs a client
    from fairlead_operator.platforms.kubernetes.ownership import owner_of  # noqa: PLC0415 -- see above

    with reporting(OperatorError):
        found = deployed(cluster, name)
        if found.deployment.spec.serving.release == release:
            typer.echo(f"{name}: server release {release} is asked for already; nothing is left to do")
            return
        outlook = planned(found.desired, found.rollout, found.release, release)
        owner = owner_of(found.resource)
        if owner is not None and owner.writes_again and not force:
            raise CommandError(f"{name}: {owner.tool} keeps this spec ({owner.manager}); {_commit(release)}")
        found.move_to(release, dry_run=dry_run)
    typer.echo(f"{name}: {outlook}{_later(found, release, dry_run=dry_run)}")
    if owner is not None:
        typer.echo(_reminder(owner, release))


def _later(found: Deployed, release: str, *, dry_run: bool) -> str:
    if dry_run:
        return " (dry run: the API would take it; nothing is written)"
    if release == found.release:
        return ""
    if found.is_paused or found.manifest_pauses:
        return "; it is paused, so nothing happens until `fairlead resume`"
    return f"\n`fairlead status {found.key.name} -n {found.key.namespace} --watch` follows it"


def _commit(release: str) -> str:
    line = f"spec.serving.release: {release}"
    return f"commit `{line}` to its manifest (`fairlead upgrade -f FILE --to {release}` writes it), or give --force"


def _reminder(owner: Owner, release: str) -> str:
    again = "may undo this" if owner.writes_again else "wrote this spec from a file"
    line = f"serving: {{release: {release}}}"
    return f"{owner.tool} {again}; write it down there, too, under spec: {line}"


def _write_down(file: Path, name: str | None, release: str, *, dry_run: bool) -> None:
    """Name ``release`` in the manifest ``file``, which is that of deployment ``name`` if one is given."""
    from fairlead_operator.api.manifest import read  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.released import released  # noqa: PLC0415 -- --help stays quick

    with reporting(OperatorError):
        manifest = read(file)
        kept = manifest.deployment.metadata.name
        if name is not None and name != kept:
            raise CommandError(f"NAME: {file} is the manifest of {kept}, not of {name}; leave NAME out", USAGE)
        content = released(manifest, release)
    experiment = manifest.deployment.spec.experiment
    frozen = f"; where experiment {experiment.id} runs it is refused until its id is a new one" if experiment else ""
    if dry_run:
        typer.echo(f"{file}: would ask for server release {release}{frozen} (dry run: nothing is written)")
        return
    replace_file(file, content)
    typer.echo(f"{file}: asks for server release {release} now; look at the change and commit it{frozen}")


def _on_this_machine() -> str:
    import importlib.metadata  # noqa: PLC0415 -- --help stays quick

    try:
        installed = importlib.metadata.version("fairlead-server")
    except importlib.metadata.PackageNotFoundError:
        installed = "none is"
    return f"on one machine the release is that of the installed package fairlead-server ({installed})"
