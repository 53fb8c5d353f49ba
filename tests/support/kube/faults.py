"""What can go wrong between a client and the server, on demand.

Any call can be refused, delayed, left hanging, cut off before or after it is done. A watch can moreover fall silent,
be told that it is expired, be sent an error, half a line, or its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from support.kube.calls import Call

Predicate = Callable[[Call], bool]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with a Status of this code, and do nothing."""

    code: int
    reason: str = ""
    message: str = "injected by the test"
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer as ever, later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection, having done nothing."""


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Do what was asked, then close the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answer."""


@dataclass(frozen=True, slots=True)
class FallSilent:
    """Keep the watch open and send nothing any more, bookmarks neither."""


@dataclass(frozen=True, slots=True)
class End:
    """End the watch in good order, as the server does after a while."""


@dataclass(frozen=True, slots=True)
class CutLine:
    """Send half an event and close the connection."""


@dataclass(frozen=True, slots=True)
class WatchError:
    """Send an ERROR event and end the watch; 410 is what an expired resourceVersion gets."""

    code: int = 410
    reason: str = "Expired"
    message: str = "too old resource version"


CallFault = Refuse | Delay | Drop | LoseAnswer | Hang
WatchFault = FallSilent | End | CutLine | WatchError
Fault = CallFault | WatchFault


@dataclass(slots=True)
class _Planned:
    fault: Fault
    when: Predicate
    left: int
    skip: int


def anything(call: Call) -> bool:
    """Match every call."""
    return bool(call)


def calls(verb: str = "", resource: str = "", name: str = "", *, subresource: str | None = None) -> Predicate:
    """Return a predicate of what is given; what is left out matches all.

    Args:
        verb: As in ``Call.verb``; ``write`` stands for all that may change anything.
        resource: Plural, qualified or not: ``deployments`` or ``deployments.apps``.
        name: Name of the object.
        subresource: ``""`` for the object's own path, None for any.
    """
    return lambda call: (
        (verb in {"", call.verb} or (verb == "write" and call.is_write))
        and resource in {"", call.plural, call.resource}
        and name in {"", call.name}
        and subresource in {None, call.subresource}
    )


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        """Begin with none."""
        self._planned: list[_Planned] = []

    def inject(self, fault: Fault, when: Predicate = anything, *, times: int = 1, skip: int = 0) -> None:
        """Let ``fault`` befall the next ``times`` calls that match ``when``, after ``skip`` of them went well."""
        self._planned.append(_Planned(fault, when, times, skip))

    def clear(self) -> None:
        """Call off all that has not happened."""
        self._planned.clear()

    def take(self, call: Call) -> Fault | None:
        """Return what befalls ``call``, and count it."""
        for planned in self._planned:
            if planned.left and planned.when(call) and _fits(planned.fault, call):
                if planned.skip:
                    planned.skip -= 1
                    continue
                planned.left -= 1
                return planned.fault
        return None


def _fits(fault: Fault, call: Call) -> bool:
    return call.verb == "watch" or not isinstance(fault, WatchFault)
