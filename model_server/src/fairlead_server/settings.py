"""What the command line sets."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fairlead.clock import Clock, ReplayClock, SystemClock
from fairlead.policy import Hydration
from fairlead_server.errors import StartupError
from fairlead_server.protocol.grpc.engines import ENGINES

_EXAMPLE = """example:
  python -m fairlead_server --model build/flights/models/logistic.onnx --feature-store feature_repo

exit codes: 0 stopped by a signal, 2 wrong arguments, 3 the model cannot be served, 4 a port is taken"""

_MOST_WORKERS = 256
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server process."""

    model: Path | None
    """The ONNX file; None for the models of a repository."""
    model_repository: Path | None
    """Folder of models; None for one model."""
    model_versions: str
    """``all`` or ``latest``: which versions of a repository's models are served."""
    model_control: str
    """``none`` or ``explicit``: whether clients may load and unload models of the repository."""
    load_models: Sequence[str] | None
    """Models that are loaded at the start, ``*`` for all; None for the default."""
    feature_store: Path | None
    """``feature_store.yaml``, or the folder that has it; None for a model that needs none."""
    model_name: str | None
    """Name that clients call the model by; None for the contract's, without a contract the file's."""
    model_digest: str | None
    """``sha256:…`` that the file must have; None for any."""
    variant: str
    revision: str
    host: str
    workers: int
    """Processes that serve as one."""
    http_port: int
    """0 lets the system choose."""
    grpc_port: int
    """0 lets the system choose."""
    hydration: Hydration
    serving_dir: Path | None
    """Folder with what the operator tells running servers."""
    clock: str
    """``system`` or ``replay:FILE``."""
    spool_dir: Path | None
    """Folder of reports that the ledger has not taken yet; None keeps them in memory."""
    spool_bytes: int
    """Size of all reports that may wait."""
    report_interval_s: float
    """Seconds between reports of exposures."""
    flush_deadline_s: float
    """Longest wait for the ledger after the last request."""
    startup_deadline_s: float
    """Longest wait for the feature store and its registry."""
    drain_deadline_s: float
    """Longest wait for requests in flight after a signal to stop."""
    drain_delay_s: float
    """How much of that time new connections are still taken."""
    registry_refresh_s: float
    """Seconds between reads of the registry; 0 for none after the start."""
    prediction_log: Path | None
    """Folder of the prediction log; None for no log."""
    prediction_log_sample: float
    """Share of the hydrated requests that are logged, 0 to 1."""
    prediction_log_bytes: int
    """Size of the log beyond which its oldest files are removed."""
    prediction_log_keys: str
    """``kept`` or ``left-out``: whether what requests brought is logged."""
    prediction_log_roll_s: float
    """Longest time until a sampled row is in a file."""
    body_deadline_s: float
    """Longest wait for a request's body."""
    long_run_ms: float
    """Runs that are expected to take longer leave the event loop, milliseconds."""
    long_run_threads: int
    """Threads for them; 0 for one per processor that may be used."""
    queue_deadline_s: float
    """Longest expected wait for such a thread, of a request whose client names no deadline."""
    max_body_bytes: int
    """Largest body of a REST request, and largest gRPC message."""
    max_connections: int
    """Open connections of the process, REST and gRPC together."""
    grpc_engine: str
    """``auto``, ``native``, ``python`` or ``grpcio``."""
    grpc_max_age_s: float
    """Age at which a gRPC connection is told to go away; infinite for never."""

    @property
    def wanted_models(self) -> frozenset[str]:
        """Names of a repository's models that are loaded at the start; ``*`` among them for all."""
        return frozenset(("*",) if self.model_control == "none" else self.load_models or ())


def from_arguments(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line.

    Args:
        arguments: Arguments without the program's name; None for the process's own.

    Raises:
        SystemExit: Code 2 with a message for wrong arguments, 0 after ``--help``.
    """
    parser = _parser()
    found = parser.parse_args(arguments)
    for flag in ("model_name", "model_digest"):
        if found.model is None and getattr(found, flag) is not None:
            parser.error(f"--{flag.replace('_', '-')} goes with --model; a repository's folders name its models")
    if found.model_repository is None and found.model_control != "none":
        parser.error("--model-control=explicit goes with --model-repository")
    if found.load_models is not None and found.model_control == "none":
        parser.error("--load-model goes with --model-control=explicit; otherwise all models are loaded")
    if found.workers > 1 and found.grpc_engine == "grpcio":
        parser.error("--workers: grpcio opens its port itself and cannot share it; choose another --grpc-engine")
    if found.workers > 1 and found.model_control != "none":
        parser.error("--workers: a client loads models into one process; leave out --model-control=explicit")
    return Settings(**vars(found))


def clock_of(text: str) -> Clock:
    """Return the clock that ``text`` names: ``system`` or ``replay:FILE``.

    Raises:
        StartupError: The replayed clock's file is not there.
    """
    if text == "system":
        return SystemClock()
    path = Path(text.removeprefix("replay:"))
    try:
        return ReplayClock(path)
    except (OSError, ValueError) as error:
        raise StartupError(f"--clock {text}: {path} is no clock file ({error}); start the replay first") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairlead_server",
        description="Serve ONNX models, hydrated with Feast features, over V1 REST, V2 REST and V2 gRPC.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, metavar="FILE", help="ONNX file, with a contract or without")
    which.add_argument(
        "--model-repository",
        type=Path,
        metavar="DIR",
        help="folder of models: NAME.onnx, NAME/model.onnx or NAME/VERSION/model.onnx",
    )
    add(
        "--model-versions",
        choices=("all", "latest"),
        default="all",
        help="versions of each that are served; requests that ask for none get the highest (default: %(default)s)",
    )
    add(
        "--model-control",
        choices=("none", "explicit"),
        default="none",
        help="whether clients may load and unload models of the repository (default: %(default)s, all are served)",
    )
    add(
        "--load-model",
        dest="load_models",
        action="extend",
        nargs="+",
        metavar="NAME",
        help="with --model-control=explicit: models that are loaded at the start, * for all (default: no model)",
    )
    add(
        "--feature-store",
        type=Path,
        metavar="DIR",
        help="feature repository, or its feature_store.yaml; without it a model takes what its graph does",
    )
    add("--model-name", metavar="NAME", help="name that clients call the model by (default: the contract's or file's)")
    add("--model-digest", type=_digest, metavar="sha256:HEX", help="refuse a file with another digest")
    add("--variant", default="", metavar="NAME", help="variant of the ModelDeployment that this process serves")
    add("--revision", default="", metavar="NAME", help="revision that this process serves")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="processes that serve as one, each with its own copy of the model (default: %(default)s)",
    )
    add("--http-port", type=_port, default=8080, metavar="PORT", help="V1 and V2 REST (default: %(default)s; 0: any)")
    add("--grpc-port", type=_port, default=8081, metavar="PORT", help="V2 gRPC (default: %(default)s; 0: any)")
    add("--hydration", type=_hydration, default=Hydration(), metavar="JSON", help='such as {"deadline_s": 0.02}')
    add("--serving-dir", type=Path, metavar="DIR", help="folder with route-keys.json and feedback.json, read again")
    add("--spool-dir", type=Path, metavar="DIR", help="folder for reports while the ledger is away (default: memory)")
    add(
        "--spool-bytes",
        type=_size,
        default=64 * 1024**2,
        metavar="N",
        help="size of the reports that may wait (default: %(default)s; in memory at most 8 MiB)",
    )
    add(
        "--report-interval",
        dest="report_interval_s",
        type=_positive,
        default=2.0,
        metavar="SECONDS",
        help="time between reports of exposures to the ledger (default: %(default)s)",
    )
    _seconds(parser, "flush", 3, "longest wait for the ledger after the last request")
    add("--clock", type=_clock, default="system", metavar="CLOCK", help="system or replay:FILE (default: %(default)s)")
    _seconds(parser, "startup", 10, "longest wait for feature store and registry")
    _seconds(parser, "drain", 10, "longest wait for requests in flight after SIGTERM")
    add(
        "--drain-delay",
        dest="drain_delay_s",
        type=_interval,
        default=0.0,
        metavar="SECONDS",
        help="part of that in which new connections are still taken, not ready any more (default: 0)",
    )
    _seconds(parser, "body", 30, "longest wait for a request's body")
    add(
        "--registry-refresh",
        dest="registry_refresh_s",
        type=_interval,
        default=60.0,
        metavar="SECONDS",
        help="time between reads of the registry, to compare it to the contract (default: %(default)s; 0: never again)",
    )
    add("--prediction-log", type=Path, metavar="DIR", help="folder for a sample of hydrated requests (default: none)")
    add(
        "--prediction-log-sample",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="share of the hydrated requests that are logged, 0 to 1 (default: %(default)s)",
    )
    add(
        "--prediction-log-bytes",
        type=_size,
        default=1024**3,
        metavar="N",
        help="size of the log beyond which its oldest files are removed (default: %(default)s)",
    )
    add(
        "--prediction-log-keys",
        choices=("kept", "left-out"),
        default="kept",
        help="whether entity keys and request features are logged; without them nothing can be replayed "
        "(default: %(default)s)",
    )
    add(
        "--prediction-log-roll",
        dest="prediction_log_roll_s",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="longest time until a sampled request is in a file (default: %(default)s)",
    )
    add(
        "--long-run-ms",
        type=_milliseconds,
        default=2.0,
        metavar="MS",
        help="runs expected to take longer leave the event loop for threads of lower priority (default: %(default)s)",
    )
    add(
        "--long-run-threads",
        type=_number,
        default=0,
        metavar="N",
        help="threads for long runs (default: 0, one per processor that the process may use)",
    )
    _seconds(parser, "queue", 5, "longest expected wait for a long run of a request that names no deadline")
    add(
        "--max-body-bytes", type=_size, default=16 * 1024**2, metavar="N", help="largest request (default: %(default)s)"
    )
    add(
        "--max-connections",
        type=_connections,
        default=8192,
        metavar="N",
        help="open connections of each process; one more is closed at once (default: %(default)s)",
    )
    add(
        "--grpc-engine",
        choices=ENGINES,
        default="auto",
        help="what speaks gRPC: the native extension, hyper-h2 in Python, or grpcio's own server "
        "(default: %(default)s, native where it is installed, else python)",
    )
    add(
        "--grpc-max-age",
        dest="grpc_max_age_s",
        type=_age,
        default=math.inf,
        metavar="SECONDS",
        help="age at which a gRPC connection is told to go away, a tenth more or less (default: 0, never)",
    )
    return parser


def _seconds(parser: argparse.ArgumentParser, name: str, default: float, what: str) -> None:
    parser.add_argument(
        f"--{name}-deadline",
        dest=f"{name}_deadline_s",
        type=_positive,
        default=default,
        metavar="SECONDS",
        help=f"{what} (default: %(default)s)",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 0 to 65535")
    return int(text)


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; give one from 1 to {_MOST_WORKERS}")
    return int(text)


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give a number of bytes from 1 to {2**31 - 1}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:  # noqa: PLR2004 -- a day
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds above 0, at most 86400")
    return value


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 1024):  # noqa: PLR2004 -- threads enough for anybody
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; give 0 to 1024")
    return int(text)


def _connections(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 2**20):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of connections; give one from 1 to {2**20}")
    return int(text)


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3.6e6:  # noqa: PLR2004 -- an hour
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give milliseconds from 0 to 3600000")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number from 0 to 1")
    return value


def _age(text: str) -> float:
    return math.inf if text == "0" else _positive(text)


def _interval(text: str) -> float:
    return 0.0 if text == "0" else _positive(text)


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no digest; give sha256: and 64 hexadecimal digits")
    return text


def _clock(text: str) -> str:
    if text != "system" and not text.startswith("replay:"):
        raise argparse.ArgumentTypeError(f"{text!r} is no clock; give system or replay:FILE")
    return text


def _hydration(text: str) -> Hydration:
    try:
        return Hydration.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise argparse.ArgumentTypeError(f"{where}: {first['msg']}") from None
