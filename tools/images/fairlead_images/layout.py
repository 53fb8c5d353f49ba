"""Where images are kept, and the keys of their content.

``${XDG_CACHE_HOME:-~/.cache}/fairlead/images/`` has

- ``<name>-<key>/``: ``image.tar`` (an OCI archive), ``sbom.cdx.json``, ``contents.json``; whole or not there at all,
- ``wheels/``, ``debian/``: what was downloaded,
- ``storage/``: buildah's own layers, so that a change of our code rebuilds the last layer alone.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead_images.errors import ImageError
from fairlead_images.recipes import BASE, BUILDER, RECIPES, Recipe, version

_FORMAT = "1"
"""Changes with the layout of an entry, and with how images are built in ways that no file says which is hashed."""
_KEY_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """The checkout and the cache."""

    root: Path
    """The checkout."""
    cache: Path

    @property
    def storage(self) -> Path:
        """Where buildah keeps layers."""
        return self.cache / "storage"

    @property
    def wheels(self) -> Path:
        """Where wheels are kept."""
        return self.cache / "wheels"

    @property
    def debian(self) -> Path:
        """Where Debian packages and apt's state are kept."""
        return self.cache / "debian"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image in the cache."""

    folder: Path

    @property
    def archive(self) -> Path:
        """The OCI archive."""
        return self.folder / "image.tar"

    @property
    def sbom(self) -> Path:
        """The bill of materials, CycloneDX as JSON."""
        return self.folder / "sbom.cdx.json"

    @property
    def contents(self) -> Path:
        """What is in the image, by part."""
        return self.folder / "contents.json"

    @property
    def built(self) -> bool:
        """Whether it is in the cache."""
        return self.archive.is_file()


def layout(root: Path, environment: Mapping[str, str]) -> Layout:
    """Return where things are for the checkout ``root``."""
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Layout(root, cache / "fairlead/images")


def architecture() -> str:
    """Return the machine's architecture as images name it.

    Raises:
        ImageError: It is one that no image is made for.
    """
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    if platform.machine() not in known:
        raise ImageError(f"no image is made for {platform.machine()}; build on one of {', '.join(known)}")
    return known[platform.machine()]


def key(recipe: Recipe, root: Path) -> str:
    """Return the key of an image's content: of all that it is made from."""
    digest = hashlib.sha256(f"{_FORMAT}\0{architecture()}\0{version(root)}\0{recipe.packages}".encode())
    for path in sorted(files(recipe, root)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_mode & 0o111}\0{content}\n".encode())
    if not recipe.packages:
        digest.update("".join(key(RECIPES[parent], root) for parent in (BASE, BUILDER)).encode())
    return digest.hexdigest()[:_KEY_DIGITS]


def entry(recipe: Recipe, at: Layout) -> Entry:
    """Return the cache's entry of an image, built or not."""
    return Entry(at.cache / f"{recipe.name}-{key(recipe, at.root)}")


def missing(recipe: Recipe, root: Path) -> list[str]:
    """Return the inputs that are not there."""
    return [name for name in recipe.sources if not any(root.glob(name))]


def check_inputs(recipe: Recipe, root: Path) -> None:
    """Check that everything is there that an image is made from.

    Raises:
        ImageError: Something is not.
    """
    absent = missing(recipe, root)
    if absent:
        hint = f"; `{recipe.made_by}` makes it" if recipe.made_by else ""
        raise ImageError(f"{recipe.name}: {absent[0]}: no such file{hint}")


def files(recipe: Recipe, root: Path) -> Iterator[Path]:
    """Return every file that an image is made from."""
    for path in (found for name in recipe.sources for found in root.glob(name)):
        if path.is_dir():
            yield from (one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
        else:
            yield path
