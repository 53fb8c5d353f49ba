"""Can the API server be reached, and is it of a version that serves what we need?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.objects import release
from fairlead_operator.doctor.reader import Reader

OLDEST = (1, 30)
"""The CRD's rules use ``optionalOldSelf``, which is on since then."""
TRIED = (1, 35)
"""What Fairlead's tests run against."""


@dataclass(frozen=True, slots=True)
class ApiServerFacts:
    """What ``/version`` says."""

    version: str
    problem: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server."""

    area: str = "Kubernetes API"

    async def gather(self, reader: Reader, scope: Scope) -> ApiServerFacts:
        """Ask for the version."""
        del scope
        found = await reader.version()
        return ApiServerFacts(str((found.resource or {}).get("gitVersion", "")), found.problem, reader.address)

    def judge(self, facts: ApiServerFacts) -> Iterator[Finding]:
        """Compare it with what is needed."""
        if facts.problem:
            yield bad(
                "server", facts.problem, "kubectl cluster-info; set KUBECONFIG, or give --kubeconfig and --context"
            )
            return
        version = release(facts.version)
        if version is None:
            yield doubt("server", f"answers, and tells no version ({facts.version!r})", "kubectl version")
        elif version[:2] < OLDEST:
            needed = ".".join(map(str, OLDEST))
            yield bad("version", f"{facts.version}; Fairlead needs {needed} or newer", "upgrade the cluster")
        else:
            newer = f", newer than what is tested ({TRIED[0]}.{TRIED[1]})" if version[:2] > TRIED else ""
            where = f" at {facts.address}" if facts.address else ""
            yield good("version", f"{facts.version}{where}{newer}")
