"""Reading objects of a cluster as plain data: what many checks ask of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Resource = Mapping[str, Any]


def key(resource: Resource) -> str:
    """Return ``namespace/name``."""
    metadata = resource["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


def labels(resource: Resource) -> Mapping[str, str]:
    """Return the labels."""
    found: Mapping[str, str] = resource["metadata"].get("labels") or {}
    return found


def condition(resource: Resource, kind: str) -> Resource | None:
    """Return a condition by its type."""
    return next((one for one in resource.get("status", {}).get("conditions") or () if one.get("type") == kind), None)


def holds(resource: Resource, kind: str) -> bool:
    """Return whether a condition is True."""
    found = condition(resource, kind)
    return found is not None and found.get("status") == "True"


def selected(resources: Iterable[Resource], selector: Mapping[str, str]) -> list[Resource]:
    """Return the objects that have all labels of ``selector``; none for an empty one."""
    return [one for one in resources if selector and selector.items() <= labels(one).items()]


def images(pod_spec: Resource) -> list[str]:
    """Return the images of a pod's containers."""
    return [one["image"] for one in (*(pod_spec.get("containers") or ()), *(pod_spec.get("initContainers") or ()))]


def tag(image: str) -> str:
    """Return the tag of an image; empty if it has none."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def release(text: str) -> tuple[int, int, int] | None:
    """Return the first three-part (or two-part) number in a text such as ``v1.34.4-eks``; None if it has none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))


def quoted(names: Iterable[str], most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    given = list(names)
    more = f" and {len(given) - most} more" if given[most:] else ""
    return ", ".join(given[:most]) + more
