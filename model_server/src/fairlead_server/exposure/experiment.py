"""Tells from a request's headers whether its unit was exposed to an arm, believing nothing that is not signed."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fairlead.assignment import assign
from fairlead.route import (
    COOKIE_SOURCE,
    EXPERIMENT_HEADER,
    HEADER_SOURCE,
    UNIT_PATTERN,
    ExperimentRoute,
    RouteError,
    cookie_pattern,
    verify,
)
from fairlead.serving import ExperimentCounts
from fairlead_server.exposure.keys import RouteKeys
from fairlead_server.metrics import ModelMetrics

_LOG = logging.getLogger(__name__)
_UNIT = re.compile(UNIT_PATTERN.encode())


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
    route: ExperimentRoute | None
    """The verified route; None if there is none or it does not verify."""
    unit_digest: str | None
    """Of the unit, 32 hex digits, the same for a unit throughout an experiment; None without a verified unit."""


_NOTHING = Judgement(Outcome.NONE, None, None)


class ExperimentReader:
    """Judges the requests of one revision."""

    def __init__(self, keys: RouteKeys, revision: str, metrics: ModelMetrics) -> None:
        """Make the reader.

        Args:
            keys: The keys that routes are signed with.
            revision: The server's own.
            metrics: Where outcomes are counted.
        """
        self._keys = keys
        self._revision = revision
        self._metrics = metrics

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

    def judge(self, headers: Mapping[str, str]) -> Judgement:
        """Judge one request and count the outcome.

        Args:
            headers: Request headers or gRPC metadata by lower-case name, bytes decoded as latin-1; see
                :func:`joined`.
        """
        value = headers.get(EXPERIMENT_HEADER)
        judgement = _NOTHING if value is None else self._judge(value, headers)
        self._metrics.count_exposure(judgement.outcome.value)
        return judgement

    def _judge(self, value: str, headers: Mapping[str, str]) -> Judgement:
        try:
            route = verify(value, self._keys.current())
        except RouteError as error:
            _LOG.debug("experiment header not verified reason=%s", error)
            return Judgement(Outcome.UNVERIFIED, None, None)
        if route.revision != self._revision:
            return Judgement(Outcome.SHADOW, route, None)
        unit = _unit(route, headers)
        if unit is None:
            return Judgement(Outcome.UNVERIFIED, route, None)
        digest = unit_digest(unit, route.salt)
        if assign(unit, route.salt, route.layout) != route.variant:
            _LOG.warning("assignment mismatch salt=%s variant=%s unit=%s", route.salt, route.variant, digest)
            return Judgement(Outcome.MISMATCH, route, digest)
        return Judgement(Outcome.EXPOSED, route, digest)


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by name; one that is there more than once is joined by commas, so that two units are no unit."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def unit_digest(unit: bytes, salt: str) -> str:
    """Return what stands for a unit in logs and records; units of two experiments cannot be joined by it."""
    return hmac.digest(salt.encode(), unit, hashlib.sha256)[:16].hex()


def _unit(route: ExperimentRoute, headers: Mapping[str, str]) -> bytes | None:
    text = _source(route.unit_source, headers)
    if text is None:
        return None
    try:
        unit = text.encode("latin-1")
    except UnicodeEncodeError:
        unit = text.encode()
    return unit if _UNIT.fullmatch(unit) else None


def _source(source: str, headers: Mapping[str, str]) -> str | None:
    """Return the text in which a unit is, by the name of its source; None if there is none."""
    if source.startswith(HEADER_SOURCE):
        return headers.get(source.removeprefix(HEADER_SOURCE))
    if source.startswith(COOKIE_SOURCE):
        found = re.fullmatch(cookie_pattern(source.removeprefix(COOKIE_SOURCE)), headers.get("cookie", ""))
        return found[1] if found else None
    return None
