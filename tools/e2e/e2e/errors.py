"""How a run fails.

E2eError
├── Usage          what was asked for makes no sense
├── Unavailable    the machine lacks something
└── NotSeen        what must be seen was not
"""

from __future__ import annotations


class E2eError(Exception):
    """The run cannot go on; the message says why and what to do."""


class Usage(E2eError):
    """What was asked for makes no sense; the message names the word."""


class Unavailable(E2eError):
    """The machine lacks something; the message names it."""


class NotSeen(E2eError):
    """What a step must see was not seen; the message says what was."""


def see(holds: object, otherwise: str) -> None:
    """Go on if ``holds``.

    Raises:
        NotSeen: It does not; the message is ``otherwise``.
    """
    if not holds:
        raise NotSeen(otherwise)
