"""What a writer means: who writes, how, and which object is to go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intent:
    """Who writes, and how."""

    manager: str = "test"
    subresource: str = ""
    force: bool = False
    dry_run: bool = False
    strict: bool = False
    """Refuse fields that the schema does not know, instead of dropping them."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """How an object is to be deleted."""

    uid: str = ""
    revision: str = ""
    policy: str = "Background"
