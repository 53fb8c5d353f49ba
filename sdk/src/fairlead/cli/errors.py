"""How a command fails: one clear line on stderr, and a code that scripts can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

FAILED = 1
"""Exit code: it was asked well, and could not be done."""
USAGE = 2
"""Exit code: what was asked, or a file that was named, is wrong."""


class CommandError(Exception):
    """A command cannot go on; its message is one line that names file, field and fix."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        """Make the error.

        Args:
            message: One line for the user.
            exit_code: ``FAILED`` or ``USAGE``.
        """
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def reporting(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into ``CommandError``; an ``exit_code`` that they carry is kept."""
    try:
        yield
    except kinds as error:
        raise CommandError(str(error), getattr(error, "exit_code", FAILED)) from error
