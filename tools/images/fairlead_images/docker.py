"""Building with Docker, from public bases and the package index: where there is no Debian, or nobody is root.

It has layers of its own and keeps the images itself, so there are neither keys nor archives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fairlead_images.errors import BuildFailed, ImageError, Unavailable
from fairlead_images.layout import check_inputs
from fairlead_images.recipes import RECIPES, Recipe, reference, version

NAMES = ("operator", "server", "ledger", "flights", "redis", "postgres")
"""What runs where Istio brings its own gateway; ``gateway`` can be built, too."""
_ENVIRONMENT = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
"""Plain images: `kind load` does not know indexes with attestations everywhere."""


def command(recipe: Recipe, root: Path) -> list[str]:
    """Return the command that builds an image, to be run in the checkout.

    Raises:
        ImageError: It is made from a root of Debian packages.
    """
    if recipe.packages:
        raise ImageError(f"{recipe.name}: Docker takes a public base instead; name one of {', '.join(NAMES)}")
    label = f"org.opencontainers.image.version={version(root)}"
    return [
        *("docker", "build", "--file", recipe.containerfile),
        *("--tag", reference(recipe.name, root), "--label", label, "."),
    ]


def build(names: Sequence[str], root: Path) -> list[str]:
    """Build images; return their names in Docker.

    Args:
        names: Which; ``NAMES`` if empty.
        root: The checkout.

    Raises:
        ImageError: One cannot be built.
    """
    recipes = [RECIPES[name] for name in names or NAMES]
    commands = [command(recipe, root) for recipe in recipes]
    for recipe in recipes:
        check_inputs(recipe, root)
    if not shutil.which("docker"):
        raise Unavailable("docker: not on the PATH; without --engine docker, buildah builds (Debian, root)")
    for words in commands:
        code = subprocess.run(words, cwd=root, env={**os.environ, **_ENVIRONMENT}, check=False).returncode
        if code:
            raise BuildFailed(f"{' '.join(words)} ended with {code}")
    return [reference(recipe.name, root) for recipe in recipes]
