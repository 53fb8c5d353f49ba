"""Brings a cluster up, step by step: each starts what is missing, and waits for what the next ones need."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager

import containerd
import istio
import kserve
import metrics
import network
import pki
from build import Built
from kubectl import Kubectl
from layout import NODE, Layout
from pod_images import Images
from processes import Processes
from programs import programs


class Steps:
    """Prints what was done, and how long it took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a step."""
        start = time.monotonic()
        yield
        now = time.monotonic()
        print(f"cluster: {name:<32} {now - start:5.1f} s   (after {now - self._start:.1f} s)", flush=True)


def start(layout: Layout, built: Built, images: Images) -> None:
    """Start what is missing of a cluster, inside its network namespace.

    Raises:
        ClusterError: A program did not start, or an image was not taken.
    """
    processes, kubectl, step = Processes(layout), Kubectl(layout, built), Steps()
    program = programs(layout, built, processes)
    network.prepare()
    with step("certificates"):
        pki.make(layout, dt.datetime.now(dt.UTC))
    with step("etcd, kube-apiserver, containerd"):
        for name in ("etcd", "kube-apiserver", "containerd"):
            program[name].start()
        program["containerd"].wait()
        imported = containerd.Import(layout, images.archives)
        program["kube-apiserver"].wait()
    with step("custom resources"):
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns"):
            program[name].start()
        kubectl.apply(kserve.namespace(), kserve.settings(), *istio.namespaces())
        _apply_custom_resources(layout, built, kubectl)
    with step("KServe's controller and istiod"):
        for name in ("istiod", "kserve-manager"):
            program[name].start()
        program["kserve-manager"].wait()
        kserve.apply_webhooks(layout, built, kubectl)
        program["istiod"].wait()
        kubectl.apply(istio.webhook(layout))
    if layout.packaged:
        with step("metrics server"):
            program["metrics-server"].start()
            program["metrics-server"].wait()
            kubectl.apply(*metrics.manifests(layout))
            kubectl.wait("Available", f"apiservice/{metrics.API_SERVICE}")
    with step("node"):
        program["kube-controller-manager"].wait()
        program["coredns"].wait()
        kubectl.wait("Ready", f"node/{NODE}")
    with step("images"):
        imported.finish()
    with step("gateway"):
        kubectl.apply(istio.gateway(), *istio.gateway_pods(images.envoy))
        kubectl("rollout", "status", "--timeout=60s", "--namespace", istio.INGRESS, "deployment/istio-ingressgateway")


def _apply_custom_resources(layout: Layout, built: Built, kubectl: Kubectl) -> None:
    """Apply the custom resources, once for each version of them: there are hundreds of kilobytes."""
    files = [*kserve.crd_files(built), built.manifests("istio") / "crd.yaml"]
    applied, wanted = layout.run / "custom-resources", "\n".join(map(str, files))
    if not applied.exists() or applied.read_text() != wanted:
        kubectl.apply_files(files)
        crds = [f"crd/{kind}.serving.kserve.io" for kind in kserve.CRDS]
        kubectl.wait("Established", *crds, "crd/gateways.networking.istio.io")
        applied.write_text(wanted)
