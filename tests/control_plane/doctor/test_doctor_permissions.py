"""What the doctor asks about is what the operator's roles, and the chart's, give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from fairlead_operator.doctor.areas.permissions import is_needed_at_gateway, needed, roles
from fairlead_operator.doctor.reader import Access
from support.rbac import granted

CHART_RULES = Path(__file__).parents[3] / "charts/fairlead/files/rules.yaml"
OPTIONAL = "feast.dev"


def triples(accesses: Iterable[Access]) -> set[tuple[str, str, str]]:
    return {(access.group, access.resource, access.verb) for access in accesses}


def of_rules(rules: Iterable[Mapping[str, Any]]) -> set[tuple[str, str, str]]:
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def test_every_permission_of_the_roles_is_asked_about_but_for_what_may_be_missing() -> None:
    for kind in ("ClusterRole", "Role"):
        assert triples(needed(roles()[kind])) == {one for one in granted(kind) if one[0] != OPTIONAL}


def test_in_namespaced_mode_what_is_asked_about_is_what_the_chart_gives_in_each_namespace() -> None:
    chart = yaml.safe_load(CHART_RULES.read_text())
    everything = needed(roles()["ClusterRole"], ("flights", "shop"))
    wide = {access for access in everything if not access.namespace}
    assert triples(wide) == of_rules(chart["clusterWide"])
    for namespace in ("flights", "shop"):
        there = triples(access for access in everything if access.namespace == namespace)
        assert there == {one for one in of_rules(chart["namespaced"]) if one[0] != OPTIONAL}
    beside = [access for access in needed(roles()["ClusterRole"], ("istio-ingress",)) if is_needed_at_gateway(access)]
    assert triples(beside) == {one for one in of_rules(chart["gateway"]) if one[0] != OPTIONAL}
