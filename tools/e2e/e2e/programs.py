"""Programs that the run starts: their output is kept, and a failure says what they said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.errors import E2eError

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""
_TAIL_LINES = 25


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a program."""

    code: int
    output: str
    errors: str

    @property
    def told(self) -> str:
        """The end of what it said."""
        return "\n".join((self.output + self.errors).strip().splitlines()[-_TAIL_LINES:])


@dataclass(frozen=True, slots=True)
class Programs:
    """How programs are started: with these variables besides those of this process."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str | Path, given: str | None = None, timeout_s: float = 300) -> str:
        """Run a program in the checkout and return its output.

        Raises:
            E2eError: It failed, or took too long.
        """
        done = self.end_of(*words, given=given, timeout_s=timeout_s)
        if done.code:
            raise E2eError(f"{shown(words)}: exit code {done.code}\n{done.told}")
        return done.output

    def end_of(self, *words: str | Path, given: str | None = None, timeout_s: float = 300) -> Done:
        """Run a program in the checkout and return how it ended, well or not.

        Raises:
            E2eError: There is no such program, or it took too long.
        """
        command = [str(word) for word in words]
        environment = {**os.environ, **self.environment}
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                input=given,
                stdin=None if given is not None else subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise E2eError(f"{shown(words)}: not done in {timeout_s:.0f} s") from error
        except OSError as error:
            raise E2eError(f"{shown(words)}: {error.strerror}") from error
        return Done(done.returncode, done.stdout, done.stderr)


def shown(words: Sequence[str | Path]) -> str:
    """Return a command for people: its program without its folder."""
    first, *others = words
    return " ".join([Path(first).name, *map(str, others)])
