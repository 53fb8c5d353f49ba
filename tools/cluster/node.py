"""The node: kubelet and kube-proxy, and the cgroup of its pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import probes
import yaml
from build import Built
from host import hierarchies, write
from layout import DNS_IP, NODE, NODE_IP, POD_CIDR, Layout
from processes import Processes

_WEIGHTS = {"cpu.shares": "20480", "cpu.weight": "2000"}
"""Twenty times that of a process, with version 1 and 2."""
_CONTROLLERS = ("cpu", "cpuset", "hugetlb", "memory", "pids")
_KUBELET_HEALTH = "127.0.0.1:10248"
_PROXY_HEALTH = "127.0.0.1:10256"


def start_kubelet(layout: Layout, built: Built, processes: Processes) -> None:
    """Start the kubelet, with all its pods in a cgroup of the cluster's own."""
    make_cgroups(layout)
    write(layout.settings / "resolv.conf", f"nameserver {NODE_IP}\noptions attempts:1 timeout:1\n")
    write(layout.settings / "kubelet.yaml", yaml.safe_dump(_kubelet(layout)))
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
    write(layout.settings / "proxy.yaml", yaml.safe_dump(_proxy(layout)))
    processes.start("kube-proxy", [built.program("kube-proxy"), f"--config={layout.settings / 'proxy.yaml'}"])


def wait_kubelet(processes: Processes) -> None:
    """Wait until the kubelet is healthy."""
    processes.wait("kubelet", lambda: probes.answers(f"http://{_KUBELET_HEALTH}/healthz"))


def wait_proxy(processes: Processes) -> None:
    """Wait until kube-proxy has written the rules of the Services."""
    processes.wait("kube-proxy", lambda: probes.answers(f"http://{_PROXY_HEALTH}/healthz"))


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
        "clusterDNS": [DNS_IP],
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
        "healthzBindAddress": _PROXY_HEALTH,
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": str(layout.pki / "proxy.kubeconfig")},
        "nftables": {"minSyncPeriod": "100ms"},
        "conntrack": {"maxPerCore": 0},
        "oomScoreAdj": 0,
    }
