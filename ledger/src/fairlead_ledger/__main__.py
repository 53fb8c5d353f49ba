"""``python -m fairlead_ledger``: serve until a signal to stop, or migrate the database."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time

import uvicorn
from sqlalchemy.exc import OperationalError

from fairlead.feedback.keys import KeyRing, KeyRingError
from fairlead_ledger.access import Access, KeyedAccess, Open
from fairlead_ledger.analysis import routes as analysis
from fairlead_ledger.app import Carrier, application
from fairlead_ledger.errors import PortTaken, StartupError
from fairlead_ledger.intake.queue import Queue
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.logs import configure
from fairlead_ledger.metrics import LedgerMetrics
from fairlead_ledger.page import routes as page
from fairlead_ledger.service import Limits, Service
from fairlead_ledger.settings import Settings, clock_of, from_arguments
from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database

_LOG = logging.getLogger("fairlead_ledger")
_DRAIN_S = 20
_AGAIN_S = 0.5


def main() -> int:
    """Run one command and return the process' exit code; see ``--help``."""
    settings = from_arguments(os.environ.get("FAIRLEAD_LEDGER_DATABASE"))
    configure()
    # A signal while modules are still imported, or once everything is drained, ends the process as cleanly.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if settings.command == "migrate":
            _migrate(settings)
        else:
            _serve(settings)
    except StartupError as error:
        print(f"fairlead_ledger: {error}", file=sys.stderr)  # noqa: T201 -- the one line for whoever started it
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _migrate(settings: Settings) -> None:
    if settings.sql:
        print(versions.upgrade_sql(settings.database))  # noqa: T201 -- what was asked for
        return
    database = Database(settings.database)
    deadline_s = time.monotonic() + settings.wait_s
    while True:
        try:
            versions.upgrade(database)
        except OperationalError as error:
            if time.monotonic() >= deadline_s:
                raise StartupError(f"the database cannot be migrated: {error.orig}") from None
            time.sleep(_AGAIN_S)
        else:
            return


def _serve(settings: Settings) -> None:
    listening = _listen(settings.host, settings.port)
    service = _service(settings)
    config = uvicorn.Config(
        application(service, (analysis.ROUTES, page.ROUTES), _carrier(settings, service)),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    host, port = listening.getsockname()[:2]
    _LOG.info("listening host=%s port=%s", host, port)
    uvicorn.Server(config).run(sockets=[listening])


def _service(settings: Settings) -> Service:
    database = Database(settings.database)
    if database.is_sqlite:
        _make_tables(database)
    limits = Limits(body_bytes=settings.max_body_bytes, retention_s=settings.retention_s)
    metrics = LedgerMetrics()
    queue = Queue(most=limits.waiting, most_together=limits.together, timed=metrics.writes.observe)
    metrics.watch(lambda: queue.weight)
    ledger = Ledger(database, _ring(settings), clock_of(settings.clock))
    return Service(ledger, queue, _access(settings), metrics, limits)


def _carrier(settings: Settings, service: Service) -> Carrier | None:
    if settings.kafka_bootstrap_servers is None:
        return None
    from fairlead_ledger.kafka.intake import KafkaIntake  # noqa: PLC0415 -- its library is loaded where it is used
    from fairlead_ledger.kafka.settings import KafkaSettings, config_of  # noqa: PLC0415 -- goes with it

    kafka = KafkaSettings(
        settings.kafka_bootstrap_servers,
        settings.kafka_group,
        settings.kafka_exposures_topic,
        settings.kafka_outcomes_topic,
        config_of(settings.kafka_config),
    )
    return KafkaIntake(service, kafka)


def _make_tables(database: Database) -> None:
    try:
        versions.upgrade(database)
    except OperationalError as error:
        raise StartupError(f"--database: {error.orig}") from None


def _access(settings: Settings) -> Access:
    return KeyedAccess(settings.api_keys, settings.identity_header) if settings.api_keys else Open()


def _ring(settings: Settings) -> KeyRing:
    try:
        return KeyRing.loaded(settings.keys.read_bytes())
    except OSError as error:
        raise StartupError(f"--keys {settings.keys}: {error.strerror}") from None
    except KeyRingError as error:
        raise StartupError(f"--keys {settings.keys}: {error}") from None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        raise PortTaken(f"--port {port}: {error.strerror}; choose another one, or 0") from None
    return listening


if __name__ == "__main__":
    sys.exit(main())
