"""Programs of the system that the bench needs."""

from __future__ import annotations

import os
import shutil
import subprocess

_PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light", "taskset": "util-linux"}


def missing() -> str | None:
    """Install what is missing where that may be done (root, apt-get); return what is still to be installed, or None."""
    if os.cpu_count() == 1:
        return "it needs two CPUs, one for the server and one for the load"
    if not (packages := _missing()):
        return None
    allowed = os.environ.get("FAIRLEAD_SYSTEM", "yes") == "yes" and os.geteuid() == 0 and shutil.which("apt-get")
    if allowed:
        for command in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "install", "--yes", *packages]):
            subprocess.run(
                command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, check=False, capture_output=True
            )
        packages = _missing()
    return f"not here: {' '.join(packages)} (Debian: apt-get install {' '.join(packages)})" if packages else None


def _missing() -> list[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    return [package for program, package in _PACKAGES.items() if shutil.which(program, path=path) is None]
