"""Tests of what is in the archives. ``make test-images`` builds them first and runs these; else they are left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.image_box import Box, unpack

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ASKED = "FAIRLEAD_IMAGES"
"""Variable that ``make test-images`` sets."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out unless it is asked for."""
    asked = [Path(str(config.invocation_params.dir), word.split("::")[0]).resolve() for word in config.args]
    if ASKED in os.environ or any(path.is_relative_to(HERE) for path in asked):
        return None
    return collection_path.is_relative_to(HERE) or None


@pytest.fixture(scope="session")
def archives() -> Mapping[str, dict[str, Any]]:
    """What ``tools/images list`` says."""
    command = [sys.executable, "tools/images", "list", "--json"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, Any]] = json.loads(listed)
    return found


@pytest.fixture(scope="session")
def box_of(archives: Mapping[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Box]:
    """Unpacks an image, once."""
    if os.geteuid():
        pytest.skip("entering an image's root needs root")
    boxes: dict[str, Box] = {}

    def box(name: str) -> Box:
        if name not in archives:
            pytest.skip(f"image {name} is not built; `make images` does it")
        if name not in boxes:
            folder = tmp_path_factory.mktemp(name)
            for parent in (folder, *folder.parents):
                if parent.is_relative_to(tmp_path_factory.getbasetemp().parent):
                    parent.chmod(0o755)
            boxes[name] = unpack(Path(archives[name]["archive"]), folder)
        return boxes[name]

    return box
