"""What the demo plays: an experiment that a better model should win, and two that nobody should."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from flights.manifest import document_of, written
from flights.runs import SERVICES

SLOWED_MS = 20
TWIN = "twin"
"""Variant that is the control once more."""


class Scenario(StrEnum):
    """What is played."""

    DEFAULT = "default"
    """The better model against the one that serves."""
    REGRESSION = "regression"
    """The better model, but each of its answers takes 20 ms longer."""
    AA = "aa"
    """The model that serves, against itself."""


@dataclass(frozen=True, slots=True)
class Play:
    """What is served."""

    manifest: Path
    services: dict[str, str]
    """Feature service by variant."""
    server_command: str | None = None
    """Program that serves a variant; None for the model server as it is."""


def play_of(scenario: Scenario, manifest: Path, folder: Path) -> Play:
    """Return what a scenario serves.

    Args:
        scenario: What is played.
        manifest: The example's own manifest; the default serves it as it stands.
        folder: Where another one is written.

    Raises:
        ManifestError: The manifest cannot be read.
    """
    match scenario:
        case Scenario.DEFAULT:
            return Play(manifest, dict(SERVICES))
        case Scenario.REGRESSION:
            command = f"{sys.executable} -m flights.slowed {_treatment(document_of(manifest))} {SLOWED_MS}"
            return Play(manifest, dict(SERVICES), command)
        case Scenario.AA:
            twins = folder / "modeldeployment.yaml"
            control = _write_twins(manifest, twins)
            return Play(twins, {control: SERVICES[control], TWIN: SERVICES[control]})


def _treatment(document: Any) -> str:
    return next(str(one["name"]) for one in document["spec"]["variants"] if one["role"] == "Treatment")


def _write_twins(manifest: Path, twins: Path) -> str:
    """Write the manifest with the control's model as its treatment; return the control's name."""
    document = document_of(manifest)
    spec = document["spec"]
    control = next(one for one in spec["variants"] if one["role"] == "Control")
    treatment = next(one for one in spec["variants"] if one["role"] == "Treatment")
    control["model"]["uri"] = _moved(control["model"]["uri"], manifest, twins)
    for step in spec["rollout"]["steps"]:
        step["weights"] = {TWIN: step["weights"][treatment["name"]]}
    treatment["name"], treatment["model"] = TWIN, dict(control["model"])
    spec["featureStore"]["path"] = _moved(spec["featureStore"]["path"], manifest, twins)
    twins.parent.mkdir(parents=True, exist_ok=True)
    twins.write_text(written(document))
    return str(control["name"])


def _moved(path: str, old: Path, new: Path) -> str:
    """Return a path relative to ``new`` that was relative to ``old``."""
    return os.path.relpath((old.parent / path).resolve(), new.parent.resolve())
