"""The real cluster that tests in ``tests/cluster`` run in (``make test-cluster``): its addresses, and kubectl.

The tests themselves run inside its network namespace, so its addresses are theirs.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Manifest = Mapping[str, Any]

_POLL_S = 0.1
_TIMEOUT_S = 60.0


class KubectlError(AssertionError):
    """kubectl failed; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The Istio gateway of the cluster: real pods of Envoy, programmed by the real istiod."""

    address: str
    """``host:port`` for REST (HTTP/1.1) and gRPC (HTTP/2), without TLS."""
    admin: str
    """URL of Envoy's admin interface."""
    name: str
    """``namespace/name`` of the Gateway, as VirtualServices list it."""
    namespace: str
    """Where its pods are, and so where an EnvoyFilter for it goes."""
    selector: Mapping[str, str]
    """Labels of its pods."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    kubeconfig: Path
    """Of its administrator."""
    node_ip: str
    """Address that pods reach, too: what tests start for pods listens here."""
    gateway: Gateway
    istiod: str
    """URL of istiod's own routes, such as ``/debug/syncz``."""
    logs: Path
    """Folder of one log per program."""
    programs: Mapping[str, Path]
    """``kubectl``, ``helm`` and ``versitygw``."""
    dns: str
    """Address that answers names of Services, port 53."""
    packaged: bool
    """Whether its images are the released ones; only then there is a metrics server."""
    images: Mapping[str, str]
    """Names of the released images by component."""

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl and return its output.

        Raises:
            KubectlError: It failed.
        """
        command = [str(self.programs["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S * 2)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest) -> None:
        """Apply manifests, with strict validation."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        arguments = ["--server-side", "--force-conflicts", "--validate=strict", "--filename=-"]
        self.kubectl("apply", *arguments, given=json.dumps(listed))

    def delete(self, *manifests: Manifest) -> None:
        """Delete what manifests name, if it is there, without waiting for the end of it."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("delete", "--ignore-not-found", "--wait=false", "--filename=-", given=json.dumps(listed))

    def get(self, kind: str, name: str = "", *, namespace: str = "", selector: str = "") -> dict[str, Any]:
        """Return an object, or the list of all of a kind."""
        where = [f"--namespace={namespace}"] if namespace else []
        which = [name] if name else [f"--selector={selector}"] if selector else []
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, *which, *where, "--output=json"))
        return found

    def wait_ready(self, kind: str, name: str, *, namespace: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Wait for the condition ``Ready``.

        Raises:
            TimeoutError: It did not come; the message tells of the namespace's pods and events.
        """

        def ready() -> bool:
            conditions = self.get(kind, name, namespace=namespace).get("status", {}).get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        wait_for(ready, timeout_s=timeout_s, otherwise=lambda: self.story(namespace))

    def story(self, namespace: str) -> str:
        """Return what happened in a namespace: its pods, warnings, and the ends of its pods' logs."""
        pods = self.kubectl("get", "pods", f"--namespace={namespace}", "--output=wide")
        events = self.kubectl("events", f"--namespace={namespace}", "--types=Warning")
        names = [pod["metadata"]["name"] for pod in self.get("pods", namespace=namespace)["items"]]
        return "\n".join([pods, events, *(self._log(name, namespace) for name in names)])

    def _log(self, pod: str, namespace: str) -> str:
        try:
            return self.kubectl("logs", pod, f"--namespace={namespace}", "--all-containers", "--prefix", "--tail=20")
        except KubectlError as error:
            return str(error)


def read(facts: Path) -> Cluster:
    """Return the cluster that ``make cluster-up`` described in a file."""
    found = json.loads(facts.read_text())
    return Cluster(
        kubeconfig=Path(found["kubeconfig"]),
        node_ip=found["node_ip"],
        gateway=Gateway(**found["gateway"]),
        istiod=found["istiod"],
        logs=Path(found["logs"]),
        programs={name: Path(path) for name, path in found["programs"].items()},
        dns=found["dns"],
        packaged=found["packaged"],
        images=found["images"],
    )


def wait_for(
    condition: Callable[[], bool], *, timeout_s: float = _TIMEOUT_S, otherwise: Callable[[], str] = lambda: ""
) -> None:
    """Return once ``condition`` holds.

    Raises:
        TimeoutError: It did not in time; the message is what ``otherwise`` returns.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s\n{otherwise()}")
        time.sleep(_POLL_S)
