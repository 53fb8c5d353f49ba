"""Building what is not in the cache yet."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairlead_images import archive, contents, debian, inside, programs, sbom, wheels
from fairlead_images.buildah import Buildah
from fairlead_images.layout import Entry, Layout, check_inputs, entry, files, key
from fairlead_images.recipes import BASE, BUILDER, RECIPES, REGISTRY, VERSIONED, Recipe, reference, version

_WHEELS = "/wheels"
_TIMESTAMP_S = 315_532_800
"""1980-01-01: what a zip file, and so a wheel, can say."""
_MIB = 1 << 20
_LAYERS_BYTES = 12_000_000_000
_KEPT = 4
"""Archives of an image that stay in the cache."""
_NOTED_S = 1.0
"""A wait for somebody else's build that is worth a line."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that took a while."""

    image: str
    what: str
    seconds: float
    detail: str = ""


Tell = Callable[[Step], None]


def build(names: Sequence[str], at: Layout, tell: Tell, now: Callable[[], float] = time.monotonic) -> list[Entry]:
    """Build images, those first that they are made from; what is in the cache stays.

    Args:
        names: Which.
        at: Checkout and cache.
        tell: Told of each step.
        now: Seconds on some clock.

    Raises:
        ImageError: An image cannot be built; what was built before it stays.
    """
    present = [entry(RECIPES[name], at) for name in names]
    if all(one.built for one in present):
        return present
    for name in names:
        check_inputs(RECIPES[name], at.root)
    programs.require("apt-get", "dpkg-deb", "buildah", "unshare")
    at.cache.mkdir(parents=True, exist_ok=True)
    waited = now()
    with _locked(at.cache / "lock"), tempfile.TemporaryDirectory(prefix=".checkout-", dir=at.cache) as copy:
        _copy(at.root, Path(copy), names)
        if now() - waited > _NOTED_S:
            tell(Step("-", "another build", now() - waited))
        bench = Bench(replace(at, root=Path(copy)), tell, now)
        _make_room(at)
        made = [bench.build(RECIPES[name]) for name in names]
        _forget(at, made)
        return made


def _make_room(at: Layout) -> None:
    """Remove all layers when they have become too many; the next builds make what they need anew."""
    if sum(path.lstat().st_size for path in at.storage.rglob("*") if not path.is_symlink()) > _LAYERS_BYTES:
        shutil.rmtree(at.storage)


def _forget(at: Layout, made: Iterable[Entry]) -> None:
    """Remove all but the newest archives of the images that were asked for."""
    for name in {one.folder.name.rpartition("-")[0] for one in made} | {BUILDER}:
        found = sorted(at.cache.glob(f"{name}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in found[_KEPT:]:
            shutil.rmtree(folder)


def clean(at: Layout) -> None:
    """Remove everything from the cache, unless somebody builds: then after that."""
    if not at.cache.is_dir():
        return
    with _locked(at.cache / "lock"):
        for path in at.cache.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _copy(root: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy what images are made from, so that a key is that of the content whatever is edited meanwhile."""
    recipes = (RECIPES[name] for name in {BASE, BUILDER, *names})
    for path in {root / VERSIONED, *(path for recipe in recipes for path in files(recipe, root))}:
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where images are built, one after the other, from files that nobody changes."""

    at: Layout
    tell: Tell
    now: Callable[[], float]

    def build(self, recipe: Recipe) -> Entry:
        """Build an image and what it is made from, unless it is in the cache."""
        made = entry(recipe, self.at)
        layers = self.at.storage / "made" / made.folder.name
        if (made.built or not recipe.released) and (layers.exists() or not recipe.packages):
            return made
        if not recipe.packages:
            for parent in (BASE, BUILDER):
                self.build(RECIPES[parent])
        with _beside(made.folder) as folder:
            if recipe.packages:
                self._build_root(recipe)
            else:
                self._build_containerfile(recipe)
            if recipe.released:
                self._write(recipe, folder)
        if recipe.packages:
            layers.parent.mkdir(parents=True, exist_ok=True)
            layers.touch()
        return made

    def _build_root(self, recipe: Recipe) -> None:
        log = self._log(recipe)
        with tempfile.TemporaryDirectory(dir=self.at.cache) as scratch, self._step(recipe, "Debian packages"):
            wanted = debian.packages(self.at.root / "tools/images/debian.toml", recipe.packages)
            root = Path(scratch, "root")
            root.mkdir()
            is_base = recipe.name == BASE
            debian.make_root(wanted, root, self.at.debian, log, refresh=is_base, precompile=is_base)
            self._buildah(recipe).build(
                root,
                self.at.root / recipe.containerfile,
                self._tag(recipe),
                arguments={},
                labels=self._labels(),
                mounts={},
                timestamp_s=_TIMESTAMP_S,
            )

    def _build_containerfile(self, recipe: Recipe) -> None:
        log = self._log(recipe)
        with self._step(recipe, "wheels"):
            self.at.wheels.mkdir(parents=True, exist_ok=True)
            for file in recipe.requirements:
                wheels.download(self.at.root / file, self.at.wheels, log)
        with self._step(recipe, "buildah"):
            self._buildah(recipe).build(
                self.at.root,
                self.at.root / recipe.containerfile,
                self._tag(recipe),
                arguments={
                    "BASE": self._tag(RECIPES[BASE]),
                    "BUILD": self._tag(RECIPES[BUILDER]),
                    "PIP_OPTIONS": f"--no-index --find-links={_WHEELS}",
                },
                labels=self._labels(),
                mounts={self.at.wheels: _WHEELS},
                timestamp_s=_TIMESTAMP_S,
            )

    def _write(self, recipe: Recipe, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.at.cache) as scratch, self._step(recipe, "archive") as detail:
            layout = Path(scratch, "oci")
            self._buildah(recipe).push(self._tag(recipe), layout)
            written = Entry(folder)
            archive.write(layout, reference(recipe.name, self.at.root), written.archive)
            detail.append(f"{written.archive.stat().st_size / _MIB:.0f} MiB")
        with self._step(recipe, "bill of materials"):
            found = inside.look(written.archive)
            written.contents.write_text(json.dumps(contents.described(found), indent=1))
            pinned = sbom.pins(self.at.root / file for file in recipe.requirements)
            bill = sbom.bill(recipe.name, version(self.at.root), found, pinned)
            written.sbom.write_text(json.dumps(bill, indent=1))

    def _tag(self, recipe: Recipe) -> str:
        return f"{REGISTRY}/{recipe.name}:{key(recipe, self.at.root)}"

    def _labels(self) -> dict[str, str]:
        return {"org.opencontainers.image.version": version(self.at.root)}

    def _buildah(self, recipe: Recipe) -> Buildah:
        return Buildah(self.at.storage, self._log(recipe))

    def _log(self, recipe: Recipe) -> Path:
        return self.at.cache / f"{recipe.name}.log"

    @contextlib.contextmanager
    def _step(self, recipe: Recipe, what: str) -> Iterator[list[str]]:
        begun = self.now()
        detail: list[str] = []
        yield detail
        self.tell(Step(recipe.name, what, self.now() - begun, " ".join(detail)))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a folder that gets the name of ``folder`` when the block ends well, and is removed if it does not."""
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield beside
        beside.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
