"""``python -m fairlead_operator run``: the operator in a cluster. Its end is always told by the exit code."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import random
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_operator import logs, settings
from fairlead_operator.assembly import Access, Control, Surroundings, build
from fairlead_operator.errors import OperatorError
from fairlead_operator.handlers import Transport, kopf_settings
from fairlead_operator.health import HealthServer
from fairlead_operator.metrics import OperatorMetrics
from fairlead_operator.platforms.kubernetes.client import KubeClient, Patience
from fairlead_operator.platforms.kubernetes.connection import Connection, connect
from fairlead_operator.platforms.kubernetes.control import control_of
from fairlead_operator.platforms.kubernetes.parents import Parents
from fairlead_operator.settings import Settings

_log = logging.getLogger(__name__)

_PROG = "python -m fairlead_operator run"
_USAGE = 2


def main(arguments: list[str], control_of: Callable[[Access], Control] = control_of) -> int:
    """Run a command; return the exit code.

    Args:
        arguments: The command and its flags.
        control_of: Makes what the operator runs.
    """
    if arguments[:1] != ["run"]:
        sys.stderr.write(f"usage: {_PROG} [--help] [--FLAG VALUE ...]\n")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else _USAGE
    given = settings.read(arguments[1:], prog=_PROG)
    logs.configure(given.log_format, given.log_level)
    try:
        asyncio.run(_run(given, control_of))
    except OperatorError as error:
        _log.critical("the operator cannot start", extra={"detail": str(error)})
        return 1
    except Exception:  # noqa: BLE001 -- crash-only: whatever ends a part ends the process, and says so
        _log.critical("the operator ends because a part of it has ended", exc_info=True)
        return 1
    return 0


async def _run(given: Settings, control_of: Callable[[Access], Control]) -> None:
    connection = await connect(kubeconfig=given.kubeconfig, context=given.context)
    metrics = OperatorMetrics(CollectorRegistry(), importlib.metadata.version("fairlead-operator"))
    dice = random.Random()  # noqa: S311 -- spreads pauses
    patience = Patience(attempt_s=given.api_attempt_s, attempts=given.api_attempts)
    client = KubeClient(connection, patience=patience, observe=metrics.called, randomness=dice)
    surroundings = Surroundings(
        now=_now,
        clock=SystemClock(),
        randomness=dice,
        new_id=lambda: uuid.uuid4().hex,
        namespace=given.own_namespace or connection.namespace or "default",
    )
    runtime = build(
        given,
        client,
        control_of,
        surroundings=surroundings,
        metrics=metrics,
        transport_of=_kopf(given, connection, metrics, dice),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, runtime.stop)
    health = HealthServer(
        live=runtime.live, ready=runtime.ready, registry=metrics.registry, host=given.http_host, port=given.http_port
    )
    try:
        async with health:
            await runtime.run()
    finally:
        await client.close()


def _now() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, where there is one; a Lease does not wait."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _kopf(
    given: Settings, connection: Connection, metrics: OperatorMetrics, dice: random.Random
) -> Callable[[Parents], Callable[[], Awaitable[None]]]:
    terms = kopf_settings(
        attempt_s=given.api_attempt_s, watch_timeout_s=given.watch_timeout_s, silence_s=given.watch_silence_s
    )

    def transport_of(parents: Parents) -> Callable[[], Awaitable[None]]:
        return Transport(
            connection,
            terms,
            lambda resource, deleted: parents.heard(resource, deleted=deleted),
            namespaces=given.namespaces,
            now=time.monotonic,
            randomness=dice,
            restarted=metrics.transport_restarts.inc,
        ).run

    return transport_of


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
