"""Helm: charts packaged, installed, tested, removed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.programs import ROOT, Programs

CHARTS = ROOT / "charts"
_TIMEOUT = "180s"


@dataclass(frozen=True, slots=True)
class Helm:
    """The real program, for one namespace."""

    program: Path
    namespace: str
    run: Programs

    def install(self, release: str, chart: Path, values: Mapping[str, Any]) -> str:
        """Install a release, and wait until it works; return what it says."""
        return self._call("install", release, str(chart), *_set(values), "--wait", f"--timeout={_TIMEOUT}")

    def upgrade(self, release: str, chart: Path, values: Mapping[str, Any]) -> str:
        """Upgrade a release, and wait until it works; return what it says."""
        return self._call("upgrade", release, str(chart), *_set(values), "--wait", f"--timeout={_TIMEOUT}")

    def test(self, release: str) -> str:
        """Run a release's tests; return what it says."""
        return self._call("test", release, f"--timeout={_TIMEOUT}", "--logs")

    def uninstall(self, release: str) -> str:
        """Remove a release; return what it says."""
        return self._call("uninstall", release, "--ignore-not-found", "--wait", f"--timeout={_TIMEOUT}")

    def releases(self) -> dict[str, str]:
        """Return the charts that are installed, by release."""
        return {one["name"]: one["chart"] for one in json.loads(self._call("list", "--output=json"))}

    def package(self, chart: str, version: str, folder: Path) -> Path:
        """Package a chart of the checkout as another version of it; return the archive."""
        words = ["package", str(CHARTS / chart), f"--version={version}", f"--app-version={version}"]
        self.run(self.program, *words, f"--destination={folder}")
        return folder / f"{chart}-{version}.tgz"

    def _call(self, *words: str) -> str:
        return self.run(self.program, *words, f"--namespace={self.namespace}", timeout_s=300)


def _set(values: Mapping[str, Any]) -> list[str]:
    return [f"--set-json={path}={json.dumps(value)}" for path, value in values.items()]
