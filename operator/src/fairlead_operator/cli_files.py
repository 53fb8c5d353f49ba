"""Files that commands write for people to look at and commit."""

from __future__ import annotations

from pathlib import Path

from fairlead.cli.errors import CommandError


def replace_file(file: Path, content: bytes) -> None:
    """Put ``content`` into ``file`` in one step, so that `fairlead up` never reads a part of it.

    Raises:
        CommandError: It cannot be written.
    """
    fresh = file.with_name(f".{file.name}.new")
    try:
        fresh.write_bytes(content)
        fresh.chmod(file.stat().st_mode)
        fresh.replace(file)
    except OSError as error:
        raise CommandError(f"--file: {file} cannot be written ({error.strerror})") from error
