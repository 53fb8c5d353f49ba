"""CustomResourceDefinitions: from the object to the kinds that it serves."""

from __future__ import annotations

from typing import Any

from support.kube.builtin import rooted
from support.kube.kinds import Kind
from support.kube.schema import has_rules
from support.kube.store import Object

DEFINITION = "customresourcedefinitions.apiextensions.k8s.io"


def kinds_of(definition: Object) -> list[Kind]:
    """Return a kind for each version that a CustomResourceDefinition serves."""
    spec = definition["spec"]
    names = spec["names"]
    schemas = {
        version["name"]: (version.get("schema") or {}).get("openAPIV3Schema") or {} for version in spec["versions"]
    }
    return [
        Kind(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
            status="status" in (version.get("subresources") or {}),
            generation=True,
            custom=True,
            ruled=has_rules(schemas[version["name"]]),
            schema=rooted(_with_full_rules(schemas[version["name"]])),
        )
        for version in spec["versions"]
        if version.get("served", True)
    ]


def _with_full_rules(schema: Any) -> Any:
    """Return a schema whose rules in CEL all have a message and a reason, as the real server gives them."""
    if isinstance(schema, list):
        return [_with_full_rules(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    full = {name: _with_full_rules(part) for name, part in schema.items()}
    for rule in full.get("x-kubernetes-validations", ()):
        rule.setdefault("message", f"failed rule: {rule.get('rule')}")
        rule.setdefault("reason", "FieldValueInvalid")
    return full


def established(definition: Object, now: str) -> Object:
    """Return the status of a definition that is served."""
    names: dict[str, Any] = {"listKind": f"{definition['spec']['names']['kind']}List"} | definition["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    stored = [version["name"] for version in definition["spec"]["versions"] if version.get("storage")]
    return {"conditions": conditions, "acceptedNames": names, "storedVersions": stored}
