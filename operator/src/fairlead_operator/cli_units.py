"""Units as people give them to commands: as words, in a file, on stdin; refused if the gateway would not take them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairlead.cli.errors import USAGE, CommandError

STDIN = Path("-")


def units_of(given: Sequence[str], file: Path | None) -> Iterator[str]:
    """Yield the units that were given, else those of a file or of stdin, one a line.

    Raises:
        CommandError: One is none, or the file cannot be read.
    """
    for unit in given or _lines(file):
        yield checked(unit, "UNIT")


def checked(unit: str, where: str) -> str:
    """Return ``unit`` if the gateway takes it for one; ``where`` names it in the message.

    Raises:
        CommandError: It does not.
    """
    from fairlead.route import UNIT_PATTERN  # noqa: PLC0415 -- --help stays quick

    try:
        octets = unit.encode().decode("latin-1")  # the gateway matches bytes, one character each
    except UnicodeEncodeError:
        octets = ""
    if not re.fullmatch(UNIT_PATTERN, octets):
        message = f"{unit[:300]!r} is none: give 1 to 256 bytes of UTF-8, no comma, no outer blanks"
        raise CommandError(f"{where}: {message}", USAGE)
    return unit


def _lines(file: Path | None) -> Iterator[str]:
    if file is None or file == STDIN:
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            yield from (line.rstrip("\r\n") for line in opened)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--units: {file} cannot be read as text; give an existing file, one unit a line") from error
