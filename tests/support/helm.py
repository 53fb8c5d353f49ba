"""The real Helm, against the test cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from support.cluster import Cluster

_TIMEOUT_S = 120.0


class HelmFailed(AssertionError):
    """Helm failed; the message is what it said."""


def run_helm(cluster: Cluster, *words: str, namespace: str, values: Mapping[str, Any] | None = None) -> str:
    """Run Helm in a namespace and return what it says.

    Raises:
        HelmFailed: It failed.
    """
    command = [str(cluster.programs["helm"]), *words, f"--namespace={namespace}", f"--kubeconfig={cluster.kubeconfig}"]
    given = None if values is None else json.dumps(values)
    command += [] if given is None else ["--values=-"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode:
        raise HelmFailed(f"helm {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
