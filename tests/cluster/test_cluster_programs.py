"""The test cluster's own programs: names are answered, and programs start again without a pod noticing."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.cluster import Cluster

TOOL = Path(__file__).parents[2] / "tools/cluster"
ADDRESS, IN = 1, 1
"""Type and class of what is asked for (RFC 1035)."""
KNOWN, NO_SUCH_NAME = 0, 3


def test_names_of_services_are_answered_and_others_refused_at_once(cluster: Cluster) -> None:
    gateway, _ = cluster.gateway.address.split(":")
    assert _asked(cluster, f"istio-ingressgateway.{cluster.gateway.namespace}.svc.cluster.local") == (KNOWN, gateway)
    assert _asked(cluster, "nothing.default.svc.cluster.local") == (NO_SUCH_NAME, "")
    assert _asked(cluster, "example.org") == (NO_SUCH_NAME, "")


def test_programs_start_again_and_leave_pods_alone(cluster: Cluster) -> None:
    before = _gateway_pods(cluster)
    command = [sys.executable, str(TOOL), "--state", str(cluster.logs.parent), "restart", "kubelet", "containerd"]
    subprocess.run([*command, "coredns"], check=True, capture_output=True, timeout=90)
    assert _gateway_pods(cluster) == before
    assert _asked(cluster, "kubernetes.default.svc.cluster.local")[0] == KNOWN


def test_a_program_that_is_not_there_is_named(cluster: Cluster) -> None:
    command = [sys.executable, str(TOOL), "--state", str(cluster.logs.parent), "restart", "nothing"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert "nothing: no such program; there are etcd, kube-apiserver" in done.stderr


def _gateway_pods(cluster: Cluster) -> Mapping[str, tuple[int, str]]:
    """Return restarts and address of the gateway's pods by uid."""
    pods = cluster.get("pods", namespace=cluster.gateway.namespace)["items"]
    assert pods
    return {
        pod["metadata"]["uid"]: (pod["status"]["containerStatuses"][0]["restartCount"], pod["status"]["podIP"])
        for pod in pods
    }


def _asked(cluster: Cluster, name: str) -> tuple[int, str]:
    """Ask for the address of a name; return the answer's code, and the address if there is one."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", ADDRESS, IN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(30)
        asking.sendto(query, (cluster.dns, 53))
        answer = asking.recv(512)
    code = answer[3] & 0x0F
    return code, socket.inet_ntoa(answer[-4:]) if code == KNOWN else ""
