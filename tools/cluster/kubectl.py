"""kubectl, as the cluster's administrator, inside its network namespace."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from build import Built
from errors import ClusterError
from layout import Layout

_POLL_S = 0.1


class Kubectl:
    """Runs kubectl."""

    def __init__(self, layout: Layout, built: Built) -> None:
        self._command = [str(built.program("kubectl")), f"--kubeconfig={layout.kubeconfig}"]
        self._cache = f"--cache-dir={layout.run / 'kubectl'}"

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """Run it and return its output.

        Raises:
            ClusterError: It failed.
        """
        command = [*self._command, self._cache, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply_files(self, paths: Iterable[Path]) -> None:
        """Apply the manifests in files."""
        files = [word for path in paths for word in ("--filename", str(path))]
        self("apply", "--server-side", "--force-conflicts", *files)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply manifests."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self("apply", "--server-side", "--force-conflicts", "--filename", "-", given=json.dumps(listed))

    def wait(self, condition: str, *names: str, timeout_s: float = 60) -> None:
        """Wait until objects have a condition.

        Raises:
            ClusterError: They have not in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self("wait", f"--for=condition={condition}", f"--timeout={timeout_s:.0f}s", *names)
            except ClusterError:
                # An object that is not there yet, or has no conditions yet, is an error to kubectl.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return
