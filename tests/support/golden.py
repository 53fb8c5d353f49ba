"""Golden files: what is rendered, as it was reviewed. ``FAIRLEAD_GOLDEN=write`` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def matches_golden(path: Path, content: Any) -> None:
    """Check that ``content`` is what the YAML file at ``path`` says, key order included."""
    text = yaml.dump(content, Dumper=_Plain, sort_keys=False, width=120)
    if os.environ.get("FAIRLEAD_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text, f"{path.name} differs; review it after FAIRLEAD_GOLDEN=write"
