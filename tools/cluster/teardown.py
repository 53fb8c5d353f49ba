"""Ends a cluster and leaves nothing behind, whatever state it is in: it may have crashed half-way up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import network
from host import hierarchies
from layout import Layout
from processes import Process, Processes, end, seen

CONTAINER_LOGS = Path("/var/log/containers")
"""Where the kubelet puts links to the pods' logs; its place is fixed."""
CNI_RESULTS = Path("/var/lib/cni/results")
_STARTING_PODS = ("kubelet", "kube-controller-manager", "kube-scheduler")
_POLL_S = 0.05
_CGROUP_TIMEOUT_S = 5


def down(layout: Layout) -> None:
    """End the programs and pods, take back mounts, cgroups and the network, and remove all state but the logs."""
    processes = Processes(layout)
    names = processes.names()
    # First whatever would start pods again; then the pods; then the rest.
    processes.stop([name for name in names if name in _STARTING_PODS], timeout_s=1)
    _end_pods(layout)
    processes.stop([name for name in names if name not in _STARTING_PODS], timeout_s=3)
    for mount in reversed(_mounts(layout)):
        subprocess.run(["umount", "--lazy", str(mount)], check=False, capture_output=True)
    _remove_cgroups(layout)
    network.remove(layout)
    _remove_links(layout)
    shutil.rmtree(layout.run, ignore_errors=True)
    for folder in (layout.data, layout.pki, layout.settings):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (layout.kubeconfig, layout.facts):
        file.unlink(missing_ok=True)


def exists(layout: Layout) -> bool:
    """Return whether there is anything to take down."""
    return layout.run.exists() or layout.netns.exists() or layout.facts.exists()


def _end_pods(layout: Layout) -> None:
    pods = [process for pid in _in_cgroups(layout) if (process := seen(pid))]
    shims = list(_shims(layout))
    for process in (*pods, *shims):
        process.signal(signal.SIGKILL)
    end((*pods, *shims), timeout_s=0)


def _shims(layout: Layout) -> Iterator[Process]:
    """Yield containerd's parents of containers: they outlive it, and name its socket."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        process = seen(int(folder.name))
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            is_shim = Path(os.fsdecode(words[0])).name.startswith("containerd-shim")
            if process and is_shim and os.fsencode(layout.containerd_socket) in words:
                yield process


def _in_cgroups(layout: Layout) -> set[int]:
    files = (f for h in hierarchies() for f in (h / layout.cgroup).rglob("cgroup.procs"))
    return {int(pid) for file in files for pid in _read(file).split()}


def _remove_cgroups(layout: Layout) -> None:
    """Remove the pods' cgroups; the kernel needs a moment after the last process."""
    deadline = time.monotonic() + _CGROUP_TIMEOUT_S
    for hierarchy in hierarchies():
        root = hierarchy / layout.cgroup
        while root.exists() and time.monotonic() < deadline:
            for folder in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            try:
                root.rmdir()
            except OSError:
                time.sleep(_POLL_S)


def _mounts(layout: Layout) -> list[Path]:
    """Return the mounts below the cluster's folders, as they were made."""
    paths = [Path(line.split()[1].replace("\\040", " ")) for line in Path("/proc/mounts").read_text().splitlines()]
    return [path for path in paths if path.is_relative_to(layout.run) or path.is_relative_to(layout.state)]


def _remove_links(layout: Layout) -> None:
    logs = [p for p in CONTAINER_LOGS.glob("*.log") if p.is_symlink() and p.readlink().is_relative_to(layout.logs)]
    # A pod's address is filed under the network's name, which is the cluster's, its loopback only under the pod's id.
    pods = {path.name.removeprefix(f"{layout.id}-").partition("-")[0] for path in CNI_RESULTS.glob(f"{layout.id}-*")}
    results = [path for path in CNI_RESULTS.glob("*") if any(pod in path.name for pod in pods)]
    for path in (*logs, *results):
        path.unlink(missing_ok=True)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
