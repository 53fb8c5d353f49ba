"""Tells from a request's headers whether its unit was exposed to an arm, believing nothing that is not signed."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fairlead.assignment import assign
from fairlead.feedback.keys import UNIT_BYTES, KeyRing
from fairlead.route import EXPERIMENT_HEADER, UNIT_PATTERN, RouteError
from fairlead.serving import ExperimentCounts
from fairlead_server.exposure.keys import RouteKeys
from fairlead_server.exposure.routes import Headers, KnownRoute, KnownRoutes
from fairlead_server.exposure.tally import Place
from fairlead_server.metrics import Count, ModelMetrics

_LOG = logging.getLogger(__name__)
_UNIT = re.compile(UNIT_PATTERN.encode())
_MOST_UNITS = 50_000
"""Exposed units that are remembered, about 25 MB; when there are more, all are judged anew."""


class Outcome(StrEnum):
    """What a request's experiment header came to."""

    NONE = "none"
    """No header: the request belongs to no experiment."""
    UNVERIFIED = "unverified"
    """The header is not signed by a known key, or its unit cannot be read here or is not one."""
    SHADOW = "shadow"
    """A mirrored copy: the header is for another revision."""
    MISMATCH = "mismatch"
    """The unit belongs to another arm than the route says: the gateway and the law disagree."""
    EXPOSED = "exposed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one request's header."""

    outcome: Outcome
    known: KnownRoute | None
    """The verified route; None if there is none or it does not verify."""
    unit: bytes | None
    """What stands for the unit, ``UNIT_BYTES`` long, the same for a unit throughout an experiment; None without one."""
    place: Place = field(default_factory=Place, repr=False, compare=False)
    """Where the requests of an exposed unit are added up."""

    @property
    def unit_digest(self) -> str | None:
        """What stands for the unit, in hex digits."""
        return None if self.unit is None else self.unit.hex()


_NOTHING = Judgement(Outcome.NONE, None, None)
_UNVERIFIED = Judgement(Outcome.UNVERIFIED, None, None)


class ExperimentReader:
    """Judges the requests of one revision."""

    def __init__(self, keys: RouteKeys, revision: str, metrics: ModelMetrics) -> None:
        """Make the reader.

        Args:
            keys: The keys that routes are signed with.
            revision: The server's own.
            metrics: Where outcomes are counted.
        """
        self._routes = KnownRoutes(keys)
        self._revision = revision
        self._metrics = metrics
        self._counts: dict[Outcome, Count] = {}
        self._ring: KeyRing | None = None
        self._remembered = 0

    @property
    def counts(self) -> ExperimentCounts:
        """How many requests came to what, since the start."""
        count = self._metrics.exposures
        return ExperimentCounts(
            exposed=count(Outcome.EXPOSED),
            mismatched=count(Outcome.MISMATCH),
            shadow=count(Outcome.SHADOW),
            rejected=count(Outcome.UNVERIFIED),
        )

    def judge(self, headers: Headers, ring: KeyRing | None = None) -> Judgement:
        """Judge one request.

        Args:
            headers: Request headers or gRPC metadata by lower-case name, bytes decoded as latin-1; see
                :func:`joined`.
            ring: Of the deployment, by which units are known to the ledger; without it the salt alone tells them
                apart, for logs.
        """
        value = headers.get(EXPERIMENT_HEADER)
        if value is None:
            return _NOTHING
        if ring is not self._ring:
            self._ring = ring
            self._forget()
        try:
            known = self._routes.find(value)
        except RouteError as error:
            _LOG.debug("experiment header not verified reason=%s", error)
            return _UNVERIFIED
        text = known.source(headers)
        found = None if text is None else known.exposed.get(text)
        return self._judge(known, text, ring) if found is None else found

    def count(self, judgement: Judgement) -> None:
        """Count what a request that was answered came to."""
        outcome = judgement.outcome
        count = self._counts.get(outcome)
        if count is None:
            count = self._counts[outcome] = self._metrics.exposed(outcome)
        count.value += 1

    def count_nothing(self) -> None:
        """Count a request that was answered and names no experiment."""
        self.count(_NOTHING)

    def _judge(self, known: KnownRoute, text: str | None, ring: KeyRing | None) -> Judgement:
        route = known.route
        if route.revision != self._revision:
            return Judgement(Outcome.SHADOW, known, None)
        unit = _unit(text)
        if text is None or unit is None:
            return Judgement(Outcome.UNVERIFIED, known, None)
        digest = ring.unit(unit, route.salt) if ring is not None else unit_digest(unit, route.salt)
        if assign(unit, route.salt, route.layout) != route.variant:
            _LOG.warning("assignment mismatch salt=%s variant=%s unit=%s", route.salt, route.variant, digest.hex())
            return Judgement(Outcome.MISMATCH, known, digest)
        if self._remembered >= _MOST_UNITS:
            self._forget()
        self._remembered += 1
        found = known.exposed[text] = Judgement(Outcome.EXPOSED, known, digest)
        return found

    def _forget(self) -> None:
        self._remembered = 0
        self._routes.forget_units()


class RawHeaders:
    """A request's headers as they came, names in lower case; looked into only if somebody asks for one."""

    __slots__ = ("_named", "_pairs")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Hold ``pairs`` of names and values."""
        self._pairs = pairs
        self._named: dict[bytes, bytes] | None = None

    def get(self, name: str, /) -> str | None:
        """Return a header's value, latin-1; None if there is none. See :func:`joined`."""
        named = self._named
        if named is None:
            named = self._named = dict(self._pairs)
        key = name.encode()
        value = named.get(key)
        if value is None:
            return None
        if len(named) != len(self._pairs):
            value = b",".join([given for other, given in self._pairs if other == key])
        return value.decode("latin-1")


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by name; one that is there more than once is joined by commas, so that two units are no unit."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def unit_digest(unit: bytes, salt: str) -> bytes:
    """Return what stands for a unit in logs where no ring is known; two experiments are not joined by it."""
    return hmac.digest(salt.encode(), unit, hashlib.sha256)[:UNIT_BYTES]


def _unit(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        unit = text.encode("latin-1")
    except UnicodeEncodeError:
        unit = text.encode()
    return unit if _UNIT.fullmatch(unit) else None
