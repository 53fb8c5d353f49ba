"""Which images there are, and what decides the content of each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REGISTRY = "fairlead.local"
BASE = "base"
"""The image that all others are made from."""
BUILDER = "builder"
"""The image that their build stages run in: the base with pip and a shell."""
VERSIONED = "sdk/pyproject.toml"
"""The file that says the project's version."""
_ROOT = ("tools/images/debian.toml", "tools/images/fairlead_images/debian.py")
_FINISH = ("tools/images/left_out.toml", "tools/images/trim.py")
_SDK = (VERSIONED, "sdk/src")
_SERVER = ("model_server/pyproject.toml", "model_server/src")
_OPERATOR = ("operator/pyproject.toml", "operator/src", "operator/crds", "operator/rbac")
_LEDGER = ("ledger/pyproject.toml", "ledger/src")
_FLIGHTS = (
    "examples/flights/pyproject.toml",
    "examples/flights/src",
    "feature_repo/data/*.parquet",
    "feature_repo/data/registry.db",
    "build/flights/models/*.onnx",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one image is made."""

    name: str
    containerfile: str
    """Its path in the checkout."""
    inputs: tuple[str, ...]
    """Files, folders and patterns of the checkout that decide the content, besides the Containerfile."""
    requirements: tuple[str, ...] = ()
    """Files of pinned Python packages that the build installs."""
    packages: str = ""
    """Debian packages that it is made of, by their key in debian.toml; others are made from the base."""
    made_by: str = ""
    """Command that makes those inputs which are no part of the checkout."""
    released: bool = True
    """Whether it is written as an archive."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Everything whose content decides that of the image."""
        return (self.containerfile, *self.inputs, *self.requirements)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(BASE, "tools/images/base/Containerfile", _ROOT, packages="base"),
        Recipe(
            BUILDER,
            "tools/images/base/Containerfile",
            _ROOT,
            packages="builder",
            released=False,
        ),
        Recipe(
            "server",
            "model_server/Containerfile",
            ("tools/images/server/entrypoint.py", *_FINISH, *_SDK, *_SERVER, "build/native/*.whl"),
            ("requirements/server.txt", "requirements/build.txt"),
            made_by="python tools/native wheel build/native",
        ),
        Recipe(
            "operator",
            "operator/Containerfile",
            (*_FINISH, *_SDK, *_OPERATOR),
            ("requirements/operator.txt", "requirements/build.txt"),
        ),
        Recipe(
            "ledger",
            "ledger/Containerfile",
            (*_FINISH, *_SDK, *_LEDGER),
            ("requirements/ledger.txt", "requirements/build.txt"),
        ),
        Recipe(
            "flights",
            "examples/flights/Containerfile",
            (*_FINISH, *_SDK, *_FLIGHTS),
            ("requirements/flights.txt", "requirements/build.txt"),
            made_by="make train",
        ),
        Recipe("gateway", "tools/images/gateway/Containerfile", (), ("requirements/gateway.txt",)),
        Recipe("redis", "tools/images/redis/Containerfile", ()),
        Recipe(
            "postgres",
            "tools/images/postgres/Containerfile",
            ("tools/images/postgres/entrypoint.py", "tools/images/postgres/pg_hba.conf"),
        ),
    )
}


def version(root: Path) -> str:
    """Return the project's version, the tag of all images."""
    return str(tomllib.loads((root / VERSIONED).read_text())["project"]["version"])


def reference(name: str, root: Path) -> str:
    """Return the name by which clusters know an image."""
    return f"{REGISTRY}/{name}:{version(root)}"
