"""The operator's role, and what calls need of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from support.kube import Record

ROLE = Path(__file__).parents[2] / "operator/rbac/role.yaml"

Grant = tuple[str, str, str]
"""API group, resource with its subresource, verb."""

AGENTS = ("fairlead-operator", "kopf", "python", "aiohttp")


def granted(kind: str) -> set[Grant]:
    """Return what the ClusterRole, or the Role, allows."""
    documents: Iterator[Any] = yaml.safe_load_all(ROLE.read_text())
    rules = next(one["rules"] for one in documents if one["kind"] == kind)
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def needed(records: Iterable[Record]) -> set[Grant]:
    """Return what these calls need; discovery is everybody's."""
    found = set()
    for record in records:
        call = record.call
        if not call.is_resource:
            continue
        resource = f"{call.plural}/{call.subresource}" if call.subresource else call.plural
        verbs = {"apply": ["patch"]}.get(call.verb, [call.verb])
        if call.verb == "apply" and record.before is None:
            verbs = ["patch", "create"]
        found |= {(call.group, resource, verb) for verb in verbs}
    return found
