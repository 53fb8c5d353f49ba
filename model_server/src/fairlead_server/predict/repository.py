"""A folder of models: which there are, and in which versions.

``NAME.onnx``, ``NAME/model.onnx`` or, as Triton has it, ``NAME/VERSION/model.onnx`` with whole numbers as versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE: Final = "model.onnx"
_SUFFIX: Final = ".onnx"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION: Final = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where one version of a model is."""

    name: str
    version: str | None
    """The folder's number; None where the file alone knows."""
    path: Path


@dataclass(frozen=True, slots=True)
class FoundModel:
    """One model of the folder."""

    places: tuple[ModelPlace, ...]
    """Its versions, the highest first."""
    problem: str = ""
    """Why it cannot be loaded; empty if nothing speaks against it."""


def find_models(folder: Path, *, latest_only: bool = False) -> Mapping[str, FoundModel]:
    """Return the models of a folder by name, in alphabetic order; what is named otherwise is left out.

    Args:
        folder: The folder.
        latest_only: Whether to leave out all but the highest version of each.

    Raises:
        OSError: It cannot be read.
    """
    found: dict[str, FoundModel] = {}
    for entry in sorted(folder.iterdir()):
        name = entry.name.removesuffix(_SUFFIX) if entry.is_file() else entry.name
        if not _NAME.fullmatch(name) or (entry.is_file() and entry.suffix != _SUFFIX):
            continue
        model = FoundModel((ModelPlace(name, None, entry),)) if entry.is_file() else _of_folder(name, entry)
        if model is None:
            continue
        if name in found:
            model = FoundModel((), f"{name}{_SUFFIX} is there beside the folder {name}; keep one of them")
        elif latest_only:
            model = FoundModel(model.places[:1], model.problem)
        found[name] = model
    return found


def _of_folder(name: str, folder: Path) -> FoundModel | None:
    versions = sorted(
        (int(each.name) for each in folder.iterdir() if _VERSION.fullmatch(each.name) and (each / _FILE).is_file()),
        reverse=True,
    )
    places = tuple(ModelPlace(name, str(version), folder / str(version) / _FILE) for version in versions)
    if not (folder / _FILE).is_file():
        return FoundModel(places) if places else None
    if places:
        return FoundModel((), f"{name}/{_FILE} is there beside numbered versions; keep one of them")
    return FoundModel((ModelPlace(name, None, folder / _FILE),))
