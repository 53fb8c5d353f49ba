"""A cluster of kind's, where Docker and kind are there: images built by Docker, KServe and Istio from their own charts.

Not run by CI: needs Docker. What is tested is which commands are run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.clusters import Component
from e2e.errors import E2eError, Unavailable
from e2e.programs import Programs
from e2e.scene import VERSION
from support.cluster import Cluster as Facts
from support.cluster import Gateway

NAME = "fairlead-e2e"
NODE_IMAGE = "kindest/node:v1.34.0"
ISTIO, KSERVE, CERT_MANAGER = "1.30.3", "v0.20.0", "v1.19.1"
IMAGES = ("operator", "server", "ledger", "flights", "redis", "postgres")
_NODE = f"{NAME}-control-plane"
_INGRESS = "istio-ingress"
_GATEWAY = "istio-ingressgateway"
METRICS_SERVER = "3.13.0"
"""Version of its chart."""
_METRICS_CHARTS = "https://kubernetes-sigs.github.io/metrics-server/"
_ISTIO_CHARTS = "oci://gcr.io/istio-release/charts"
_PROGRAMS = ("docker", "kind", "kubectl", "helm")

Command = tuple[str, ...]


class Kind:
    """A cluster of its own in Docker."""

    name = "kind"

    def __init__(self, state: Path) -> None:
        """Make it known; nothing is started.

        Args:
            state: Absolute folder for its kubeconfig, and the mark of a cluster that a run made.
        """
        self._state = state
        self._run = Programs({"KUBECONFIG": str(self._kubeconfig)})

    @property
    def facts(self) -> Facts:
        """See ``Cluster``."""
        node = self._run("docker", "inspect", "--format={{.NetworkSettings.Networks.kind.IPAddress}}", _NODE).strip()
        service = json.loads(self._run("kubectl", "get", "service", _GATEWAY, f"-n={_INGRESS}", "--output=json"))
        port = next(one["nodePort"] for one in service["spec"]["ports"] if one["port"] == 80)  # noqa: PLR2004 -- HTTP
        gateway = Gateway(f"{node}:{port}", "", f"{_INGRESS}/public", _INGRESS, {"istio": "ingressgateway"})
        programs = {name: Path(shutil.which(name) or name) for name in ("kubectl", "helm")}
        return Facts(
            self._kubeconfig, node, gateway, "", self._state / "log", programs, dns="", packaged=True, images={}
        )

    @property
    def helm(self) -> Path:
        """See ``Cluster``."""
        return self.facts.programs["helm"]

    def check(self) -> None:
        """See ``Cluster``."""
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing:
            raise Unavailable(f"a cluster of kind's needs {', '.join(missing)} on the PATH; or use the bundled one")
        self._run("docker", "info")

    def up(self) -> str:
        """See ``Cluster``; the images are those that Docker has built."""
        if not self.is_up():
            if NAME in self._run("kind", "get", "clusters").split():
                raise E2eError(
                    f"a cluster {NAME} is there that no run of this made; `kind delete cluster --name {NAME}`"
                )
            self._state.mkdir(parents=True, exist_ok=True)
            self._mark.touch()
            self._run(*create(self._kubeconfig), timeout_s=900)
        for command in installs():
            self._run(*command, timeout_s=900)
        self._run("kubectl", "apply", "--server-side", "--filename=-", given=json.dumps(public_gateway()))
        self._run(*load(), timeout_s=900)
        return f"{NAME} of {NODE_IMAGE}, Istio {ISTIO}, KServe {KSERVE}"

    def is_up(self) -> bool:
        """See ``Cluster``."""
        return self._mark.exists() and NAME in self._run("kind", "get", "clusters").split()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """See ``Cluster``: its addresses are this machine's."""
        yield

    def tag(self, image: str, also: str) -> None:
        """See ``Cluster``."""
        self._run("docker", "exec", _NODE, "ctr", "--namespace=k8s.io", "images", "tag", "--force", image, also)

    def restart(self, component: Component) -> None:
        """See ``Cluster``."""
        for command in restarts(component):
            self._run(*command)

    def make_volume(self, namespace: str, claim: str) -> None:
        """See ``Cluster``: kind's own storage class makes it."""

    @contextmanager
    def reached(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """See ``Cluster``, through kubectl."""
        words = ("kubectl", "port-forward", f"--namespace={namespace}", f"service/{service}", f":{port}")
        forwarding = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            first = forwarding.stdout.readline() if forwarding.stdout else ""
            local = re.search(r"127\.0\.0\.1:(\d+)", first)
            if local is None:
                raise E2eError(f"{' '.join(words)} does not say where it listens: {first}")
            yield f"http://127.0.0.1:{local[1]}"
        finally:
            forwarding.terminate()
            forwarding.wait()

    def gateway_statistics(self, pattern: str) -> str:
        """See ``Cluster``."""
        words = ("pilot-agent", "request", "GET", f"stats?filter={pattern}")
        return self._run("kubectl", "exec", f"-n={_INGRESS}", f"deployment/{_GATEWAY}", "--", *words)

    def collect(self, folder: Path) -> None:
        """See ``Cluster``."""
        self._run("kind", "export", "logs", str(folder / "kind"), f"--name={NAME}")

    def down(self) -> None:
        """See ``Cluster``; a cluster that no run made is left alone."""
        if self._mark.exists():
            self._run("kind", "delete", "cluster", f"--name={NAME}", f"--kubeconfig={self._kubeconfig}")
            self._mark.unlink()

    def leftovers(self) -> list[str]:
        """See ``Cluster``."""
        return self._run("docker", "ps", "--all", "--quiet", f"--filter=name=^{_NODE}$").split()

    @property
    def _kubeconfig(self) -> Path:
        return self._state / "kind.kubeconfig"

    @property
    def _mark(self) -> Path:
        return self._state / "kind.made"


def create(kubeconfig: Path) -> Command:
    """Return the command that makes the cluster."""
    where = (f"--name={NAME}", f"--image={NODE_IMAGE}", f"--kubeconfig={kubeconfig}")
    return ("kind", "create", "cluster", *where, "--wait=180s")


def load() -> Command:
    """Return the command that hands the images to the node; ``make images ENGINE=docker`` builds them."""
    return ("kind", "load", "docker-image", *(f"fairlead.local/{name}:{VERSION}" for name in IMAGES), f"--name={NAME}")


def installs() -> Sequence[Command]:
    """Return the commands that install what Fairlead stands on, each waiting until it works."""
    kserve = {
        "kserve.controller.deploymentMode": "Standard",
        "kserve.controller.gateway.disableIstioVirtualHost": True,
        "kserve.controller.gateway.disableIngressCreation": True,
    }
    # The certificates of kind's kubelets are signed by nobody.
    insecure = {"args": ["--kubelet-insecure-tls"]}
    gateway = {"service.type": "NodePort", "labels.istio": "ingressgateway"}
    return (
        (
            *_chart("metrics-server", "kube-system", "metrics-server", METRICS_SERVER, insecure),
            f"--repo={_METRICS_CHARTS}",
        ),
        _chart("cert-manager", "cert-manager", "oci://quay.io/jetstack/charts/cert-manager", CERT_MANAGER, CRDS),
        _chart("istio-base", "istio-system", f"{_ISTIO_CHARTS}/base", ISTIO, {}),
        _chart("istiod", "istio-system", f"{_ISTIO_CHARTS}/istiod", ISTIO, {}),
        _chart(_GATEWAY, _INGRESS, f"{_ISTIO_CHARTS}/gateway", ISTIO, gateway),
        _chart("kserve-crd", "kserve", "oci://ghcr.io/kserve/charts/kserve-crd", KSERVE, {}),
        _chart("kserve", "kserve", "oci://ghcr.io/kserve/charts/kserve-resources", KSERVE, kserve),
        ("kubectl", "label", "namespace", _INGRESS, "pod-security.kubernetes.io/enforce=restricted", "--overwrite"),
    )


CRDS = {"crds.enabled": True}


def restarts(component: Component) -> Sequence[Command]:
    """Return the commands that restart a component and wait for it."""
    if component is Component.KUBELET:
        wait = ("kubectl", "wait", "--for=condition=Ready", "--timeout=120s", f"node/{_NODE}")
        return (("docker", "exec", _NODE, "systemctl", "restart", "kubelet"), wait)
    name, namespace = {
        Component.ISTIOD: ("istiod", "istio-system"),
        Component.KSERVE: ("kserve-controller-manager", "kserve"),
    }[component]
    where = (f"deployment/{name}", f"--namespace={namespace}")
    return (("kubectl", "rollout", "restart", *where), ("kubectl", "rollout", "status", *where, "--timeout=180s"))


def public_gateway() -> dict[str, Any]:
    """Return the Gateway that ModelDeployments name."""
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "public", "namespace": _INGRESS},
        "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]},
    }


def _chart(release: str, namespace: str, chart: str, version: str, values: Mapping[str, Any]) -> Command:
    given = tuple(f"--set-json={name}={json.dumps(value)}" for name, value in values.items())
    where = (release, chart, f"--version={version}", f"--namespace={namespace}", "--create-namespace")
    return ("helm", "upgrade", "--install", *where, *given, "--wait", "--timeout=300s")
