"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from fairlead_operator.doctor.reader import Reader


class Level(StrEnum):
    """How a finding is meant."""

    GOOD = "good"
    DOUBT = "doubt"
    """Something may be wrong, is missing without harm, or cannot be told from here."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    subject: str
    """What was looked at."""
    seen: str
    fix: str = ""
    """What to do, in one line; a command where there is one. Empty for what is good."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What was asked about."""

    namespace: str | None = None
    """Namespace of the deployments; None for all that can be seen."""
    name: str | None = None
    """The only deployment; None for all of the namespace."""
    operator_namespace: str = "fairlead-system"

    def has(self, namespace: str, name: str) -> bool:
        """Return whether a deployment was asked about."""
        return self.namespace in {None, namespace} and self.name in {None, name}


Facts = TypeVar("Facts")


class Check(Protocol[Facts]):
    """One area: gathers facts, then judges them."""

    @property
    def area(self) -> str:
        """Name of the area, as people read it."""

    async def gather(self, reader: Reader, scope: Scope) -> Facts:
        """Read what there is to know; raises nothing for what is not there or may not be read."""

    def judge(self, facts: Facts) -> Iterable[Finding]:
        """Say what the facts mean; pure."""


def good(subject: str, seen: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(Level.GOOD, subject, seen)


def doubt(subject: str, seen: str, fix: str) -> Finding:
    """Return a finding that may need something."""
    return Finding(Level.DOUBT, subject, seen, fix)


def bad(subject: str, seen: str, fix: str) -> Finding:
    """Return a finding that keeps something from working."""
    return Finding(Level.BAD, subject, seen, fix)
