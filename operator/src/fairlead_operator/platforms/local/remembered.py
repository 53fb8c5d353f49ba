"""What a state folder remembers of a deployment, for commands beside ``fairlead up``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION, ModelDeployment
from fairlead_operator.core.desired import Desired, desired_from
from fairlead_operator.core.record import Record
from fairlead_operator.errors import StateUnreadable
from fairlead_operator.platforms.local.state import State, is_held


@dataclass(frozen=True, slots=True)
class Remembered:
    """A deployment that is up, or was."""

    state: State
    desired: Desired
    rollout: Record
    is_up: bool
    """Whether ``fairlead up`` runs."""
    is_paused: bool
    """Whether a command has paused it."""
    manifest_pauses: bool
    """Whether it is paused by its manifest."""

    def annotate(self, changes: Mapping[str, str | None]) -> None:
        """Change annotations of the deployment; None removes one."""
        self.state.annotate(changes)


def remembered(root: Path, name: str) -> Remembered | None:
    """Return what the state folder ``root`` remembers of deployment ``name``; None if it was never up.

    Raises:
        StateUnreadable: It was written by another version, or is damaged.
    """
    state = State(root, name)
    kept = state.read()
    if kept.manifest is None:
        return None
    try:
        deployment = ModelDeployment.model_validate_json(kept.manifest)
    except ValidationError as error:
        raise StateUnreadable(f"{state.folder}: is of another version; remove it to start afresh") from error
    rollout = kept.rollout_before("")
    is_paused = state.annotations().get(PAUSED_ANNOTATION) == "true"
    return Remembered(
        state=state,
        desired=desired_from(deployment, rollout.release),
        rollout=rollout,
        is_up=is_held(root),
        is_paused=is_paused,
        manifest_pauses=not is_paused and _published_paused(state),
    )


def _published_paused(state: State) -> bool:
    try:
        return bool(json.loads(state.status_file.read_bytes())["spec"]["paused"])
    except (OSError, ValueError, KeyError):
        return False
