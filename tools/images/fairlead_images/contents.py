"""What is in an image, megabyte by megabyte, and what was left out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_images.inside import Inside
from fairlead_images.sbom import normalized

_OWN = ("fairlead", "fairlead-server", "fairlead-server-native", "fairlead-operator", "fairlead-flights")
_SITE = "opt/fairlead/lib/python3.11/site-packages/"
_CODE = "Fairlead's own code"
_PLACES = (
    ("opt/fairlead/", "virtual environment"),
    ("srv/flights/data/", "the features of the example"),
    ("srv/flights/models/", "the models of the example"),
    ("usr/local/bin/envoy", "envoy"),
    ("usr/bin/redis-", "redis"),
    ("usr/lib/python3.11/", "Debian: Python and its standard library, compiled"),
    ("usr/bin/python3.11", "Debian: Python and its standard library, compiled"),
    ("usr/share/zoneinfo/", "Debian: time zones"),
    ("etc/ssl/", "Debian: certificate authorities"),
    ("usr/share/ca-certificates/", "Debian: certificate authorities"),
    ("usr/lib/", "Debian: C libraries"),
)
_REST = "Debian: other files"


@dataclass(frozen=True, slots=True)
class Part:
    """Something in an image."""

    name: str
    size_bytes: int


def parts(inside: Inside) -> list[Part]:
    """Return what an image is made of, the largest first."""
    owner = {path: normalized(package.name) for package in inside.python for path in package.files}
    sums: dict[str, int] = {}
    for path, size_bytes in inside.sizes.items():
        name = _part(path, owner)
        sums[name] = sums.get(name, 0) + size_bytes
    return sorted((Part(name, size) for name, size in sums.items()), key=lambda part: (-part.size_bytes, part.name))


def described(inside: Inside) -> dict[str, Any]:
    """Return what goes into ``contents.json``."""
    return {
        "bytes": sum(inside.sizes.values()),
        "compressedBytes": sum(inside.layers),
        "layers": list(inside.layers),
        "user": inside.configuration.get("User"),
        "entrypoint": inside.configuration.get("Entrypoint"),
        "parts": [{"name": part.name, "bytes": part.size_bytes} for part in parts(inside)],
        "leftOut": [dict(one) for one in inside.left_out],
    }


def left_out_requirements(file: Path, image: str) -> list[Mapping[str, Any]]:
    """Return the requirements that an image does without, with ``name`` and ``why``."""
    return [rule for rule in tomllib.loads(file.read_text())["requirements"] if image in rule["images"]]


def _part(path: str, owner: Mapping[str, str]) -> str:
    source = path
    if "/__pycache__/" in path:
        folder, _, name = path.rpartition("/__pycache__/")
        source = f"{folder}/{name.partition('.')[0]}.py"
    if source in owner:
        name = owner[source]
        return _CODE if name in _OWN else name
    if path.startswith(_SITE) and ".dist-info/" in path:
        return normalized(path.removeprefix(_SITE).partition("-")[0])
    return next((name for start, name in _PLACES if path.startswith(start)), _REST)


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as a table of Markdown; the first is its head."""
    first, *others = rows
    return [f"| {' | '.join(row)} |" for row in (first, tuple("---" for _ in first), *others)]
