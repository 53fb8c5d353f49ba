"""Experiment headers that have been verified: a gateway sends the same few with every request."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from fairlead.feedback.messages import Arm
from fairlead.feedback.token import Context
from fairlead.route import COOKIE_SOURCE, HEADER_SOURCE, ExperimentRoute, cookie_pattern, verify
from fairlead_server.exposure.keys import RouteKeys
from fairlead_server.exposure.tally import BlockPlace

if TYPE_CHECKING:
    from fairlead_server.exposure.experiment import Judgement

_LOG = logging.getLogger(__name__)
_MOST_ROUTES = 256
"""Verified headers that are remembered; a server sees one per phase and treatment share."""


class Headers(Protocol):
    """Request headers or gRPC metadata by lower-case name, bytes decoded as latin-1; a dictionary, for one."""

    def get(self, name: str, /) -> str | None:
        """Return a header's value; None if there is none."""


@dataclass(frozen=True, slots=True)
class KnownRoute:
    """A verified route, and what every request of it needs."""

    route: ExperimentRoute
    source: Callable[[Headers], str | None]
    """Finds the text in which a unit is; None if there is none."""
    arm: Arm | None
    """What reports call it; None if its names are none that the ledger takes."""
    context: bytes
    """``Context.encoded()``."""
    exposed: dict[str, Judgement] = field(default_factory=dict, compare=False)
    """What was found of units that are exposed, by the text they came in."""
    block: BlockPlace = field(default_factory=BlockPlace, compare=False)
    """Where the arm's requests are added up."""


class KnownRoutes:
    """Verifies headers, each distinct value once while the keys stay the same."""

    def __init__(self, keys: RouteKeys) -> None:
        """Verify with ``keys``."""
        self._keys = keys
        self._version = keys.version
        self._known: OrderedDict[str, KnownRoute] = OrderedDict()

    def find(self, value: str) -> KnownRoute:
        """Return the route that a header's value says.

        Only what verifies is remembered, so that nobody can push it out with forgeries.

        Raises:
            RouteError: It does not verify.
        """
        keys = self._keys.current()
        if self._keys.version != self._version:
            self._version = self._keys.version
            self._known.clear()
        known = self._known.get(value)
        if known is not None:
            self._known.move_to_end(value)
            return known
        known = self._known[value] = _known(verify(value, keys))
        if len(self._known) > _MOST_ROUTES:
            self._known.popitem(last=False)
        return known

    def forget_units(self) -> None:
        """Forget which units are exposed."""
        for known in self._known.values():
            known.exposed.clear()


def _known(route: ExperimentRoute) -> KnownRoute:
    context = Context(route.salt, route.phase, route.revision, route.variant)
    arm = _arm(context)
    return KnownRoute(route, _source(route.unit_source), arm, context.encoded() if arm else b"")


def _arm(context: Context) -> Arm | None:
    try:
        return Arm(salt=context.salt, phase=context.phase, revision=context.revision, variant=context.variant)
    except ValidationError as error:
        _LOG.warning("route has no arm that can be reported field=%s", error.errors()[0]["loc"][0])
        return None


def _source(name: str) -> Callable[[Headers], str | None]:
    if name.startswith(HEADER_SOURCE):
        header = name.removeprefix(HEADER_SOURCE)
        return lambda headers: headers.get(header)
    if name.startswith(COOKIE_SOURCE):
        cookie = re.compile(cookie_pattern(name.removeprefix(COOKIE_SOURCE)))
        return lambda headers: _first_group(cookie.fullmatch(headers.get("cookie") or ""))
    return lambda _: None


def _first_group(found: re.Match[str] | None) -> str | None:
    return found[1] if found else None
