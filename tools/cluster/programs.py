"""The host processes of a cluster: how each starts, and when it is ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import containerd
import controlplane
import istio
import kserve
import metrics
import names
import node
from build import Built
from errors import ClusterError
from layout import Layout
from processes import Processes

_END_S = 2
"""How long a program that is started again may take to end: some wait for clients that stay."""


@dataclass(frozen=True, slots=True)
class Program:
    """One host process."""

    start: Callable[[], None]
    """Starts it unless it runs, without waiting."""
    wait: Callable[[], None]
    """Returns once it does its work."""


def programs(layout: Layout, built: Built, processes: Processes) -> Mapping[str, Program]:
    """Return the programs that a cluster is made of, by name; each needs none of those after it."""
    whole, plain = (layout, built, processes), (layout, processes)
    ready = partial(controlplane.wait_api_server, *plain)
    found = {
        "etcd": Program(partial(controlplane.start_store, *whole), ready),
        "kube-apiserver": Program(partial(controlplane.start_api_server, *whole), ready),
        "containerd": Program(partial(containerd.start, *plain), partial(containerd.wait, *plain)),
        "kube-controller-manager": Program(
            partial(controlplane.start_controller_manager, *whole), partial(controlplane.wait_controllers, processes)
        ),
        "kube-scheduler": Program(
            partial(controlplane.start_scheduler, *whole), partial(controlplane.wait_controllers, processes)
        ),
        "kubelet": Program(partial(node.start_kubelet, *whole), partial(node.wait_kubelet, processes)),
        "kube-proxy": Program(partial(node.start_proxy, *whole), partial(node.wait_proxy, processes)),
        "coredns": Program(partial(names.start, *whole), partial(names.wait, processes)),
        "istiod": Program(partial(istio.start, *whole), partial(istio.wait, processes)),
        "kserve-manager": Program(partial(kserve.start, *whole), partial(kserve.wait, processes)),
    }
    if layout.packaged:
        found["metrics-server"] = Program(partial(metrics.start, *whole), partial(metrics.wait, *plain))
    return found


def restart(layout: Layout, built: Built, chosen: list[str]) -> None:
    """End programs, start them again, and return once they do their work; nothing else is touched.

    Raises:
        ClusterError: There is no such program, or one did not start.
    """
    processes = Processes(layout)
    every = programs(layout, built, processes)
    if unknown := [name for name in chosen if name not in every]:
        raise ClusterError(f"{', '.join(unknown)}: no such program; there are {', '.join(every)}")
    processes.stop(chosen, timeout_s=_END_S)
    for name in (one for one in every if one in chosen):
        every[name].start()
        every[name].wait()
