"""The command line of ``fairlead fetch``: settings, progress, the one line of a failure, exit codes."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

import typer

from fairlead_server import logs
from fairlead_server.errors import FetchError
from fairlead_server.fetch.download import FILE_NAME, Fetch, FetchLimits, source_of
from fairlead_server.fetch.uri import SCHEMES, ModelUri, parse_uri
from fairlead_server.termination import write_termination

_LOG = logging.getLogger(__name__)
_MIB = 1024**2
_LOG_INTERVAL_S = 10.0
_DRAW_INTERVAL_S = 0.1
_GRACE_S = 30.0
_STOPPED = 128 + signal.SIGTERM

_EXAMPLE = f"""example:
  fairlead fetch fairlead+s3://models/late/3.onnx@sha256:<64 hex> /mnt/models

URI is fairlead+SCHEME://PLACE@sha256:<64 hex>, SCHEME one of {", ".join(SCHEMES)}. S3 is reached by AWS_ENDPOINT_URL,
AWS_REGION, AWS_CA_BUNDLE and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or the SDK's default chain.

exit codes: 0 the file is there, 1 it may come later, 2 wrong arguments, 3 wrong address, digest, key or permission
A failure's line is also written to $FAIRLEAD_TERMINATION_LOG (default: /dev/termination-log, where there is one)."""


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Fetch a model file and return the process' exit code; see ``--help``.

    Args:
        arguments: Without the program's name.
        environment: The process' variables.
    """
    given = _parser().parse_args(arguments)
    logs.configure()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))
    limits = FetchLimits(
        max_bytes=given.max_bytes,
        deadline_s=given.deadline,
        read_deadline_s=given.read_deadline,
        attempts=given.attempts,
    )
    # The last resort if a library blocks the interpreter itself, where no deadline of ours can run.
    faulthandler.dump_traceback_later(limits.deadline_s + _GRACE_S, exit=True)
    try:
        _fetch(given.uri, given.dest, limits, environment)
    except FetchError as error:
        print(f"fairlead fetch: {error}", file=sys.stderr)  # noqa: T201 -- the one line for whoever started it
        write_termination(str(error), environment)
        return error.exit_code
    finally:
        faulthandler.cancel_dump_traceback_later()
    return 0


def commands(app: typer.Typer) -> None:
    """Register the command; its arguments are read by :func:`main`, as for ``python -m fairlead_server.fetch``."""

    @app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def fetch(context: typer.Context) -> None:
        """Fetch a model file into a folder, verified by its digest; what a pod's storage initializer runs.

        Example: fairlead fetch fairlead+s3://models/late/3.onnx@sha256:<64 hex> /mnt/models
        """
        end(main(context.args))


def end(code: int) -> NoReturn:
    """End the process at once: a read that hangs in a store's library would hold up an ordinary end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _fetch(text: str, folder: Path, limits: FetchLimits, environment: Mapping[str, str]) -> None:
    uri = parse_uri(text)
    show = _drawing(sys.stderr) if sys.stderr.isatty() else _logging(uri)
    _LOG.info("fetching uri=%s digest=%s", uri.shown, uri.digest)
    started_s = time.monotonic()
    fetched = Fetch(
        uri,
        source_of(uri, limits, environment),
        limits,
        report=show,
        retrying=lambda error, pause_s: _LOG.warning("trying again in_s=%.1f reason=%s", pause_s, error),
    ).into(folder)
    took_s = time.monotonic() - started_s
    what = "already there" if fetched.was_there else "fetched"
    _LOG.info("%s file=%s bytes=%d seconds=%.2f", what, fetched.path, fetched.size_bytes, took_s)


def _drawing(screen: TextIO) -> Callable[[int, int | None], None]:
    """Return what draws progress over itself on a terminal."""
    drawn_s = float("-inf")

    def draw(done: int, whole: int | None) -> None:
        nonlocal drawn_s
        now_s = time.monotonic()
        if now_s < drawn_s + _DRAW_INTERVAL_S and done != whole:
            return
        drawn_s = now_s
        of = f" of {whole / _MIB:.1f}" if whole else ""
        screen.write(f"\r{done / _MIB:.1f}{of} MiB" + ("\n" if done == whole else ""))
        screen.flush()

    return draw


def _logging(uri: ModelUri) -> Callable[[int, int | None], None]:
    """Return what says from time to time how far it is."""
    said_s = time.monotonic()

    def say(done: int, whole: int | None) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if now_s < said_s + _LOG_INTERVAL_S:
            return
        said_s = now_s
        _LOG.info("fetching uri=%s bytes=%d of=%s", uri.shown, done, whole if whole is not None else "unknown")

    return say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fairlead fetch",
        description=f"Fetch a model file to DEST/{FILE_NAME}, verified by its digest, whole or not at all.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    usual = FetchLimits()
    add = parser.add_argument
    add("uri", metavar="URI", help="where it is, and the digest it must have")
    add("dest", metavar="DEST", type=Path, help="folder to write to")
    add("--max-bytes", type=_count, default=usual.max_bytes, metavar="N", help="largest file (default: %(default)s)")
    add(
        "--deadline",
        type=_seconds,
        default=usual.deadline_s,
        metavar="SECONDS",
        help="longest time (default: %(default)s)",
    )
    add(
        "--read-deadline",
        type=_seconds,
        default=usual.read_deadline_s,
        metavar="SECONDS",
        help="longest wait for the next bytes (default: %(default)s)",
    )
    add("--attempts", type=_count, default=usual.attempts, metavar="N", help="tries in all (default: %(default)s)")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a number from 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:  # noqa: PLR2004 -- a day
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds above 0, at most 86400")
    return value
