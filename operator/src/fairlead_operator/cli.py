"""The operator's commands: ``up`` on this machine, and what looks at deployments and decides about them anywhere."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.errors import CommandError, reporting
from fairlead_operator.cli_assign import assign
from fairlead_operator.cli_options import ManifestOption, StateOption
from fairlead_operator.cli_predict import DEFAULT_PORT, predict
from fairlead_operator.cli_rollout import abort, pause, promote, resume
from fairlead_operator.cli_status import status
from fairlead_operator.cli_upgrade import upgrade

if TYPE_CHECKING:
    from fairlead_operator.platforms.local.session import Options


class ClockChoice(StrEnum):
    """Whose time counts."""

    SYSTEM = "system"
    REPLAY = "replay"


def commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(up)
    cluster_commands(app)


def cluster_commands(app: typer.Typer) -> None:
    """Register the commands that work in a cluster: all that ``kubectl fairlead`` has."""
    for command in (status, predict, assign, pause, resume, promote, abort, upgrade):
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
        ledger_command=[sys.executable, "-m", "fairlead_ledger", "serve"],
    )
    with reporting(OperatorError):
        asyncio.run(_keep_up(options))


async def _keep_up(options: Options) -> None:
    from fairlead.clock import SystemClock  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.console import Progress  # noqa: PLC0415 -- --help stays quick
    from fairlead_operator.platforms.local.session import Session  # noqa: PLC0415 -- --help stays quick

    progress = Progress(options)
    session = Session(options, clock=SystemClock(), report=progress.report, note=progress.note)
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
