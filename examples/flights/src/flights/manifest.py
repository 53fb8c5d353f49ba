"""The ModelDeployment's file, as training reads and writes it: which model each variant serves."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fairlead.contract import sha256
from flights.errors import FlightsError


class ManifestError(FlightsError):
    """The manifest cannot be read, or lacks a variant; the message names file, field and fix."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What the manifest says a variant serves."""

    path: Path
    """Where the model file is, or will be."""
    digest: str
    """``sha256:…`` that the file must have."""

    @property
    def intact(self) -> bool:
        """Whether the file is there and is the one that the manifest means."""
        return self.path.is_file() and sha256(self.path.read_bytes()) == self.digest


def deployed(manifest: Path, variant: str) -> Deployed:
    """Read which model ``variant`` serves.

    Raises:
        ManifestError: No such file or variant, or its model has no uri or digest.
    """
    model = _model(_load(manifest), manifest, variant)
    return Deployed((manifest.parent / model["uri"]).resolve(), model["digest"])


def set_digest(manifest: Path, variant: str, digest: str) -> bool:
    """Write the digest of a variant's model; comments, order and everything else stay.

    Returns:
        Whether the file changed; an equal digest leaves it untouched.

    Raises:
        ManifestError: As for :func:`deployed`.
    """
    document = _load(manifest)
    model = _model(document, manifest, variant)
    if model["digest"] == digest:
        return False
    model["digest"] = digest
    fresh = manifest.with_name(f".{manifest.name}.{os.getpid()}")
    fresh.write_text(written(document))
    fresh.replace(manifest)
    return True


def document_of(manifest: Path) -> Any:
    """Return the manifest's document, which keeps comments and order when it is changed.

    Raises:
        ManifestError: It cannot be read.
    """
    return _load(manifest)


def written(document: Any) -> str:
    """Return a document as YAML."""
    text = io.StringIO()
    _yaml().dump(document, text)
    return text.getvalue()


def follow(manifest: Path, leader: Path, variants: Iterable[str]) -> bool:
    """Let ``manifest`` name the models that ``leader`` names; return whether it changed.

    Raises:
        ManifestError: As for :func:`deployed`.
    """
    changed = False
    for variant in variants:
        changed |= set_digest(manifest, variant, deployed(leader, variant).digest)
    return changed


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _load(manifest: Path) -> Any:
    try:
        return _yaml().load(manifest.read_text())
    except OSError as error:
        raise ManifestError(
            f"{manifest}: cannot be read ({error.strerror}); give a manifest with --manifest"
        ) from error
    except YAMLError as error:
        raise ManifestError(f"{manifest}: not YAML: {' '.join(str(error).split())}") from error


def _model(document: Any, manifest: Path, variant: str) -> Any:
    try:
        variants = document["spec"]["variants"]
        model = next(entry["model"] for entry in variants if entry["name"] == variant)
    except (KeyError, TypeError, StopIteration) as error:
        raise ManifestError(f"{manifest}: spec.variants has no {variant} with a model; add it") from error
    missing = [field for field in ("uri", "digest") if not isinstance(model, Mapping) or not model.get(field)]
    if missing:
        raise ManifestError(f"{manifest}: spec.variants[{variant}].model.{missing[0]} is missing; add it")
    return model
