"""Commands in docs, as they stand there: fenced ``console`` blocks, ``$`` before each command, output ignored."""

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^```console(?P<info>[^\n]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page."""

    text: str
    runs_on: bool
    """Whether it stays in the foreground until it is interrupted (fence ``console runs-on``)."""
    output: str
    """What the page shows below it."""


def commands_of(page: str, mark: str = "") -> list[Command]:
    """Return the commands of a page in order; a line that ends in a backslash or an open quote goes on below.

    Args:
        page: Its text.
        mark: Only blocks with this word after ``console``; all if empty.
    """
    return [
        command
        for block in _FENCE.finditer(page)
        if not mark or mark in block["info"].split()
        for command in _commands(block["body"], runs_on="runs-on" in block["info"])
    ]


def marks_of(page: str) -> list[str]:
    """Return what stands after ``console`` at each block of a page."""
    return [block["info"].strip() for block in _FENCE.finditer(page)]


def _commands(body: str, *, runs_on: bool) -> list[Command]:
    found = []
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = next(n for n in range(1, len(lines) + 1) if _complete(lines[:n]))
        found.append(Command("\n".join(lines[:length]), runs_on, "\n".join(lines[length:])))
    return found


def _complete(lines: list[str]) -> bool:
    text = "\n".join(lines)
    return not text.endswith("\\") and text.count("'") % 2 == 0
