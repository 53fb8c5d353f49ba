"""Commands of the control loop on one machine: ``up``, ``status``, ``assign``, ``predict``, and those of a rollout."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.errors import USAGE, CommandError, reporting
from fairlead_operator.cli_options import ManifestOption, StateOption
from fairlead_operator.cli_rollout import abort, pause, promote, resume

if TYPE_CHECKING:
    from fairlead_operator.api.v1alpha1 import ModelDeployment
    from fairlead_operator.platforms.local.session import Options
    from fairlead_operator.predict import Endpoint

DEFAULT_PORT = 8080


class OutputFormat(StrEnum):
    """How a command answers."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class ClockChoice(StrEnum):
    """Whose time counts."""

    SYSTEM = "system"
    REPLAY = "replay"


def commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (up, status, pause, resume, promote, abort, assign, predict):
        app.command()(command)


def up(
    *,
    file: ManifestOption,
    port: Annotated[int, typer.Option(help="Port of the gateway, REST and gRPC.", min=1, max=65535)] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Address that the gateway listens on.")] = "127.0.0.1",
    state: StateOption = Path(".fairlead"),
    clock: Annotated[ClockChoice, typer.Option(help="Whose time counts: the machine's, or a replay's.")] = (
        ClockChoice.SYSTEM
    ),
    server_command: Annotated[str | None, typer.Option(hidden=True, help="Program that serves a variant.")] = None,
) -> None:
    """Serve a ModelDeployment on this machine: one server per variant behind a real Envoy. Ctrl-C stops everything.

    The file is watched: changed weights move at once and lose no request, a changed digest replaces its variant only.

    While an experiment runs, its models are frozen: give experiment.id a new value along with a changed model.

    Example: fairlead up -f examples/flights/modeldeployment.yaml
    """
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.session import Options  # noqa: PLC0415 -- --help stays quick

    command = shlex.split(server_command) if server_command else [sys.executable, "-m", "fairlead_server"]
    options = Options(
        manifest=file,
        host=host,
        port=port,
        state=state,
        replay=clock is ClockChoice.REPLAY,
        server_command=command,
        server_release=_server_release(),
    )
    with reporting(OperatorError):
        asyncio.run(_keep_up(options))


def status(
    state: StateOption = Path(".fairlead"),
    name: Annotated[str | None, typer.Option(help="Deployment to show; the only one if left out.")] = None,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="What to print.")] = OutputFormat.TABLE,
) -> None:
    """Show what is served, by whom, and why not if it is not. JSON is the whole resource with its status.

    Example: fairlead status -o json
    """
    from fairlead_operator.platforms.local.state import is_held  # noqa: PLC0415 -- --help stays quick

    resource = _resource(state, name)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(resource, indent=2))
    elif output is OutputFormat.YAML:
        import yaml  # noqa: PLC0415 -- --help stays quick

        typer.echo(yaml.safe_dump(resource, sort_keys=False), nl=False)
    else:
        from fairlead_operator import console  # noqa: PLC0415 -- --help stays quick

        console.show(resource)
    if not is_held(state):
        raise CommandError(f"{state}: `fairlead up` is not running; this is how it ended")


def assign(
    file: ManifestOption,
    units: Annotated[list[str] | None, typer.Argument(help="Units; read from stdin, one a line, if left out.")] = None,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="What to print.")] = OutputFormat.TABLE,
) -> None:
    """Compute offline which arm units belong to, under the weights of the manifest.

    Example: fairlead assign -f examples/flights/modeldeployment.yaml N14228 N24211
    """
    from fairlead import Layout, bucket_of  # noqa: PLC0415 -- --help stays quick

    deployment = _read(file)
    layout = Layout.of(deployment.spec.control.name, deployment.weights_bp)
    rows: list[dict[str, Any]] = []
    for unit in _units(units):
        bucket = bucket_of(unit, deployment.salt)
        rows.append({"unit": unit, "bucket": bucket, "arm": layout.arm_at(bucket)})
    if output is OutputFormat.JSON:
        typer.echo(json.dumps({"salt": deployment.salt, "assignments": rows}, indent=2))
    elif output is OutputFormat.YAML:
        import yaml  # noqa: PLC0415 -- --help stays quick

        typer.echo(yaml.safe_dump({"salt": deployment.salt, "assignments": rows}, sort_keys=False), nl=False)
    else:
        for row in rows:
            typer.echo(f"{row['unit']}\t{row['bucket']}\t{row['arm']}")


def predict(
    *,
    data: Annotated[str, typer.Option(help="JSON: an instance, a list of them, or a V1 body; @FILE reads a file.")],
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The ModelDeployment that is up.")] = None,
    url: Annotated[str | None, typer.Option(help="Base of the endpoint, such as http://127.0.0.1:8080.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model; needed with --url alone.")] = None,
    unit: Annotated[str | None, typer.Option(help="The unit that asks.")] = None,
    unit_from: Annotated[
        str | None, typer.Option(help="Key of the instances that is the unit; each unit is asked for on its own.")
    ] = None,
    state: StateOption = Path(".fairlead"),
) -> None:
    """Ask for predictions over V1, and show which variant answered.

    Example: fairlead predict -f examples/flights/modeldeployment.yaml --unit-from tailnum --data @flight.json
    """
    from fairlead_operator.predict import ask  # noqa: PLC0415 -- --help stays quick

    if unit is not None and unit_from is not None:
        raise CommandError("--unit-from: --unit is given too; give one of them", USAGE)
    endpoint = _endpoint(file, url, model, state)
    lost = False
    for instances, asking in _requests(_instances(data), unit, unit_from):
        answer = ask(endpoint, instances, asking)
        lost = lost or answer["status"] != 200  # noqa: PLR2004 -- HTTP OK
        typer.echo(json.dumps(answer))
    if lost:
        raise CommandError("a request was refused; its line says why")


async def _keep_up(options: Options) -> None:
    from fairlead.clock import SystemClock  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.console import Progress  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.session import Session  # noqa: PLC0415 -- --help stays quick

    progress = Progress(options)
    session = Session(options, clock=SystemClock(), report=progress.report)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, session.stop)
    await session.run()
    progress.ended()


def _server_release() -> str:
    import importlib.metadata  # noqa: PLC0415 -- --help stays quick

    try:
        return importlib.metadata.version("fairlead-server")
    except importlib.metadata.PackageNotFoundError as error:
        raise CommandError("fairlead-server is not installed; install fairlead-operator[local]") from error


def _resource(state: Path, name: str | None) -> dict[str, Any]:
    found = {file.parent.name: file for file in sorted(state.glob(f"{name or '*'}/status.json"))}
    if not found:
        what = f"deployment {name}" if name else "deployment"
        raise CommandError(f"{state}: no {what} here; start one with `fairlead up -f FILE`, or give its --state")
    if len(found) > 1:
        raise CommandError(f"--name: {state} has several deployments; choose one of {', '.join(found)}", USAGE)
    resource: dict[str, Any] = json.loads(next(iter(found.values())).read_bytes())
    return resource


def _units(given: list[str] | None) -> Iterator[str]:
    for unit in given or (line.rstrip("\r\n") for line in sys.stdin):
        yield _checked(unit, "UNIT")


def _checked(unit: str, where: str) -> str:
    """Return ``unit`` if the gateway takes it for one; ``where`` names it in the message.

    Raises:
        CommandError: It does not.
    """
    import re  # noqa: PLC0415 -- --help stays quick

    from fairlead.route import UNIT_PATTERN  # noqa: PLC0415 -- --help stays quick

    try:
        octets = unit.encode().decode("latin-1")  # the gateway matches bytes, one character each
    except UnicodeEncodeError:
        octets = ""
    if not re.fullmatch(UNIT_PATTERN, octets):
        message = f"{unit[:300]!r} is none: give 1 to 256 bytes of UTF-8, no comma, no outer blanks"
        raise CommandError(f"{where}: {message}", USAGE)
    return unit


def _endpoint(file: Path | None, url: str | None, model: str | None, state: Path) -> Endpoint:
    from fairlead.route import UNIT_HEADER  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.predict import Endpoint  # noqa: PLC0415 -- --help stays quick

    if file is None:
        if url is None or model is None:
            raise CommandError("--file: give -f FILE, or --url and --model", USAGE)
        return Endpoint(url, model, UNIT_HEADER)
    deployment = _read(file)
    published = state / deployment.metadata.name / "status.json"
    if url is None and published.exists():
        url = json.loads(published.read_bytes())["status"]["url"]["rest"]
    name = model or deployment.model_name
    return Endpoint(url or f"http://127.0.0.1:{DEFAULT_PORT}", name, deployment.spec.routing.units.header)


def _read(file: Path) -> ModelDeployment:
    from fairlead_operator.api.manifest import read  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.errors import OperatorError  # noqa: PLC0415 -- --help stays quick

    with reporting(OperatorError):
        return read(file).deployment


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
        return [(instances, None if unit is None else _checked(unit, "--unit"))]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for index, instance in enumerate(instances):
        if unit_from not in instance:
            raise CommandError(f"--unit-from: instance {index} has no {unit_from}; it has {', '.join(instance)}", USAGE)
        value = instance[unit_from]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            message = f"instance {index} has {json.dumps(value)[:300]} for {unit_from}; give a string or a number"
            raise CommandError(f"--unit-from: {message}", USAGE)
        name = _checked(str(value), f"--unit-from: {unit_from} of instance {index}")
        grouped.setdefault(name, []).append(instance)
    return [(group, name) for name, group in grouped.items()]
