"""The two clusters that a run can be on, behind one interface."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from support.cluster import Cluster as Facts


class Component(StrEnum):
    """What a run restarts."""

    ISTIOD = "istiod"
    KSERVE = "KServe's controller"
    KUBELET = "kubelet"


class Cluster(Protocol):
    """A cluster with KServe, Istio and a gateway, of the run's own."""

    @property
    def name(self) -> str:
        """``bundled`` or ``kind``."""
        ...

    @property
    def facts(self) -> Facts:
        """Addresses and kubectl; once it is up."""
        ...

    @property
    def helm(self) -> Path:
        """Helm's program; once it is up."""
        ...

    def check(self) -> None:
        """Raise ``Unavailable`` if it cannot be had on this machine."""
        ...

    def up(self) -> str:
        """Bring it up, or what is missing of it, with the released images; say what it is."""
        ...

    def is_up(self) -> bool:
        """Whether it is there."""
        ...

    def inside(self) -> AbstractContextManager[None]:
        """Be where its addresses are meant, with all threads and programs that are started meanwhile."""
        ...

    def tag(self, image: str, also: str) -> None:
        """Give an image another name."""
        ...

    def restart(self, component: Component) -> None:
        """End a component and start it again; return once it works."""
        ...

    def make_volume(self, namespace: str, claim: str) -> None:
        """Have a volume for a claim, where no storage class of the cluster makes one."""
        ...

    def reached(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """Return the URL at which a Service is reached from here, as long as the block lasts."""
        ...

    def gateway_statistics(self, pattern: str) -> str:
        """Return Envoy's counters whose names match, a line each: ``name: value``."""
        ...

    def collect(self, folder: Path) -> None:
        """Put the logs of its components into a folder."""
        ...

    def down(self) -> None:
        """Take it down."""
        ...

    def leftovers(self) -> list[str]:
        """Return what is left of it on this machine after ``down``."""
        ...
