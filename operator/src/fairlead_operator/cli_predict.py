"""``fairlead predict``: ask a deployment as its clients do, on this machine or through a cluster's gateway."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.errors import USAGE, CommandError, reporting
from fairlead_operator import cli_completion as names
from fairlead_operator.cli_options import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    StateOption,
    cluster_of,
)
from fairlead_operator.cli_units import checked

if TYPE_CHECKING:
    from fairlead_operator.platforms.kubernetes.contexts import Cluster
    from fairlead_operator.predict import Endpoint

DEFAULT_PORT = 8080


def predict(
    name: Annotated[
        str | None,
        typer.Argument(
            help="In a cluster: name of the deployment.", show_default=False, autocompletion=names.deployments
        ),
    ] = None,
    *,
    data: Annotated[
        str, typer.Option("--data", "-d", help="JSON: an instance, a list of them, or a V1 body; @FILE reads a file.")
    ],
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The ModelDeployment that is up.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Base of the endpoint, or of the cluster's gateway: http://127.0.0.1:8080.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model; needed with --url alone.")] = None,
    unit: Annotated[str | None, typer.Option(help="The unit that asks.")] = None,
    unit_from: Annotated[
        str | None, typer.Option(help="Key of the instances that is the unit; each unit is asked for on its own.")
    ] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Ask for predictions over V1, and show which variant answered.

    In a cluster the gateway is asked, by the deployment's host; where it cannot be reached from here, forward a port of
    it and give that as --url.

    Example: fairlead predict -f examples/flights/modeldeployment.yaml --unit-from tailnum --data @flight.json
    """
    from fairlead_operator.predict import calling  # noqa: PLC0415 -- --help stays quick

    if unit is not None and unit_from is not None:
        raise CommandError("--unit-from: --unit is given too; give one of them", USAGE)
    cluster = cluster_of(namespace, context, kubeconfig) if file is None else None
    if cluster is not None and name is None:
        raise CommandError("NAME: say which deployment of the namespace", USAGE)
    requests = list(_requests(_instances(data), unit, unit_from))
    endpoint = _in_cluster(cluster, name or "", url, model) if cluster else _local(file, url, model, state)
    lost = False
    with calling(endpoint) as caller:
        for instances, asking in requests:
            answer = caller.ask(instances, asking)
            lost = lost or answer["status"] != 200  # noqa: PLR2004 -- HTTP OK
            typer.echo(json.dumps(answer))
    if lost:
        raise CommandError("a request was refused; its line says why")


def _in_cluster(cluster: Cluster, name: str, url: str | None, model: str | None) -> Endpoint:
    from fairlead_operator.api.objects import from_object  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.kubernetes.deployed import Place, asked  # noqa: PLC0415 -- needs a client
    from fairlead_operator.platforms.kubernetes.entrance import entrance_of, reachable  # noqa: PLC0415 -- see above
    from fairlead_operator.predict import Endpoint  # noqa: PLC0415 -- see above

    async def found(place: Place) -> Endpoint:
        resource = await place.find(name)
        deployment, entrance = from_object(resource), entrance_of(resource)
        return Endpoint(
            url=url or await reachable(place.api, entrance),
            model=model or deployment.model_name,
            unit_header=deployment.spec.routing.units.header,
            host=entrance.host,
            advice=f"run {entrance.forwarding()}",
        )

    with reporting(OperatorError):
        return asked(cluster, found)


def _local(file: Path | None, url: str | None, model: str | None, state: Path) -> Endpoint:
    from fairlead.route import UNIT_HEADER  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.api.manifest import read  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.predict import Endpoint  # noqa: PLC0415 -- --help stays quick

    if file is None:
        if url is None or model is None:
            raise CommandError("--file: give -f FILE, or --url and --model, or NAME and -n NAMESPACE", USAGE)
        return Endpoint(url, model, UNIT_HEADER)
    with reporting(OperatorError):
        deployment = read(file).deployment
    published = state / deployment.metadata.name / "status.json"
    if url is None and published.exists():
        url = json.loads(published.read_bytes())["status"]["url"]["rest"]
    named = model or deployment.model_name
    return Endpoint(url or f"http://127.0.0.1:{DEFAULT_PORT}", named, deployment.spec.routing.units.header)


def _instances(data: str) -> list[dict[str, Any]]:
    text = data
    if data.startswith("@"):
        try:
            text = Path(data[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(
                f"--data: {data[1:]} cannot be read as text; give an existing JSON file", USAGE
            ) from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CommandError(
            f'--data: is not JSON ({error}); give an instance such as {{"tailnum": "N14228"}}', USAGE
        ) from error
    if isinstance(document, dict) and "instances" in document:
        document = document["instances"]
    instances = [document] if isinstance(document, dict) else document
    if not isinstance(instances, list) or not instances or not all(isinstance(each, dict) for each in instances):
        raise CommandError("--data: must be an instance (an object), or a list of them", USAGE)
    return instances


def _requests(
    instances: list[dict[str, Any]], unit: str | None, unit_from: str | None
) -> Iterable[tuple[list[dict[str, Any]], str | None]]:
    """Return what is asked together, and for which unit: one request per unit."""
    if unit_from is None:
        return [(instances, None if unit is None else checked(unit, "--unit"))]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for index, instance in enumerate(instances):
        if unit_from not in instance:
            raise CommandError(f"--unit-from: instance {index} has no {unit_from}; it has {', '.join(instance)}", USAGE)
        value = instance[unit_from]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            message = f"instance {index} has {json.dumps(value)[:300]} for {unit_from}; give a string or a number"
            raise CommandError(f"--unit-from: {message}", USAGE)
        name = checked(str(value), f"--unit-from: {unit_from} of instance {index}")
        grouped.setdefault(name, []).append(instance)
    return [(group, name) for name, group in grouped.items()]
