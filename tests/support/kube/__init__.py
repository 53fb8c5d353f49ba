"""A Kubernetes API server in memory, and the rest of a cluster around it, for tests."""

from support.kube.builtin import feast_kinds, istio_kinds, kserve_kinds
from support.kube.calls import Call, Record
from support.kube.cluster import Cluster
from support.kube.errors import ApiError
from support.kube.faults import (
    CutLine,
    Delay,
    Drop,
    End,
    FallSilent,
    Faults,
    Hang,
    LoseAnswer,
    Refuse,
    WatchError,
    calls,
)
from support.kube.halt import Halt
from support.kube.kinds import Kind
from support.kube.logs import ContainerLog, PodLogs
from support.kube.server import KubeApiServer

__all__ = [
    "ApiError",
    "Call",
    "Cluster",
    "ContainerLog",
    "CutLine",
    "Delay",
    "Drop",
    "End",
    "FallSilent",
    "Faults",
    "Halt",
    "Hang",
    "Kind",
    "KubeApiServer",
    "LoseAnswer",
    "PodLogs",
    "Record",
    "Refuse",
    "WatchError",
    "calls",
    "feast_kinds",
    "istio_kinds",
    "kserve_kinds",
]
