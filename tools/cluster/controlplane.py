"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

import ssl

import probes
from build import Built
from layout import API_URL, NODE_IP, POD_CIDR, SERVICE_CIDR, Layout
from processes import Processes

CONTROLLER_MANAGER = "https://127.0.0.1:10257/healthz"
SCHEDULER = "https://127.0.0.1:10259/healthz"


def start_store(layout: Layout, built: Built, processes: Processes) -> None:
    """Start etcd; it need not be ready before the API server starts."""
    pki, url, peer_url = layout.pki, "https://127.0.0.1:2379", "http://127.0.0.1:2380"
    processes.start(
        "etcd",
        [
            built.program("etcd"),
            "--name=default",
            f"--data-dir={layout.data / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            f"--cert-file={pki / 'etcd.crt'}",
            f"--key-file={pki / 'etcd.key'}",
            f"--trusted-ca-file={pki / 'ca.crt'}",
            "--client-cert-auth",
            "--log-level=warn",
        ],
    )


def start_api_server(layout: Layout, built: Built, processes: Processes) -> None:
    """Start the API server with its default admission, pod security included."""
    pki = layout.pki
    processes.start(
        "kube-apiserver",
        [
            built.program("kube-apiserver"),
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={NODE_IP}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--etcd-servers=https://127.0.0.1:2379",
            f"--etcd-cafile={pki / 'ca.crt'}",
            f"--etcd-certfile={pki / 'apiserver-etcd.crt'}",
            f"--etcd-keyfile={pki / 'apiserver-etcd.key'}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            "--enable-aggregator-routing=true",
        ],
    )


def start_controller_manager(layout: Layout, built: Built, processes: Processes) -> None:
    """Start the controller manager."""
    pki = layout.pki
    processes.start(
        "kube-controller-manager",
        [
            built.program("kube-controller-manager"),
            f"--kubeconfig={pki / 'controller-manager.kubeconfig'}",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={pki / 'service-accounts.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
            "--leader-elect=false",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--cluster-cidr={POD_CIDR}",
            # Of a metrics server there are figures every ten seconds; without one an autoscaler asks in vain.
            "--horizontal-pod-autoscaler-sync-period=5s",
        ],
    )


def start_scheduler(layout: Layout, built: Built, processes: Processes) -> None:
    """Start the scheduler."""
    processes.start(
        "kube-scheduler",
        [
            built.program("kube-scheduler"),
            f"--kubeconfig={layout.pki / 'scheduler.kubeconfig'}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
    )


def wait_api_server(layout: Layout, processes: Processes) -> None:
    """Wait until the API server says that it is ready."""
    context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
    processes.wait("kube-apiserver", lambda: probes.answers(f"{API_URL}/readyz", context))


def wait_controllers(processes: Processes) -> None:
    """Wait until controller manager and scheduler are healthy."""
    unchecked = ssl._create_unverified_context()  # noqa: SLF001, S323  # they sign their own, on the loopback
    processes.wait("kube-controller-manager", lambda: probes.answers(CONTROLLER_MANAGER, unchecked))
    processes.wait("kube-scheduler", lambda: probes.answers(SCHEDULER, unchecked))
