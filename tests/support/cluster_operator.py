"""The real operator as a process of its own, ``python -m fairlead_operator run``, against the test cluster.

It serves one namespace with a Lease of its own there, so that several test modules may run theirs beside each other.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.cluster import Cluster, wait_for
from support.servers import free_port

CRD = Path(__file__).parents[2] / "operator/crds/serving.fairlead.dev_modeldeployments.yaml"
CRD_NAME = "modeldeployments.serving.fairlead.dev"
IMAGE = "fairlead.local/server:dev"
_START_S, _STOP_S = 60.0, 20.0


class ClusterOperator:
    """An operator that can be started, stopped, killed, frozen and started again; one log for all its lives."""

    def __init__(
        self, cluster: Cluster, namespace: str, folder: Path, *, name: str = "operator-0", flags: Sequence[str] = ()
    ) -> None:
        """Make an operator; it is not started yet.

        Args:
            cluster: Where.
            namespace: Whose ModelDeployments it serves; its Lease is there, too.
            folder: For its log.
            name: Its pod's name: operators of one namespace have different ones.
            flags: More flags, such as ``--unavailable-grace-s=2``; they win.
        """
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start it, and return once it is ready if ``wait``."""
        own = ["--namespaces", self.namespace, "--own-namespace", self.namespace, "--pod-name", self.name]
        lease = ["--lease-name=operator", "--lease-duration-s=3", "--lease-renew-deadline-s=2", "--lease-retry-s=0.3"]
        http = ["--http-host=127.0.0.1", f"--http-port={self.port}", "--log-format=text"]
        command = [sys.executable, "-m", "fairlead_operator", "run", *own, *lease, *http, *self._flags]
        environment = os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        if wait:
            self.wait_leading()

    def stop(self) -> int:
        """End it as a kubelet does; return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, wherever it is."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop its process from running."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def wait_leading(self, timeout_s: float = _START_S) -> None:
        """Return once it holds the Lease."""
        wait_for(lambda: self.metric("fairlead_leader") == 1, timeout_s=timeout_s, otherwise=self.story)

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and text of ``/livez``, ``/readyz`` or ``/metrics``; 0 while nobody answers."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=5)
        except httpx.HTTPError:
            assert self.is_running, self.story()
            return 0, ""
        return answer.status_code, answer.text

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; 0 if there are none."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        lines = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", self.ask("/metrics")[1], re.MULTILINE)
        return sum(float(value) for given, value in lines if wanted <= set(given.split(",")))

    def story(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:])

    def errors(self) -> list[str]:
        """Return what it logged as errors in all its lives."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if re.match(r"\S+ (ERROR|CRITICAL) ", line)]

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self.is_running:
            self._process.send_signal(number)
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code


def install(cluster: Cluster) -> None:
    """Apply the CRD of ModelDeployment, and return once it is served."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRD}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{CRD_NAME}")


def installed(cluster: Cluster) -> bool:
    """Return whether an operator was installed by its chart: it serves all namespaces."""
    found = cluster.get("deployments", namespace="fairlead-system")["items"]
    return any(one["metadata"]["name"] == "fairlead-operator" for one in found)


@contextmanager
def operator_of(
    cluster: Cluster, namespace: str, folder: Path, *, name: str = "operator-0", flags: Sequence[str] = ()
) -> Iterator[ClusterOperator]:
    """Run an operator, and end it by its process id afterwards; see ``ClusterOperator``."""
    operator = ClusterOperator(cluster, namespace, folder, name=name, flags=flags)
    try:
        operator.start()
        yield operator
    finally:
        operator.kill() if operator.is_running and _is_stopped(operator.pid) else operator.stop()


def _is_stopped(pid: int) -> bool:
    """Return whether a process was frozen; it would not hear that it is to end."""
    state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    return state == "T"
