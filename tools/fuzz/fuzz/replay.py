"""Feeds inputs again: what was found, and what once was."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from pathlib import Path

from fuzz.inside import run
from fuzz.paths import BUILD
from fuzz.rig import Rig
from fuzz.targets import TARGETS


def replay(files: Sequence[Path]) -> int:
    """Feed files to the targets that their folders are named for; return 1 if one does what it should not."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    rig = Rig(BUILD / "models")
    found = 0
    for file in files:
        if file.suffix == ".txt":
            continue
        target = file.resolve().parent.name
        if target not in TARGETS:
            print(f"{file}: lies in no folder named for a target ({', '.join(TARGETS)})")
            return 2
        try:
            run(rig, target, file.read_bytes())
        except Exception as error:  # noqa: BLE001 -- this is what is shown
            found = 1
            print(f"{file}:")
            traceback.print_exception(error)
        else:
            print(f"{file}: as it should be")
    return found
