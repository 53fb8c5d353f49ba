"""Who keeps a ModelDeployment's spec: a person, or a tool that carries what Git says into the cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_GITOPS: Final = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "fleetagent": "Fleet",
}
"""Field managers that write again what others have changed."""

_MARKS: Final = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
"""Labels and annotations of such tools."""

_BY_HAND: Final = {
    "kubectl": "kubectl apply",
    "kubectl-client-side-apply": "kubectl apply",
    "helm": "Helm",
}
"""Field managers that write again when somebody has them do it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes a spec from a file that is kept elsewhere."""

    tool: str
    manager: str
    """As managedFields, or the mark, name it."""
    writes_again: bool
    """Whether it does so by itself: what others change is soon undone."""


def owner_of(resource: Mapping[str, Any]) -> Owner | None:
    """Return the tool that owns the spec of ``resource``; None if no tool that is known does."""
    metadata = resource.get("metadata") or {}
    managers = list(_managers_of_spec(metadata))
    for manager in managers:
        if manager in _GITOPS:
            return Owner(_GITOPS[manager], manager, writes_again=True)
    for mark in {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}:
        if mark in _MARKS:
            return Owner(_MARKS[mark], mark, writes_again=True)
    for manager in managers:
        if manager in _BY_HAND:
            return Owner(_BY_HAND[manager], manager, writes_again=False)
    return None


def _managers_of_spec(metadata: Mapping[str, Any]) -> Iterator[str]:
    for entry in metadata.get("managedFields") or ():
        if not entry.get("subresource") and "f:spec" in (entry.get("fieldsV1") or {}):
            yield str(entry.get("manager"))
