"""What the steps of a run share: the cluster, where the flights are in it, and how to ask them."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from e2e.clusters import Cluster
from e2e.errors import E2eError
from e2e.helm import Helm
from e2e.programs import Programs
from e2e.story import Teller
from fairlead_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT, NAMESPACE
from support.cluster import Cluster as Facts
from support.cluster import wait_for
from support.cluster_api import ClusterApi
from support.cluster_deployed import Deployed

SYSTEM = "fairlead-system"
"""Namespace of the operator."""
FLIGHTS = "flights"
NAMESPACES = (SYSTEM, FLIGHTS)
"""What a run makes."""
OWNER_LABEL, OWNER = "app.kubernetes.io/created-by", "fairlead-e2e"
"""Label of what a run made; nothing else is ever changed or removed."""
CONTROL, TREATMENT = "logistic", "boosted"
DEPLOYMENT = "arrival-delay"
UNITS = tuple(f"unit-{number}" for number in range(5000))
FLIGHT: Mapping[str, Any] = {
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "carrier": "UA",
    "hour": 5,
    "weekday": 4,
    "distance": 1400.0,
}
"""What is asked about where it does not matter."""
VERSION = metadata.version("fairlead-operator")
"""Of what is tried: charts, images, server release."""

_TELL_S = 1.0
_GRAVEST = ("VariantsReady", "FeaturesReady", "RoutingReady", "Servable", "Ready", "ExperimentHealthy")
_SAID = 160
_READY_S = 180.0


@dataclass(frozen=True, slots=True)
class Ground:
    """A namespace of the cluster, as ``support`` has it."""

    cluster: Facts
    api: ClusterApi
    namespace: str

    def host(self, name: str) -> str:
        """Return the host of a deployment, as its status tells it."""
        return host_of(Deployed(self, name))


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that steps are given."""

    cluster: Cluster
    folder: Path
    """Where the run may write."""
    teller: Teller
    run: Programs
    """Starts programs as a user of the cluster does: with its kubeconfig and kubectl."""
    notes: Notes

    @property
    def facts(self) -> Facts:
        """Addresses and kubectl."""
        return self.cluster.facts

    @property
    def helm(self) -> Helm:
        """Helm, for the operator's namespace."""
        return Helm(self.cluster.helm, SYSTEM, self.run)

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """Run kubectl and return its output."""
        return self.facts.kubectl(*words, given=given)

    def fairlead(self, *words: str, given: str | None = None, timeout_s: float = 60) -> str:
        """Run the command line and return its output."""
        return self.run(Path(sys.executable).with_name("fairlead"), *words, given=given, timeout_s=timeout_s)

    @contextmanager
    def api(self) -> Iterator[ClusterApi]:
        """Open a client of the API server, for this thread."""
        with ClusterApi(self.facts.kubeconfig) as api:
            yield api

    @contextmanager
    def deployed(self, name: str = DEPLOYMENT) -> Iterator[Deployed]:
        """Find a deployment of the flights' namespace."""
        with self.api() as api:
            yield Deployed(Ground(self.facts, api, FLIGHTS), name)

    def wait(self, step: str, what: Callable[[], str], done: Callable[[], bool], timeout_s: float = _READY_S) -> float:
        """Wait until something is ``done``, telling ``what`` is so far; return the seconds that it took.

        Raises:
            TimeoutError: It was not in time; the message is ``what``.
        """
        begun_s = time.monotonic()
        told_s = begun_s

        def look() -> bool:
            nonlocal told_s
            if time.monotonic() - told_s > _TELL_S:
                told_s = time.monotonic()
                with suppress(AssertionError, httpx.HTTPError):
                    self.teller.waits(step, what())
            return done()

        wait_for(look, timeout_s=timeout_s, otherwise=what)
        return time.monotonic() - begun_s

    @contextmanager
    def telling(self, step: str, what: Callable[[], str]) -> Iterator[None]:
        """Tell from time to time ``what`` is so far, in a thread of its own, while it is entered."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(_TELL_S):
                with suppress(AssertionError, httpx.HTTPError):
                    self.teller.waits(step, what())

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def make_namespace(self, name: str, more: Mapping[str, str] | None = None) -> None:
        """Make a namespace that admits only restricted pods, with ``more`` labels.

        Raises:
            E2eError: There is one of that name that no run made.
        """
        labels = {"pod-security.kubernetes.io/enforce": "restricted", OWNER_LABEL: OWNER, **(more or {})}
        with self.api() as api:
            found = api.find(NAMESPACE, None, name)
            if found is not None and not is_ours(found):
                raise E2eError(f"namespace {name} is there, and no run of this made it; nothing was changed")
            api.apply(
                NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            )
        self.wait(
            name, lambda: f"service account of {name}", lambda: bool(self.facts.get("sa", namespace=name)["items"])
        )


class Notes:
    """What later steps need to know of earlier ones; kept in a file, so that a run can go on where another ended."""

    def __init__(self, path: Path) -> None:
        """Read what is kept in ``path``."""
        self._path = path
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Any:
        """Return what was noted.

        Raises:
            E2eError: Nothing was.
        """
        found = self._read()
        if name not in found:
            raise E2eError(f"{name} is not known: an earlier step notes it; start with that")
        return found[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Note something that JSON can hold."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps({**self._read(), name: value}, indent=2) + "\n")

    def clear(self) -> None:
        """Forget everything."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return found


def is_ours(found: Mapping[str, Any]) -> bool:
    """Return whether a run made an object."""
    return (found["metadata"].get("labels") or {}).get(OWNER_LABEL) == OWNER


def host_of(deployed: Deployed) -> str:
    """Return the host that clients of a deployment name."""
    return str(urlsplit(deployed.status()["url"]["rest"]).hostname)


def said(deployed: Deployed) -> str:
    """Return in a line what a deployment says is not yet as it should be."""
    found = deployed.api.find(MODEL_DEPLOYMENT, deployed.namespace, deployed.name)
    conditions = (found or {}).get("status", {}).get("conditions", [])
    told = {one["type"]: one for one in conditions if one["status"] != "True"}
    gravest = next((told[kind] for kind in _GRAVEST if kind in told), None)
    if gravest is None:
        return f"{deployed.name} says that it is ready" if conditions else f"{deployed.name} has said nothing yet"
    return f"{gravest['type']} {gravest['reason']}: {gravest['message']}"[:_SAID]
