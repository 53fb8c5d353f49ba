"""``fairlead init``: a starter project that works as it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.errors import USAGE, CommandError

NAME_MAX = 28
"""Longest name: the API takes 36 letters for deployment and variant together, and the starter's variant has 8."""

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_OURS = "order-returns"
"""The name that the template has; every place where it stands gets the user's."""
_STORED_AS = {"gitignore": ".gitignore"}
"""Files that could not lie in a package under their own name."""
_NO_CONTENT = frozenset({".git"})
"""What a folder may have and still be an empty one."""


def commands(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; it may not be there yet.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Name of the deployment and its model.", show_default="the folder's")
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Into a folder with files: write those that are missing, change none.")
    ] = False,
) -> None:
    """Write a starter project: feature repository, training script, manifests for this machine and for a cluster.

    Nothing that is there is ever overwritten, and a failure leaves nothing behind.

    Example: fairlead init order-returns
    """
    chosen = _checked(name, folder)
    _refuse_unfit(folder, force=force)
    try:
        written, kept = _write(folder, dict(starter(chosen)))
    except OSError as error:
        raise CommandError(f"{folder}: cannot be written ({error.strerror}); nothing was") from error
    for path in kept:
        typer.echo(f"kept   {folder / path}")
    typer.echo(f"wrote  {len(written)} files of {chosen} into {folder}")
    typer.echo(f"next:  cd {folder} && python train.py && fairlead up -f modeldeployment.yaml")


def starter(name: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the files of a starter project by their path in its folder.

    Args:
        name: Of the deployment; a DNS label that begins with a letter.
    """
    for path, content in _files(files("fairlead") / "templates" / "starter", Path()):
        named = content.decode().replace(_OURS, name).replace(_OURS.replace("-", "_"), name.replace("-", "_"))
        yield path.with_name(_STORED_AS.get(path.name, path.name)), named.encode()


def _files(folder: Traversable, path: Path) -> Iterator[tuple[Path, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry, path / entry.name)
        elif entry.is_file():
            yield path / entry.name, entry.read_bytes()


def _checked(name: str | None, folder: Path) -> str:
    chosen = folder.resolve().name if name is None else name
    if _NAME.fullmatch(chosen) and len(chosen) <= NAME_MAX:
        return chosen
    rule = f"give --name: up to {NAME_MAX} of a-z, 0-9 and hyphens, a letter first, no hyphen last"
    whose = "--name" if name is not None else "FOLDER"
    raise CommandError(f"{whose}: {chosen!r} cannot name a deployment; {rule}", USAGE)


def _refuse_unfit(folder: Path, *, force: bool) -> None:
    if not folder.resolve().parent.is_dir():
        raise CommandError(f"{folder}: its parent folder is not there; make it first", USAGE)
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise CommandError(f"{folder}: is no folder; choose another name", USAGE)
    found = sorted(entry.name for entry in folder.iterdir() if entry.name not in _NO_CONTENT)
    if found and not force:
        shown = ", ".join(found[:3]) + (", …" if found[3:] else "")
        message = (
            f"{folder}: is not empty ({shown}); choose another, or --force writes what is missing and changes none"
        )
        raise CommandError(message, USAGE)


def _write(folder: Path, content: Mapping[Path, bytes]) -> tuple[list[Path], list[Path]]:
    """Write what is not there yet, all of it or nothing; return what was written and what was there."""
    kept = [path for path in content if (folder / path).exists() or (folder / path).is_symlink()]
    missing = [path for path in content if path not in kept]
    made: list[Path] = []
    try:
        for path in missing:
            _make_folder((folder / path).parent, made)
            with (folder / path).open("xb") as file:  # fails where somebody has been quicker
                made.append(folder / path)
                file.write(content[path])
    except BaseException:  # Ctrl-C, too, leaves nothing behind
        _undo(made)
        raise
    return missing, kept


def _make_folder(folder: Path, made: list[Path]) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent, made)
    folder.mkdir()
    made.append(folder)


def _undo(made: Iterable[Path]) -> None:
    for path in reversed([*made]):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
