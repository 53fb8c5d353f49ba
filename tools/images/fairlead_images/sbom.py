"""The bill of materials of an image: CycloneDX 1.5 as JSON, from what is in its layers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fairlead_images.inside import DebianPackage, Inside, PythonPackage

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")
_DEBIAN = "debian-12"


def bill(name: str, version: str, inside: Inside, pinned: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return an image's bill of materials; the same for the same content.

    Args:
        name: Of the image.
        version: Of the image.
        inside: What is in it.
        pinned: The SHA-256 of each file that may have been installed, by ``name==version``.
    """
    components = [
        *(_python(package, pinned) for package in inside.python),
        *(_debian(package) for package in inside.debian),
    ]
    references = " ".join(component["bom-ref"] for component in components)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{name}:{version} {references}')}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": f"image:{name}", "name": name, "version": version}},
        "components": components,
        "dependencies": [{"ref": f"image:{name}", "dependsOn": [one["bom-ref"] for one in components]}],
    }


def pins(files: Iterable[Path]) -> dict[str, list[str]]:
    """Return the hashes in files of pinned requirements, by ``name==version``, the name as package indexes write it."""
    found: dict[str, list[str]] = {}
    current = ""
    for file in files:
        for line in file.read_text().splitlines():
            if pinned := _PINNED.match(line):
                current = f"{normalized(pinned[1])}=={pinned[2]}"
                found.setdefault(current, [])
            if current:
                found[current] += [digest for digest in _HASH.findall(line) if digest not in found[current]]
    return found


def normalized(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _python(package: PythonPackage, pinned: Mapping[str, list[str]]) -> dict[str, Any]:
    name = normalized(package.name)
    address = f"pkg:pypi/{name}@{package.version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": address,
        "name": name,
        "version": package.version,
        "purl": address,
    }
    if package.license:
        component["licenses"] = [_license(package.license)]
    # Of the files that the pin allows; which of them was taken, its platform decides.
    hashes = pinned.get(f"{name}=={package.version}", [])
    if hashes:
        component["externalReferences"] = [
            {"type": "distribution", "url": address, "hashes": [{"alg": "SHA-256", "content": one} for one in hashes]}
        ]
    return component


def _license(text: str) -> dict[str, Any]:
    return {"license": {"name": text}}


def _debian(package: DebianPackage) -> dict[str, Any]:
    where = f"arch={package.architecture}&distro={_DEBIAN}"
    address = f"pkg:deb/debian/{package.name}@{package.version.replace(':', '%3A').replace('+', '%2B')}?{where}"
    return {
        "type": "library",
        "bom-ref": address,
        "name": package.name,
        "version": package.version,
        "purl": address,
        "properties": [{"name": "debian:source", "value": package.source}],
    }
