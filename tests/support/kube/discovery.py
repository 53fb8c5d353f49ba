"""What is served, as clients ask for it: /api, /apis, and the resources of each group version."""

from __future__ import annotations

from typing import Any

from support.kube.kinds import Catalog, Kind

VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.4", "platform": "linux/amd64"}


def discovered(catalog: Catalog, path: str) -> dict[str, Any] | None:
    """Return the document at ``path``, or None if it is no place of discovery (or nothing is served there)."""
    match path.strip("/").split("/"):
        case ["version"]:
            return VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["api", version]:
            return _resources(catalog, "", version)
        case ["apis", *below]:
            return _groups(catalog, below)
    return None


def _groups(catalog: Catalog, below: list[str]) -> dict[str, Any] | None:
    names = [name for name in dict.fromkeys(kind.group for kind in catalog) if name]
    match below:
        case []:
            groups = [_group(catalog, name) for name in names]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case [name] if name in names:
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(catalog, name)
        case [group, version]:
            return _resources(catalog, group, version)
    return None


def _group(catalog: Catalog, name: str) -> dict[str, Any]:
    served = dict.fromkeys(kind.version for kind in catalog if kind.group == name)
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in served]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _resources(catalog: Catalog, group: str, version: str) -> dict[str, Any] | None:
    kinds = [kind for kind in catalog if (kind.group, kind.version) == (group, version)]
    if not kinds:
        return None
    resources = [resource for kind in kinds for resource in _resource(kind)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].api_version,
        "resources": resources,
    }


def _resource(kind: Kind) -> list[dict[str, Any]]:
    main: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    if not kind.status:
        return [main]
    status = {"name": f"{kind.plural}/status", "singularName": "", "namespaced": kind.namespaced, "kind": kind.kind}
    return [main, status | {"verbs": ["get", "patch", "update"]}]
