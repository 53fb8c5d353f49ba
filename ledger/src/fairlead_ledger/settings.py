"""What the command line sets."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.clock import Clock, ReplayClock, SystemClock
from fairlead.feedback.kafka import EXPOSURES_TOPIC, OUTCOMES_TOPIC
from fairlead_ledger.errors import StartupError

_EXAMPLE = """examples:
  python -m fairlead_ledger serve --database sqlite:///ledger.db --keys keyring.json --open
  python -m fairlead_ledger migrate --database postgresql://ledger@db/ledger

The database's address may also be in FAIRLEAD_LEDGER_DATABASE, which keeps its password from the process list.
exit codes: 0 stopped by a signal, 2 wrong arguments, 3 cannot start, 4 the port is taken"""

_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one ledger process."""

    command: str
    """``serve`` or ``migrate``."""
    database: str
    """``sqlite:///FILE`` or ``postgresql://…``."""
    sql: bool
    """``migrate`` prints the SQL and connects to nothing."""
    wait_s: float
    """How long ``migrate`` tries again while the database does not answer."""
    keys: Path
    """The root ring."""
    api_keys: Path | None
    """None where everyone may do everything."""
    identity_header: str | None
    clock: str
    """``system`` or a replayed clock's file."""
    host: str
    port: int
    """0 lets the system choose."""
    max_body_bytes: int
    retention_s: float
    """How long everything is kept of an experiment that has ended."""
    kafka_bootstrap_servers: str | None
    """None where nothing comes over Kafka."""
    kafka_config: Path | None
    """File with settings of librdkafka."""
    kafka_group: str
    kafka_exposures_topic: str
    kafka_outcomes_topic: str


def from_arguments(environment_database: str | None, arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line.

    Args:
        environment_database: The database's address as the environment tells it; None if it does not.
        arguments: Arguments without the program's name; None for the process's own.

    Raises:
        SystemExit: Code 2 with a message for wrong arguments, 0 after ``--help``.
    """
    parser = _parser(environment_database)
    found = parser.parse_args(arguments)
    if found.command == "serve":
        if (found.api_keys is None) != found.open:
            parser.error("give --api-keys FILE, or --open on one machine")
        if found.open and found.host not in ("127.0.0.1", "::1", "localhost"):
            parser.error("--open is for the loopback alone: give --api-keys FILE to listen elsewhere")
        if found.kafka_exposures_topic == found.kafka_outcomes_topic:
            parser.error("--kafka-exposures-topic and --kafka-outcomes-topic are the same")
    fields = vars(found) | {"open": None}
    del fields["open"]
    unused = {"keys": Path(), "api_keys": None, "identity_header": None, "clock": "system", "host": "", "port": 0}
    limits = {"sql": False, "wait_s": 0.0, "max_body_bytes": 0, "retention_s": 0.0}
    kafka = {"bootstrap_servers": None, "config": None, "group": "", "exposures_topic": "", "outcomes_topic": ""}
    return Settings(**(unused | limits | {f"kafka_{name}": value for name, value in kafka.items()} | fields))


def clock_of(text: str) -> Clock:
    """Return the clock that ``text`` names: ``system``, or a replayed clock's file.

    Raises:
        StartupError: The file is not there.
    """
    if text == "system":
        return SystemClock()
    path = Path(text.removeprefix("replay:"))
    try:
        return ReplayClock(path)
    except (OSError, ValueError) as error:
        raise StartupError(f"--clock {text}: {path} is no clock file ({error}); start the replay first") from None


def _parser(environment_database: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairlead_ledger",
        description="Keep exposures and outcomes of experiments, and tell what they come to.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer over HTTP until a signal to stop", allow_abbrev=False)
    migrate = commands.add_parser("migrate", help="bring the database's tables to this version", allow_abbrev=False)
    for each in (serve, migrate):
        each.add_argument(
            "--database",
            default=environment_database,
            required=environment_database is None,
            metavar="URL",
            help="sqlite:///FILE or postgresql://USER@HOST/NAME",
        )
    migrate.add_argument("--sql", action="store_true", help="print SQL for an empty database, and connect to nothing")
    migrate.add_argument(
        "--wait",
        dest="wait_s",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="try again for so long while the database does not answer (default: 0)",
    )
    add = serve.add_argument
    add("--keys", type=Path, required=True, metavar="FILE", help="root key ring, JSON")
    add("--api-keys", type=Path, metavar="FILE", help="who may do what: JSON list of {id, hash, roles, deployments}")
    add("--open", action="store_true", help="everyone may do everything; on the loopback alone")
    add("--identity-header", metavar="NAME", help="header in which a proxy tells the mTLS identity it has verified")
    add("--clock", default="system", metavar="CLOCK", help="system, or a replayed clock's file (default: %(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=_port, default=8090, help="(default: %(default)s; 0: any)")
    add("--max-body-bytes", type=_size, default=16 * 1024**2, metavar="N", help="longest body (default: %(default)s)")
    add(
        "--retention-days",
        dest="retention_s",
        type=_days,
        default=90 * 86400.0,
        metavar="DAYS",
        help="how long units are kept after an experiment's end (default: 90)",
    )
    _add_kafka(serve)
    return parser


def _add_kafka(serve: argparse.ArgumentParser) -> None:
    kafka = serve.add_argument_group("Kafka", "the same bodies from two topics, beside HTTP")
    add = kafka.add_argument
    add("--kafka-bootstrap-servers", metavar="HOST:PORT,…", help="read from these brokers (default: from none)")
    add(
        "--kafka-config",
        type=Path,
        metavar="FILE",
        help="settings of librdkafka, for TLS and SASL: a JSON object, or lines of name=value",
    )
    add("--kafka-group", default="fairlead-ledger", metavar="NAME", help="consumer group (default: %(default)s)")
    for noun, topic in (("exposures", EXPOSURES_TOPIC), ("outcomes", OUTCOMES_TOPIC)):
        add(f"--kafka-{noun}-topic", type=_topic, default=topic, metavar="NAME", help="(default: %(default)s)")


def _topic(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no topic's name")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 0 to 65535")
    return int(text)


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give a number of bytes from 1 to {2**31 - 1}")
    return int(text)


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and int(text) <= _DAY_S):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; give 0 to {_DAY_S}")
    return float(text)


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 36525:  # noqa: PLR2004 -- a century
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days; give 0 to 36525")
    return value * _DAY_S
