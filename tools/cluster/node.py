"""The node: containerd, the local images, kubelet and kube-proxy."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import image
import yaml
from build import Built
from layout import NODE, NODE_IP, POD_CIDR, Layout
from network import run
from processes import Processes

ROOT = Path(__file__).resolve().parents[2]
CNI_PROGRAMS = Path("/usr/lib/cni")
CGROUPS = Path("/sys/fs/cgroup")
GATEWAY_IMAGE = "fairlead.local/gateway:dev"
_UNUSED = ("internal.v1.opt", *(f"snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")))
_WEIGHTS = {"cpu.shares": "20480", "cpu.weight": "2000"}
"""Twenty times that of a process, with version 1 and 2."""
_CONTROLLERS = ("cpu", "cpuset", "hugetlb", "memory", "pids")
_CLOSED = "http://127.0.0.1:1"
_READ_ONLY = ["rbind", "ro", "nosuid", "nodev"]


def start_containerd(layout: Layout, processes: Processes) -> None:
    """Write containerd's settings and start it."""
    _write(layout.settings / "cni/10-bridge.conflist", json.dumps(_bridge(layout)))
    # No image is ever pulled: every registry name leads to a closed port, so that a missing image fails at once.
    host = f'server = "{_CLOSED}"\n[host."{_CLOSED}"]\n  capabilities = ["pull", "resolve"]\n'
    _write(layout.settings / "registries/_default/hosts.toml", host)
    _write(layout.settings / "runtime-spec.json", json.dumps(_runtime_spec()))
    _write(layout.settings / "containerd.toml", _containerd(layout))
    processes.start("containerd", ["containerd", "--config", layout.settings / "containerd.toml"])


def import_images(layout: Layout, built: Built, processes: Processes) -> None:
    """Write the images and hand them to containerd."""
    ctr = ["ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io"]
    processes.wait(
        "containerd", lambda: subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode == 0
    )
    images = (
        image.pause(built.program("pause")),
        image.server(venv(), sources(), metadata.version("fairlead-server")),
        image.host(GATEWAY_IMAGE),
    )
    for one in images:
        archive = layout.settings / "image.tar"
        image.write(one, archive)
        run(*ctr, "images", "import", archive)
        archive.unlink()
    for one in images:
        for name in one.names:
            run(*ctr, "images", "label", name, "io.cri-containerd.pinned=pinned")


def start_kubelet(layout: Layout, built: Built, processes: Processes) -> None:
    """Start the kubelet, with all its pods in a cgroup of the cluster's own."""
    make_cgroups(layout)
    _write(layout.settings / "resolv.conf", f"nameserver {NODE_IP}\noptions attempts:1 timeout:1\n")
    _write(layout.settings / "kubelet.yaml", yaml.safe_dump(_kubelet(layout)))
    processes.start(
        "kubelet",
        [
            built.program("kubelet"),
            f"--config={layout.settings / 'kubelet.yaml'}",
            f"--kubeconfig={layout.pki / 'kubelet.kubeconfig'}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_IP}",
            f"--root-dir={layout.kubelet}",
            f"--cert-dir={layout.run / 'kubelet-pki'}",
        ],
    )


def start_proxy(layout: Layout, built: Built, processes: Processes) -> None:
    """Start kube-proxy."""
    _write(layout.settings / "proxy.yaml", yaml.safe_dump(_proxy(layout)))
    processes.start("kube-proxy", [built.program("kube-proxy"), f"--config={layout.settings / 'proxy.yaml'}"])


def make_cgroups(layout: Layout) -> None:
    """Make the cgroup that the kubelet's pods go into, in each hierarchy."""
    for hierarchy in hierarchies():
        _delegate(hierarchy)
        folder = hierarchy / layout.cgroup
        folder.mkdir(exist_ok=True)
        # A new cpuset has neither processors nor memory until it is told.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if hierarchy.name == "cpuset" and not (folder / name).read_text().strip():
                (folder / name).write_text((hierarchy / name).read_text())
        # All pods together would get as much of a busy machine as one process outside.
        for name, weight in _WEIGHTS.items():
            if (folder / name).exists():
                (folder / name).write_text(weight)


def _delegate(hierarchy: Path) -> None:
    """Let cgroups of a version 2 hierarchy use its controllers."""
    if (hierarchy / "cgroup.controllers").exists():
        there = set((hierarchy / "cgroup.controllers").read_text().split())
        wanted = [f"+{name}" for name in _CONTROLLERS if name in there]
        (hierarchy / "cgroup.subtree_control").write_text(" ".join(wanted))


def hierarchies() -> list[Path]:
    """Return the roots of this machine's cgroup hierarchies: one with version 2, several with version 1 or both."""
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in lines if fields[2] in ("cgroup", "cgroup2")]


def venv() -> Path:
    """Return the virtual environment that runs this, and that pods run from."""
    return Path(sys.prefix)


def sources() -> list[Path]:
    """Return the folders of the packages that are installed to be edited."""
    files = sorted(Path(sysconfig.get_path("purelib")).glob("_editable_impl_*.pth"))
    return [Path(line) for file in files for line in _lines(file)]


def mounted_folders() -> list[Path]:
    """Return what containers see of the host: programs, interpreter, packages, sources."""
    wanted = [Path("/usr"), Path(sys.base_prefix).resolve(), venv(), *sources()]
    folders = sorted({path.absolute() for path in wanted if path.is_dir()})
    return [path for path in folders if not any(path != other and path.is_relative_to(other) for other in folders)]


def _lines(file: Path) -> Iterator[str]:
    yield from (line.strip() for line in file.read_text().splitlines() if line.strip())


def _runtime_spec() -> dict[str, Any]:
    """Return the OCI spec that every container starts from: containerd's own, and the host's folders as mounts."""
    spec: dict[str, Any] = json.loads(run("ctr", "oci", "spec"))
    # Limits of its own would be lower than the host's, or ask for what the host may not give.
    spec["process"].pop("rlimits", None)
    spec["mounts"] += [
        {"destination": str(image.inside(path)), "type": "bind", "source": str(path), "options": _READ_ONLY}
        for path in mounted_folders()
    ]
    return spec


def _containerd(layout: Layout) -> str:
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
  sandbox_image = "fairlead.local/pause:dev"
  # Not every machine lets root lower this score (CAP_SYS_RESOURCE); runc would then fail each container.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    # Images of a few kilobytes are copied faster than overlaid, and this works on any file system.
    snapshotter = "native"
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


def _kubelet(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": ["pods"],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "clusterDomain": "cluster.local",
        # Nobody serves names here; a refused packet tells a client so at once.
        "clusterDNS": [NODE_IP],
        "resolvConf": str(layout.settings / "resolv.conf"),
        "podLogsDir": str(layout.logs / "pods"),
        "volumePluginDir": str(layout.run / "volume-plugins"),
        "serializeImagePulls": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "maxPods": 110,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "eventRecordQPS": 0,
        "healthzBindAddress": "127.0.0.1",
        "oomScoreAdj": 0,
    }


def _proxy(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": NODE_IP,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": str(layout.pki / "proxy.kubeconfig")},
        "nftables": {"minSyncPeriod": "100ms"},
        "conntrack": {"maxPerCore": 0},
        "oomScoreAdj": 0,
    }


def _write(path: Path, text: str) -> None:
    # kube-proxy ends when its settings are written again, even the same.
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
