"""What is in an image, read from the layers of its archive: files, Python packages, Debian packages."""

from __future__ import annotations

import csv
import email
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import IO

_STATUS = "var/lib/dpkg/status.d/"
_LEFT_OUT = "opt/fairlead/share/left-out.json"
_WHITEOUT = ".wh."


@dataclass(frozen=True, slots=True)
class PythonPackage:
    """A Python package in an image."""

    name: str
    version: str
    license: str
    """As its author wrote it; "" if it says nothing."""
    files: tuple[str, ...]
    """Paths in the image, those that were left out included."""


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A Debian package in an image."""

    name: str
    version: str
    architecture: str
    source: str


@dataclass(frozen=True, slots=True)
class Inside:
    """What an image is made of."""

    sizes: Mapping[str, int]
    """Bytes by path, of regular files."""
    python: tuple[PythonPackage, ...]
    debian: tuple[DebianPackage, ...]
    left_out: tuple[Mapping[str, str | int], ...]
    """What its build removed: ``what``, ``why``, ``bytes``."""
    layers: tuple[int, ...]
    """Bytes of its layers as they are in the archive, compressed."""
    configuration: Mapping[str, object]
    """The image's ``config``: user, entry point, environment, labels."""


def look(archive: Path) -> Inside:
    """Read what is in an OCI archive of one image."""
    with tarfile.open(archive) as tar:
        index = json.load(_file(tar, "index.json"))
        manifest = json.load(_blob(tar, index["manifests"][0]["digest"]))
        sizes: dict[str, int] = {}
        texts: dict[str, str] = {}
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=_blob(tar, layer["digest"])) as content:
                _apply(content, sizes, texts)
        configuration = json.load(_blob(tar, manifest["config"]["digest"]))["config"]
    return Inside(
        sizes=sizes,
        python=tuple(sorted(_python(texts), key=lambda one: one.name.lower())),
        debian=tuple(_debian(texts)),
        left_out=tuple(json.loads(texts.get(_LEFT_OUT, "[]"))),
        layers=tuple(layer["size"] for layer in manifest["layers"]),
        configuration=configuration,
    )


def _file(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    if found is None:
        raise FileNotFoundError(name)
    return found


def _blob(tar: tarfile.TarFile, digest: str) -> IO[bytes]:
    return _file(tar, f"blobs/{digest.replace(':', '/')}")


def _apply(content: tarfile.TarFile, sizes: dict[str, int], texts: dict[str, str]) -> None:
    for member in content:
        path = PurePosixPath(member.name)
        if path.name.startswith(_WHITEOUT):
            sizes.pop(str(path.with_name(path.name.removeprefix(_WHITEOUT))), None)
        elif member.isfile():
            sizes[str(path)] = member.size
            if _is_told(str(path)):
                texts[str(path)] = _file(content, member.name).read().decode("utf-8", "replace")


def _is_told(path: str) -> bool:
    is_metadata = path.endswith((".dist-info/METADATA", ".dist-info/RECORD"))
    return is_metadata or path.startswith(_STATUS) or path == _LEFT_OUT


def _python(texts: Mapping[str, str]) -> Iterator[PythonPackage]:
    for path, text in texts.items():
        if not path.endswith(".dist-info/METADATA"):
            continue
        told = email.message_from_string(text)
        folder = PurePosixPath(path).parent
        record = texts.get(f"{folder}/RECORD", "")
        files = tuple(f"{folder.parent}/{row[0]}" for row in csv.reader(record.splitlines()) if row)
        yield PythonPackage(str(told["Name"]), str(told["Version"]), _license(told), files)


def _license(told: Message) -> str:
    classified = [
        line.rpartition(" :: ")[2] for line in told.get_all("Classifier", []) if line.startswith("License :: ")
    ]
    written = str(told["License-Expression"] or "") or ", ".join(classified) or str(told["License"] or "")
    return written.strip().splitlines()[0] if written.strip() else ""


def _debian(texts: Mapping[str, str]) -> Iterator[DebianPackage]:
    for path in sorted(texts):
        if path.startswith(_STATUS):
            told = email.message_from_string(texts[path])
            name = str(told["Package"])
            source = str(told["Source"] or name).partition(" ")[0]
            yield DebianPackage(name, str(told["Version"]), str(told["Architecture"]), source)
