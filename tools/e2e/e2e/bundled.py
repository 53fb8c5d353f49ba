"""The test cluster of this checkout (``tools/cluster``) with the released images."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from e2e.clusters import Component
from e2e.errors import E2eError, Unavailable
from e2e.programs import ROOT, Programs
from support.cluster import Cluster as Facts
from support.cluster import read, wait_for

IMAGES = {"operator", "server", "ledger", "flights", "gateway", "redis", "postgres"}
_TOOL = ROOT / "tools/cluster"
_PROGRAM = {Component.ISTIOD: "istiod", Component.KSERVE: "kserve-manager", Component.KUBELET: "kubelet"}
_CLONE_NEWNET = 0x40000000
_OWN_NETWORK = Path("/proc/thread-self/ns/net")
_POD_USER = 1000
_LOG_BYTES = 2_000_000


class Bundled:
    """A cluster in a network namespace of this machine."""

    name = "bundled"

    def __init__(self, state: Path) -> None:
        """Make it known; nothing is started.

        Args:
            state: Absolute folder of its state; the cluster's name on this machine follows from it.
        """
        self._state = state
        self._run = Programs()
        self._id = f"fairlead-{hashlib.sha256(str(state).encode()).hexdigest()[:6]}"

    @property
    def facts(self) -> Facts:
        """See ``Cluster``."""
        return read(self._facts_file)

    @property
    def helm(self) -> Path:
        """See ``Cluster``."""
        return self.facts.programs["helm"]

    def check(self) -> None:
        """See ``Cluster``."""
        if os.geteuid() != 0:
            raise Unavailable("the bundled cluster needs root: it makes a network namespace, mounts and containers")
        missing = IMAGES - json.loads(self._run(sys.executable, ROOT / "tools/images", "list", "--json")).keys()
        if missing:
            raise Unavailable(f"images not built: {', '.join(sorted(missing))}; `make images` builds them")

    def up(self) -> str:
        """See ``Cluster``; the cluster imports the released images by itself."""
        self._tool("up", "--packaged")
        found: dict[str, Any] = json.loads(self._facts_file.read_text())
        if not found.get("packaged"):
            raise E2eError(f"{self._state}: a cluster of the host's folders; take it down, or give another --state")
        return f"{self._id}, no host folder in any container, {len(found.get('images', {}))} images"

    def is_up(self) -> bool:
        """See ``Cluster``."""
        return self._facts_file.exists() and self._network.exists()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """See ``Cluster``; a thread of its own network namespace, and whatever it starts."""
        with _OWN_NETWORK.open("rb") as outside:
            _enter(self._network)
            try:
                yield
            finally:
                _set_network(outside.fileno())

    def tag(self, image: str, also: str) -> None:
        """See ``Cluster``."""
        ctr = ["ctr", "--address", f"/run/{self._id}/containerd.sock", "--namespace", "k8s.io"]
        self._run(*ctr, "images", "tag", "--force", image, also)

    def restart(self, component: Component) -> None:
        """See ``Cluster``."""
        self._tool("restart", _PROGRAM[component])

    def make_volume(self, namespace: str, claim: str) -> None:
        """See ``Cluster``: a folder of the state; what an earlier run left is removed."""
        if self._phase_of_volume(claim) == "Bound":
            return
        folder = self._state / "volumes" / claim
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": claim},
            "spec": {
                "capacity": {"storage": "2Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": claim},
                "hostPath": {"path": str(folder), "type": "Directory"},
            },
        }
        self.facts.delete(volume)
        wait_for(lambda: not self._phase_of_volume(claim), otherwise=lambda: f"the volume {claim} does not go")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.chown(folder, _POD_USER, _POD_USER)
        self.facts.apply(volume)

    @contextmanager
    def reached(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """See ``Cluster``: its addresses are meant in here."""
        address = self.facts.get("service", service, namespace=namespace)["spec"]["clusterIP"]
        yield f"http://{address}:{port}"

    def gateway_statistics(self, pattern: str) -> str:
        """See ``Cluster``."""
        address = f"{self.facts.gateway.admin}/stats?filter={pattern}"
        return httpx.get(address, trust_env=False, timeout=10).raise_for_status().text

    def collect(self, folder: Path) -> None:
        """See ``Cluster``; of each log its end."""
        for log in (self._state / "log").glob("*.log"):
            with log.open("rb") as source:
                source.seek(max(0, log.stat().st_size - _LOG_BYTES))
                (folder / log.name).write_bytes(source.read())

    def down(self) -> None:
        """See ``Cluster``."""
        self._tool("down")

    def leftovers(self) -> list[str]:
        """See ``Cluster``."""
        places = [self._network, Path("/run", self._id)]
        places += [group for group in Path("/sys/fs/cgroup").glob(f"**/{self._id}") if group.is_dir()]
        left = [str(place) for place in places if place.exists()]
        marks = (f"/run/{self._id}/", f"{self._state}/")
        left += [
            f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines() if _has(line, marks)
        ]
        return left + [f"process {words}" for words in _commands() if _has(words, marks) and str(_TOOL) not in words]

    @property
    def _facts_file(self) -> Path:
        return self._state / "cluster.json"

    @property
    def _network(self) -> Path:
        return Path("/run/netns", self._id)

    def _phase_of_volume(self, name: str) -> str:
        """Return the phase of a volume; empty if there is none."""
        volumes = self.facts.get("persistentvolumes")["items"]
        return next((str(one["status"]["phase"]) for one in volumes if one["metadata"]["name"] == name), "")

    def _tool(self, *words: str) -> str:
        return self._run(sys.executable, _TOOL, f"--state={self._state}", *words, timeout_s=1800)


def _has(text: str, marks: tuple[str, ...]) -> bool:
    return any(mark in text for mark in marks)


def _commands() -> Iterator[str]:
    """Yield the command lines of this machine's other processes."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _enter(network: Path) -> None:
    if not network.exists():
        raise E2eError(f"{network}: the cluster is not up")
    with network.open("rb") as namespace:
        _set_network(namespace.fileno())


def _set_network(descriptor: int) -> None:
    """Move this thread to a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise E2eError(f"cannot change the network namespace: {os.strerror(ctypes.get_errno())}")
