"""The container runtime: its settings, the local images, and what every container starts from."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import image
from archives import Archive
from errors import ClusterError
from host import CNI_PROGRAMS, mounted_folders, write
from layout import POD_CIDR, Layout
from network import run
from processes import Processes

_UNUSED = ("internal.v1.opt", *(f"snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")))
_CLOSED = "http://127.0.0.1:1"
_READ_ONLY = ["rbind", "ro", "nosuid", "nodev"]


def start(layout: Layout, processes: Processes) -> None:
    """Write containerd's settings and start it."""
    if processes.alive("containerd"):
        return
    write(layout.settings / "cni/10-bridge.conflist", json.dumps(_bridge(layout)))
    # No image is ever pulled: every registry name leads to a closed port, so that a missing image fails at once.
    host = f'server = "{_CLOSED}"\n[host."{_CLOSED}"]\n  capabilities = ["pull", "resolve"]\n'
    write(layout.settings / "registries/_default/hosts.toml", host)
    write(layout.settings / "runtime-spec.json", json.dumps(_runtime_spec(layout)))
    write(layout.settings / "containerd.toml", _settings(layout))
    processes.start("containerd", ["containerd", "--config", layout.settings / "containerd.toml"])


def wait(layout: Layout, processes: Processes) -> None:
    """Wait until containerd answers."""
    version = [*_ctr(layout), "version"]
    processes.wait("containerd", lambda: subprocess.run(version, capture_output=True, check=False).returncode == 0)


class Import:
    """Hands images to containerd, all at once and beside what else is done; ``finish`` waits for it."""

    def __init__(self, layout: Layout, archives: Iterable[Archive]) -> None:
        """Start to import what containerd does not have yet.

        Raises:
            ClusterError: containerd does not answer.
        """
        self._ctr = _ctr(layout)
        there = _digests(layout)
        self._archives = [one for one in archives if any(there.get(name) != one.digest for name in one.names)]
        self._running = {one: self._start(one, _snapshotter(layout)) for one in self._archives}

    def finish(self) -> None:
        """Wait until all is imported, and keep it from being collected as garbage.

        Raises:
            ClusterError: An archive was not taken.
        """
        for one, process in self._running.items():
            output, _ = process.communicate()
            if process.returncode:
                raise ClusterError(f"{one.path}: not imported: {output.strip()}")
        for one in self._archives:
            for name in one.names:
                run(*self._ctr, "images", "label", name, "io.cri-containerd.pinned=pinned")

    def _start(self, archive: Archive, snapshotter: str) -> subprocess.Popen[str]:
        command = [*self._ctr, "images", "import", "--snapshotter", snapshotter, str(archive.path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _ctr(layout: Layout) -> list[str]:
    return ["ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io"]


def _digests(layout: Layout) -> Mapping[str, str]:
    """Return the digest of each image that containerd has, by name."""
    rows = (line.split() for line in run(*_ctr(layout), "images", "list").splitlines()[1:])
    return {row[0]: row[2] for row in rows}


def _runtime_spec(layout: Layout) -> dict[str, Any]:
    """Return the OCI spec that every container starts from: containerd's own, and the host's folders as mounts.

    In a packaged cluster containers get nothing from the host.
    """
    spec: dict[str, Any] = json.loads(run("ctr", "oci", "spec"))
    # Limits of its own would be lower than the host's, or ask for what the host may not give.
    spec["process"].pop("rlimits", None)
    folders = [] if layout.packaged else mounted_folders()
    spec["mounts"] += [
        {"destination": str(image.inside(path)), "type": "bind", "source": str(path), "options": _READ_ONLY}
        for path in folders
    ]
    return spec


def _snapshotter(layout: Layout) -> str:
    """Return how images become file systems.

    Images of a few kilobytes are copied faster than overlaid, and that works on any file system; copying hundreds of
    megabytes for each container does not start it fast, so that those are overlaid wherever they can be.
    """
    return "overlayfs" if layout.packaged and _can_overlay(layout.data) else "native"


def _can_overlay(folder: Path) -> bool:
    """Return whether overlays work on the file system of a folder, by making one."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        parts = {name: Path(made) / name for name in ("lower", "upper", "work", "merged")}
        for part in parts.values():
            part.mkdir()
        options = ",".join(f"{name}dir={parts[name]}" for name in ("lower", "upper", "work"))
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return False
        run("umount", parts["merged"])
        return True


def _settings(layout: Layout) -> str:
    return f"""version = 2
root = "{layout.data / "containerd"}"
state = "{layout.run / "containerd"}"
# Each would make a folder outside of this cluster's own, or look for what is not here.
disabled_plugins = [{", ".join(f'"io.containerd.{name}"' for name in _UNUSED)}]
[grpc]
  address = "{layout.containerd_socket}"
[debug]
  level = "warn"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.PAUSE}"
  # Not every machine lets root lower this score (CAP_SYS_RESOURCE); runc would then fail each container.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{_snapshotter(layout)}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{layout.settings / "runtime-spec.json"}"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{layout.settings / "cni"}"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{layout.settings / "registries"}"
"""


def _bridge(layout: Layout) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.run / "pod-addresses"),
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    return {"cniVersion": "0.4.0", "name": layout.id, "plugins": [{**bridge, "ipam": addresses}]}
