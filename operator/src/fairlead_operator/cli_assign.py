"""``fairlead assign``: which arm units belong to, by a manifest, or by the route that is in force in a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.errors import USAGE, CommandError, reporting
from fairlead_operator import cli_completion as names
from fairlead_operator.cli_options import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    OutputFormat,
    OutputOption,
    cluster_of,
)
from fairlead_operator.cli_units import units_of

if TYPE_CHECKING:
    from fairlead_operator.api.v1alpha1 import ModelDeployment
    from fairlead_operator.platforms.kubernetes.contexts import Cluster
    from fairlead_operator.platforms.kubernetes.law import Law


def assign(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [UNIT]...",
            help="In a cluster the deployment's name first; then units, read from stdin if there are none.",
            show_default=False,
            autocompletion=names.first_deployment,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The ModelDeployment, a YAML file: by its weights.")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(help="With -f, under steps: the weights of this one, from 1; those of the last.", min=1),
    ] = None,
    units: Annotated[
        Path | None, typer.Option(help="File of units, one a line; - for stdin.", show_default=False)
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
    *,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Compute which arm units belong to: under a manifest's weights, or in a cluster under those in force.

    In a cluster salt, arms and their order are read from the VirtualService, so it is what the gateway does now. Each
    line says unit, bucket and arm; in a cluster also the revision.

    Example: fairlead assign -n flights arrival-delay N14228 N24211
    """
    given = words or []
    if file is not None:
        if namespace:
            raise CommandError("--namespace: -f is given too; give one of them", USAGE)
        salt, rows = _by_manifest(file, step, units_of(given, units))
    else:
        cluster = cluster_of(namespace, context, kubeconfig)
        if cluster is None or not given:
            raise CommandError("--file: give -f FILE, or -n NAMESPACE and the NAME of a deployment in a cluster", USAGE)
        salt, rows = _by_route(cluster, given[0], units_of(given[1:], units))
    _print(salt, rows, output)


def _by_manifest(file: Path, step: int | None, units: Iterable[str]) -> tuple[str, Iterable[dict[str, Any]]]:
    from fairlead import Layout, bucket_of  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.api.manifest import read  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick

    with reporting(OperatorError):
        deployment = read(file).deployment
    salt = deployment.salt
    layout = Layout.of(deployment.spec.control.name, _weights_bp(deployment, step))
    numbered = ((unit, bucket_of(unit, salt)) for unit in units)
    return salt, ({"unit": unit, "bucket": bucket, "arm": layout.arm_at(bucket)} for unit, bucket in numbered)


def _weights_bp(deployment: ModelDeployment, step: int | None) -> dict[str, int]:
    """Return the weights of treatments, under steps those of one."""
    from fairlead_operator.api.v1alpha1 import basis_points  # noqa: PLC0415 -- --help stays quick

    steps = deployment.spec.rollout.steps
    if step is not None and step > len(steps):
        raise CommandError(f"--step: the manifest has {len(steps)} steps", USAGE)
    if not steps or not deployment.spec.treatments:
        return deployment.weights_bp
    weights = steps[-1 if step is None else step - 1].weights
    return {variant.name: basis_points(weights.get(variant.name, 0)) for variant in deployment.spec.treatments}


def _by_route(cluster: Cluster, name: str, units: Iterable[str]) -> tuple[str, Iterable[dict[str, Any]]]:
    law = _law(cluster, name)
    if law.altered:
        message = f"warning: somebody has changed the weights of VirtualService {name}; the operator restores them"
        typer.echo(message, err=True)
    assigned = (law.assign(unit) for unit in units)
    rows = ({"unit": a.unit, "bucket": a.bucket, "arm": a.arm, "revision": a.revision} for a in assigned)
    return law.salt, rows


def _law(cluster: Cluster, name: str) -> Law:
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.kubernetes.deployed import Place, asked  # noqa: PLC0415 -- needs a client
    from fairlead_operator.platforms.kubernetes.errors import NotFound  # noqa: PLC0415 -- see above
    from fairlead_operator.platforms.kubernetes.kinds import VIRTUAL_SERVICE  # noqa: PLC0415 -- see above
    from fairlead_operator.platforms.kubernetes.law import law_of  # noqa: PLC0415 -- see above
    from fairlead_operator.runtime.keys import ObjectKey  # noqa: PLC0415 -- see above

    async def read(place: Place) -> Law:
        key = ObjectKey(place.namespace, name)
        try:
            return law_of(await place.api.get(VIRTUAL_SERVICE, key))
        except NotFound as error:
            await place.find(name)
            message = f"{key}: no route is in force yet; `fairlead status {name} -n {place.namespace}` says why"
            raise NotFound(message) from error

    with reporting(OperatorError):
        return asked(cluster, read)


def _print(salt: str, rows: Iterable[dict[str, Any]], output: OutputFormat) -> None:
    if output is OutputFormat.TABLE:
        for row in rows:
            typer.echo("\t".join(str(value) for value in row.values()))
        return
    listed: Sequence[dict[str, Any]] = list(rows)
    document = {"salt": salt, "assignments": listed}
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(document, indent=2))
    else:
        import yaml  # noqa: PLC0415 -- --help stays quick

        typer.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
