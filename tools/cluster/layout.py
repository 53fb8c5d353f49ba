"""Where a cluster lives: its folders, its network namespace, its addresses.

All addresses are the same in every cluster: each is alone in its network namespace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

NODE = "node1"
NODE_IP = "172.30.0.1"
"""Address of the node, of istiod, and of what tests start for pods to reach."""
SERVICE_CIDR = "10.96.0.0/24"
POD_CIDR = "10.97.0.0/24"
API_SERVICE_IP = "10.96.0.1"
DNS_IP = NODE_IP
"""Where names of Services are answered: the kubelet writes it into every pod."""
METRICS_PORT = 4443
GATEWAY_IP = "10.96.0.8"
"""ClusterIP of the gateway's Service."""
GATEWAY_PORT = 80
"""HTTP/1.1 and HTTP/2 without TLS, so REST and gRPC."""
GATEWAY_ADMIN_PORT = 15000
API_URL = "https://127.0.0.1:6443"
XDS_PORT = 15010
ISTIOD_URL = "http://127.0.0.1:18080"
"""istiod's own routes, such as ``/debug/syncz``."""
KSERVE_WEBHOOK_PORT = 9443
ISTIO_WEBHOOK_PORT = 15017


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one cluster."""

    state: Path
    """Absolute folder of certificates, settings, data and logs."""

    @property
    def id(self) -> str:
        """The cluster's name on this machine, from the path of its state."""
        return f"fairlead-{hashlib.sha256(str(self.state).encode()).hexdigest()[:6]}"

    @property
    def netns(self) -> Path:
        """The network namespace's file."""
        return Path("/run/netns") / self.id

    @property
    def run(self) -> Path:
        """Folder of pids, sockets and mounts: short for sockets, and not in a folder that a clean-up removes."""
        return Path("/run") / self.id

    @property
    def mark(self) -> Path:
        """File that is there as long as a packaged cluster is."""
        return self.run / "packaged"

    @property
    def packaged(self) -> bool:
        """Whether its containers are the released images, and get nothing from the host."""
        return self.mark.exists()

    @property
    def pids(self) -> Path:
        """Folder of process records."""
        return self.run / "pids"

    @property
    def pki(self) -> Path:
        """Folder of keys and certificates."""
        return self.state / "pki"

    @property
    def settings(self) -> Path:
        """Folder of written configuration files."""
        return self.state / "settings"

    @property
    def data(self) -> Path:
        """Folder of etcd's and containerd's data."""
        return self.state / "data"

    @property
    def logs(self) -> Path:
        """Folder of one log per program, and of the pods' logs."""
        return self.state / "log"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, usable inside the network namespace."""
        return self.state / "kubeconfig"

    @property
    def facts(self) -> Path:
        """What tests need to know, as JSON; there when the cluster is up."""
        return self.state / "cluster.json"

    @property
    def kubelet(self) -> Path:
        """The kubelet's folder: volumes are mounted below it."""
        return self.run / "kubelet"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd answers."""
        return self.run / "containerd.sock"

    @property
    def cgroup(self) -> str:
        """Name of the cgroup that all pods are in."""
        return self.id
