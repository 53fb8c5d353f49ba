"""Which resource a REST path names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Resource(StrEnum):
    """What REST serves."""

    V1_MODELS = "v1-models"
    V1_MODEL = "v1-model"
    V1_PREDICT = "v1-predict"
    V1_EXPLAIN = "v1-explain"
    SERVER = "server"
    ALIVE = "alive"
    """KServe's liveness at ``/``."""
    LIVE = "live"
    READY = "ready"
    MODELS = "models"
    MODEL = "model"
    MODEL_READY = "model-ready"
    INFER = "infer"
    INDEX = "index"
    LOAD = "load"
    UNLOAD = "unload"
    METRICS = "metrics"
    STATISTICS = "statistics"

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that the resource answers."""
        return ("POST",) if self in _POSTED else ("GET", "HEAD")


_POSTED = frozenset(
    {
        Resource.V1_PREDICT,
        Resource.V1_EXPLAIN,
        Resource.INFER,
        Resource.INDEX,
        Resource.LOAD,
        Resource.UNLOAD,
    }
)
_FIXED = {
    ("",): Resource.ALIVE,
    ("metrics",): Resource.METRICS,
    ("v1", "models"): Resource.V1_MODELS,
    ("v2",): Resource.SERVER,
    ("v2", "health", "live"): Resource.LIVE,
    ("v2", "health", "ready"): Resource.READY,
    ("v2", "models"): Resource.MODELS,
    ("v2", "models", "stats"): Resource.STATISTICS,
    ("v2", "repository", "index"): Resource.INDEX,
}
_OF_MODEL = {
    (): Resource.MODEL,
    ("ready",): Resource.MODEL_READY,
    ("infer",): Resource.INFER,
    ("stats",): Resource.STATISTICS,
}
_CONTROLS = {"load": Resource.LOAD, "unload": Resource.UNLOAD}
_V1_VERBS = {"": Resource.V1_MODEL, "predict": Resource.V1_PREDICT, "explain": Resource.V1_EXPLAIN}


@dataclass(frozen=True, slots=True)
class Target:
    """A resource, and the model it is of."""

    resource: Resource
    model: str = ""
    version: str = ""
    """Empty for any."""


def resolve(path: str) -> Target | None:
    """Return what ``path`` (percent-decoded) names; None if nothing of ours."""
    parts = tuple(path.strip("/").split("/"))
    fixed = _FIXED.get(parts)
    if fixed is not None:
        return Target(fixed)
    match parts:
        case ("v1", "models", last):
            name, _, verb = last.partition(":")
            return Target(_V1_VERBS[verb], name) if verb in _V1_VERBS else None
        case ("v2", "models", name, "versions", version, *rest) if tuple(rest) in _OF_MODEL:
            return Target(_OF_MODEL[tuple(rest)], name, version)
        case ("v2", "models", name, *rest) if tuple(rest) in _OF_MODEL:
            return Target(_OF_MODEL[tuple(rest)], name)
        case ("v2", "repository", "models", name, verb) if verb in _CONTROLS:
            return Target(_CONTROLS[verb], name)
    return None
