"""What was found: told apart by its cause, made small, and written with the command that shows it again."""

from __future__ import annotations

import hashlib
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.paths import FINDINGS, ROOT
from fuzz.rig import Unforeseen

_MINIMISING_S = 10.0
_NUMBER = re.compile(r"\d+|b'.*|b\".*")


@dataclass(frozen=True, slots=True)
class Cause:
    """What two findings have in common if they are one."""

    kind: str
    place: str
    said: str
    """What it said, without numbers and without what was sent, if it is one of ours."""

    @classmethod
    def of(cls, error: BaseException) -> Cause:
        """Return the cause of an exception."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "fairlead" in frame.filename] or list(frames)
        said = _NUMBER.sub("#", str(error))[:80] if isinstance(error, Unforeseen) else ""
        last = ours[-1] if ours else None
        place = "" if last is None else f"{Path(last.filename).name}:{last.lineno}"
        return cls(type(error).__name__, place, said)


class Findings:
    """Findings of one target."""

    def __init__(self, target: str, fails: Callable[[bytes], BaseException | None]) -> None:
        """Have none yet.

        Args:
            target: What inputs were fed to.
            fails: Feeds an input again and returns what it raised.
        """
        self._target = target
        self._fails = fails
        self.causes: dict[Cause, Path] = {}

    def note(self, data: bytes, error: BaseException) -> None:
        """Write a finding, unless its cause is known already."""
        cause = Cause.of(error)
        if cause in self.causes:
            return
        self.causes[cause] = Path()
        small = self._minimised(data, cause)
        self.causes[cause] = write(self._target, small, self._fails(small) or error)

    def _minimised(self, data: bytes, cause: Cause) -> bytes:
        """Leave out, piece by piece, what the cause does not need."""
        end_s = time.monotonic() + _MINIMISING_S
        size = max(1, len(data) // 2)
        while size:
            place = 0
            while place < len(data) and time.monotonic() < end_s:
                shorter = data[:place] + data[place + size :]
                error = self._fails(shorter)
                if error is not None and Cause.of(error) == cause:
                    data = shorter
                else:
                    place += size
            size //= 2
        return data


def write(target: str, data: bytes, error: BaseException | str) -> Path:
    """Write an input beside what it does; return its file."""
    folder = FINDINGS / target
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / hashlib.sha256(data).hexdigest()[:12]
    file.write_bytes(data)
    told = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    replay = f"python tools/fuzz replay {file.relative_to(ROOT)}"
    file.with_suffix(".txt").write_text(f"{replay}\n\n{told}\n")
    return file
