"""Every command of the page on installing, in its order, on the real API server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.charts import CHARTS
from support.cluster import Cluster
from support.console import commands_of

ROOT = CHARTS.parent
PAGE = ROOT / "docs/install.md"
TAKEN_OVER = "--take-ownership --force-conflicts"
"""Other tests apply the definition without Helm."""


def test_every_command_of_the_page_works(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    folders = [str(cluster.programs[name].parent) for name in ("kubectl", "helm")]
    environment = os.environ | {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": os.pathsep.join([*folders, os.environ["PATH"]]),
    }
    for command in commands_of(PAGE.read_text(), "cluster"):
        text = command.text.replace("NAMESPACE", namespace).replace("fairlead-system", namespace)
        text = text.replace("build/charts", str(tmp_path))
        if text.startswith("helm install fairlead-crds"):
            text = f"{text} {TAKEN_OVER}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"$ {text}\n{done.stdout}{done.stderr}"
    assert {path.name.rpartition("-")[0] for path in tmp_path.iterdir()} == {"fairlead", "fairlead-crds"}
