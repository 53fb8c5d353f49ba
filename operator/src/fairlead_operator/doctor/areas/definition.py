"""Is ModelDeployment known to the cluster, and as this release knows it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_operator.api.crd import definition
from fairlead_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.kinds import DEFINITION
from fairlead_operator.doctor.objects import holds
from fairlead_operator.doctor.reader import Found, Reader

NAME = f"{PLURAL}.{GROUP}"
_INSTALL = "helm upgrade --install fairlead-crds charts/fairlead-crds -n fairlead-system --create-namespace"


@dataclass(frozen=True, slots=True)
class DefinitionFacts:
    """The CRD as it is, and as this release has it."""

    live: Found
    ours: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """The CustomResourceDefinition of ModelDeployment."""

    area: str = "ModelDeployment (CRD)"

    async def gather(self, reader: Reader, scope: Scope) -> DefinitionFacts:
        """Read it."""
        del scope
        return DefinitionFacts(await reader.one(DEFINITION, "", NAME), definition())

    def judge(self, facts: DefinitionFacts) -> Iterator[Finding]:
        """Compare the two."""
        if facts.live.problem:
            yield doubt(NAME, facts.live.problem, f"kubectl get crd {NAME}")
            return
        if facts.live.resource is None:
            yield bad(NAME, "is not installed", _INSTALL)
            return
        live = facts.live.resource
        if not holds(live, "Established"):
            yield bad(NAME, "is there, but not established", f"kubectl describe crd {NAME}")
        versions = {one["name"]: one for one in live["spec"]["versions"]}
        served = [name for name, one in versions.items() if one.get("served")]
        if VERSION not in served:
            yield bad("version", f"serves {', '.join(served) or 'none'}; this release needs {VERSION}", _INSTALL)
            return
        yield good("version", f"{VERSION} is served")
        [ours] = [one for one in facts.ours["spec"]["versions"] if one["name"] == VERSION]
        place = first_difference(ours["schema"], versions[VERSION]["schema"])
        if place is None:
            yield good("schema", "is this release's")
        else:
            said = f"differs from this release's at {place}: fields or rules of another release are in force"
            yield doubt("schema", said, _INSTALL)


def first_difference(wanted: Any, live: Any, path: str = "") -> str | None:
    """Return where two documents differ first; None if they are the same."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for name in sorted({*wanted, *live}):
            if name not in wanted or name not in live:
                return f"{path}.{name}".lstrip(".")
            place = first_difference(wanted[name], live[name], f"{path}.{name}")
            if place is not None:
                return place
        return None
    if isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        places = (first_difference(a, b, f"{path}[{n}]") for n, (a, b) in enumerate(zip(wanted, live, strict=True)))
        return next((place for place in places if place is not None), None)
    return None if wanted == live else path.lstrip(".") or "its root"
