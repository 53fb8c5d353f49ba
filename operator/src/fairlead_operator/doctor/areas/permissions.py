"""May the operator do what it has to, and may the one who asks use the commands?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from fairlead_operator.api.v1alpha1 import GROUP
from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.installation import installation
from fairlead_operator.doctor.objects import quoted
from fairlead_operator.doctor.reader import Access, Reader

_OPTIONAL_GROUPS = frozenset({"feast.dev"})
"""What somebody may do without, if the kinds are not installed."""
_COMMANDS = (
    ("get", GROUP, "modeldeployments"),
    ("list", GROUP, "modeldeployments"),
    ("patch", GROUP, "modeldeployments"),
    ("get", "", "configmaps"),
    ("list", "", "pods"),
)
"""What status, pause, resume, promote, abort and this command need."""


@dataclass(frozen=True, slots=True)
class PermissionFacts:
    """What is allowed; None where the API does not say."""

    account: str | None
    """The operator's, ``namespace:name``; None if it is not known."""
    operator: Mapping[Access, bool | None] = field(default_factory=dict)
    user: Mapping[Access, bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Permissions:
    """RBAC."""

    area: str = "permissions"

    async def gather(self, reader: Reader, scope: Scope) -> PermissionFacts:
        """Ask the API about each rule of the operator's roles, and about the commands."""
        installed = await installation(reader, scope)
        served = [one for one in installed.setting("namespaces").split(",") if one]
        gateway = installed.setting("gateway_namespace")
        rules = roles()
        wanted = [*needed(rules["ClusterRole"], tuple(served)), *needed(rules["Role"], (installed.namespace,))]
        if served and gateway not in served:
            wanted += [access for access in needed(rules["ClusterRole"], (gateway,)) if is_needed_at_gateway(access)]
        if installed.setting("gateway_log") != "false":
            wanted.append(Access("get", "", "pods/log", gateway))
        theirs = [Access(*one, scope.namespace or "") for one in _COMMANDS]
        return PermissionFacts(
            installed.account,
            await _asked(reader, wanted, installed.account) if installed.account else {},
            await _asked(reader, theirs, None),
        )

    def judge(self, facts: PermissionFacts) -> Iterator[Finding]:
        """Name what is missing."""
        yield _operator(facts)
        denied = sorted(access for access, allowed in facts.user.items() if allowed is False)
        if denied:
            fix = "ask for the cluster's role edit (or view) in the namespace; kubectl auth can-i --list"
            yield doubt("you", f"may not {quoted(map(str, denied))}", fix)
        elif None in facts.user.values():
            yield doubt("you", "the API does not say what you may do", "kubectl auth can-i --list")
        else:
            yield good("you", f"may do what the commands need ({len(facts.user)} permissions)")


def _operator(facts: PermissionFacts) -> Finding:
    if facts.account is None:
        said = "not known: it has no Deployment here, so its account cannot be asked about"
        return doubt("operator", said, "kubectl auth can-i --list --as=system:serviceaccount:NAMESPACE:NAME")
    name = facts.account.replace(":", "/")
    denied = sorted(access for access, allowed in facts.operator.items() if allowed is False)
    if denied:
        fix = "helm upgrade fairlead charts/fairlead (it has the roles), or kubectl apply -f operator/rbac/"
        return bad("operator", f"{name} may not {quoted(map(str, denied))}", fix)
    if None in facts.operator.values():
        return doubt("operator", f"you may not ask what {name} may do", "run it as an administrator")
    return good("operator", f"{name} may do all it has to ({len(facts.operator)} permissions)")


async def _asked(reader: Reader, wanted: list[Access], account: str | None) -> dict[Access, bool | None]:
    answers = await asyncio.gather(*(reader.may(access, account) for access in wanted))
    return dict(zip(wanted, answers, strict=True))


def needed(rules: list[Mapping[str, Any]], namespaces: tuple[str, ...] = ()) -> list[Access]:
    """Return every permission of ``rules``, in each of the namespaces; everywhere if there are none."""
    places = namespaces or ("",)
    return [
        Access(verb, group, resource, "" if resource in _CLUSTER_WIDE else place)
        for rule in rules
        for group in rule["apiGroups"]
        if group not in _OPTIONAL_GROUPS
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for place in (places if resource not in _CLUSTER_WIDE else ("",))
    ]


_CLUSTER_WIDE = frozenset({"clusterstoragecontainers", "namespaces"})
_WRITTEN_AT_GATEWAY = frozenset({"envoyfilters", "authorizationpolicies"})


def is_needed_at_gateway(access: Access) -> bool:
    """Return whether a permission is needed where the gateway's pods are and no ModelDeployment is served."""
    if access.resource in _CLUSTER_WIDE or access.group == GROUP or access.resource in {"secrets", "events"}:
        return False
    return access.resource in _WRITTEN_AT_GATEWAY or access.verb in {"get", "list", "watch"}


def roles() -> dict[str, list[Mapping[str, Any]]]:
    """Return the rules of the operator's ClusterRole and Role, by kind."""
    packaged = files("fairlead_operator") / "rbac" / "role.yaml"
    checkout = Path(__file__).parents[4] / "rbac" / "role.yaml"
    text = packaged.read_text(encoding="utf-8") if packaged.is_file() else checkout.read_text(encoding="utf-8")
    return {document["kind"]: document["rules"] for document in yaml.safe_load_all(text)}
