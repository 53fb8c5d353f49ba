"""Commands: ``python tools/images build [--engine docker] [NAME…] | list [--json] | contents [--write] | clean``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fairlead_images import docker, page
from fairlead_images.building import Step, build, clean
from fairlead_images.errors import ImageError
from fairlead_images.layout import Layout, entry, layout
from fairlead_images.recipes import RECIPES, reference

_ROOT = Path(__file__).resolve().parents[3]
_MIB = 1 << 20
_PAGE = "docs/reference/images.md"


def main(arguments: Sequence[str]) -> int:
    """Run a command; return the exit code."""
    given = _parser().parse_args(arguments)
    at = layout(_ROOT, os.environ)
    try:
        if given.command == "build" and given.engine == "docker":
            for image in docker.build(given.names, at.root):
                print(f"images: {image}  in Docker")
        elif given.command == "build":
            _build(at, given.names or released())
        elif given.command == "list":
            _list(at, as_json=given.json)
        elif given.command == "contents":
            _contents(at, write=given.write)
        else:
            clean(at)
    except ImageError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def released() -> list[str]:
    """Return the names of all images that are written as archives."""
    return [name for name, recipe in RECIPES.items() if recipe.released]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tools/images", description="Fairlead's container images.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build what is not in the cache")
    building.add_argument("names", nargs="*", metavar="NAME", choices=[*released(), []], help="all if none is given")
    building.add_argument(
        "--engine",
        choices=("buildah", "docker"),
        default="buildah",
        help="buildah: archives from Debian packages, as root; docker: from public bases, without gateway and base",
    )
    listed = commands.add_parser("list", help="say where the archives are; builds nothing")
    listed.add_argument("--json", action="store_true")
    shown = commands.add_parser("contents", help="say what is in the images, and what was left out")
    shown.add_argument("--write", action="store_true", help=f"write {_PAGE}")
    commands.add_parser("clean", help="remove all images, layers and downloads from the cache")
    return parser


def _build(at: Layout, names: Sequence[str]) -> None:
    for name, made in zip(names, build(names, at, _tell), strict=True):
        print(f"images: {reference(name, at.root)}  {made.archive.stat().st_size / _MIB:.0f} MiB  {made.archive}")


def _tell(step: Step) -> None:
    print(f"images: {step.image:9} {step.what:16} {step.seconds:6.1f} s  {step.detail}", flush=True)


def _list(at: Layout, *, as_json: bool) -> None:
    built = {name: made for name in released() if (made := entry(RECIPES[name], at)).built}
    rows = {
        name: {"image": reference(name, at.root), "archive": str(made.archive), "bytes": made.archive.stat().st_size}
        for name, made in built.items()
    }
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for name in released():
        print(f"{name:10}{rows[name]['archive']}" if name in rows else f"{name:10}not built")


def _contents(at: Layout, *, write: bool) -> None:
    absent = [name for name in released() if not entry(RECIPES[name], at).built]
    if absent:
        raise ImageError(f"{', '.join(absent)}: not built; `make images` does it")
    described = {name: page.read(entry(RECIPES[name], at).contents) for name in released()}
    text = page.page(described, at.root / "tools/images/left_out.toml")
    if write:
        (at.root / _PAGE).write_text(text)
        print(f"images: wrote {_PAGE}")
    else:
        print(text, end="")
