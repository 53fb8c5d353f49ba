"""A copy of ``terraform/`` to run Terraform in, so that nothing of it stays in the checkout.

The provider comes from a mirror on this machine where there is one, else from the public registry. It is large, so it
is looked at once; all parts share what that leaves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIRROR_VARIABLE: Final = "FAIRLEAD_TF_PLUGINS"
_MIRROR_NAME: Final = "tf-plugins"
_PROVIDER: Final = "registry.terraform.io/hashicorp/aws"
_LEFT_OUT: Final = shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "*.tfstate*", "terraform.tfvars")
_DEADLINE_S: Final = 900
_FRUGAL: Final = {"GOGC": "400", "TF_IN_AUTOMATION": "1"}
"""Go collects less garbage: the provider's schema is large, and read anew in each run (a third less CPU)."""


class TerraformFailed(Exception):
    """Terraform said no; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where Terraform runs.

    Attributes:
        root: Copy of the repository's ``terraform/``.
        environ: Environment of every run.
        source: Where the provider comes from, in words.
    """

    root: Path
    environ: Mapping[str, str]
    source: str

    def run(self, part: str, *arguments: str) -> str:
        """Run Terraform in a part and return what it printed.

        Raises:
            TerraformFailed: It ended with an error.
        """
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.root / part,
            env=dict(self.environ),
            check=False,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
        )
        if done.returncode != 0:
            raise TerraformFailed(f"terraform {' '.join(arguments)} in {part}:\n{done.stdout}{done.stderr}")
        return done.stdout


def mirror(environ: Mapping[str, str]) -> Path | None:
    """Return the provider mirror of this machine, or None.

    Raises:
        TerraformFailed: One is named that has no provider.
    """
    named = environ.get(MIRROR_VARIABLE)
    if named:
        if not (Path(named) / _PROVIDER).is_dir():
            raise TerraformFailed(
                f"{MIRROR_VARIABLE}={named} has no {_PROVIDER}: name a folder that `terraform "
                "providers mirror` wrote, or unset it"
            )
        return Path(named)
    places = [Path("/opt"), Path("/usr/local/share"), Path("/usr/share"), Path(environ.get("HOME", "/"))]
    return next((place / _MIRROR_NAME for place in places if (place / _MIRROR_NAME / _PROVIDER).is_dir()), None)


def open_workspace(source: Path, folder: Path, parts: list[str], environ: Mapping[str, str] = os.environ) -> Workspace:
    """Copy ``source`` into an empty folder and make the parts ready to run.

    Raises:
        TerraformFailed: The provider cannot be had.
    """
    root = folder / "terraform"
    shutil.copytree(source, root, ignore=_LEFT_OUT)
    found = mirror(environ)
    workspace = Workspace(
        root=root,
        environ={**_FRUGAL, **environ, "TF_CLI_CONFIG_FILE": str(_configuration(folder, found))},
        source=f"the mirror {found}" if found else "the public registry",
    )
    _share_provider(workspace, parts)
    return workspace


def _configuration(folder: Path, found: Path | None) -> Path:
    """Write Terraform's own configuration: a mirror is the only source where there is one."""
    file = folder / "terraformrc"
    path = json.dumps(str(found))
    installation = f"provider_installation {{\n  filesystem_mirror {{\n    path = {path}\n  }}\n}}\n" if found else ""
    file.write_text(f"disable_checkpoint = true\n{installation}", encoding="utf-8")
    return file


def _share_provider(workspace: Workspace, parts: list[str]) -> None:
    """Get the provider once, in a part without modules of its own, and lay it before all."""
    first = workspace.root / "modules" / "network"
    workspace.run("modules/network", "init", "-backend=false", "-no-color", "-input=false")
    for part in (workspace.root / name for name in parts):
        if part != first:
            shutil.copy(first / ".terraform.lock.hcl", part)
            (part / ".terraform").mkdir(exist_ok=True)
            (part / ".terraform" / "providers").symlink_to(first / ".terraform" / "providers")
        if 'module "' in (part / "main.tf").read_text(encoding="utf-8"):
            workspace.run(str(part.relative_to(workspace.root)), "get", "-no-color")
