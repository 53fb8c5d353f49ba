"""What has been built, and from what: a step whose digest is on record is not done again.

The record is one small JSON file, replaced in one step. A step's entry goes away before the step starts and comes
back when it has ended, so that whatever was left half done is done anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path


def digest_of(parts: Iterable[str]) -> str:
    """Return ``sha256:<hex>`` over texts, in order."""
    return f"sha256:{hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()}"


def file_digests(paths: Iterable[Path]) -> list[str]:
    """Return name and SHA-256 of each file."""
    return [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]


def versions(*distributions: str) -> list[str]:
    """Return name and version of installed distributions."""
    return [f"{name} {metadata.version(name)}" for name in distributions]


def done_steps(record: Path) -> dict[str, str]:
    """Return the digest of each step that is done; none if there is no record or it cannot be read."""
    try:
        steps: dict[str, str] = json.loads(record.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return steps


@contextmanager
def step(record: Path, name: str, digest: str) -> Iterator[None]:
    """Put ``name`` on record as done with ``digest`` if the body ends, and as not done while it runs."""
    _write(record, {other: known for other, known in done_steps(record).items() if other != name})
    yield
    _write(record, done_steps(record) | {name: digest})


def _write(record: Path, steps: dict[str, str]) -> None:
    fresh = record.with_name(f".{record.name}.partial")
    fresh.write_text(json.dumps(steps, indent=2, sort_keys=True) + "\n")
    fresh.replace(record)
