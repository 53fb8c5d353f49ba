"""A root file system from Debian packages, for machines that reach no image registry.

apt, told to keep its state in the cache, finds and checks the newest packages of the machine's own sources; each is
unpacked here, without running its scripts, and without what no container needs. Nothing of the machine is changed.
"""

from __future__ import annotations

import io
import os
import platform
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead_images.errors import BuildFailed, Unavailable
from fairlead_images.programs import run

RELEASE = "bookworm"
SOURCES = "FAIRLEAD_APT_SOURCES"
"""Variable that names a file with sources of Debian 12, on machines that are another release."""
USER = 1000
_MERGED = ("bin", "sbin", "lib", "lib64")
_STATUS = "var/lib/dpkg/status.d"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n"
    f"fairlead:x:{USER}:{USER}::/tmp:/sbin/nologin\n"
    "nobody:x:65534:65534::/nonexistent:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nfairlead:x:{USER}:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_LINKS = {
    "usr/bin/python3": "python3.11",
    "usr/bin/python": "python3.11",
    "usr/lib/ssl/certs": "/etc/ssl/certs",
    "usr/lib/ssl/cert.pem": f"/{_CERTIFICATES}",
}
_ENTRIES_OF_PYTHON = "usr/lib/python3/dist-packages"


@dataclass(frozen=True, slots=True)
class Packages:
    """What a root file system is made of."""

    names: tuple[str, ...]
    without: tuple[str, ...]
    """Folders that are left out."""


def packages(file: Path, kind: str) -> Packages:
    """Read which packages a root of ``kind`` has; all but the base have the base's, too."""
    listed = tomllib.loads(file.read_text())
    names = [*listed["base"]["packages"], *(listed[kind]["packages"] if kind != "base" else ())]
    machine = platform.machine().replace("_", "-")
    return Packages(tuple(name.format(machine=machine) for name in names), tuple(listed["without"]))


def make_root(wanted: Packages, folder: Path, cache: Path, log: Path, *, refresh: bool, precompile: bool) -> None:
    """Make a root file system in ``folder``.

    Args:
        wanted: Its packages.
        folder: Empty.
        cache: Where downloaded packages are kept.
        log: Where apt's output goes.
        refresh: Whether apt is to look for newer versions.
        precompile: Whether to compile the standard library.
    """
    for name in _MERGED:
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    for package in _download(wanted.names, cache, log, refresh=refresh):
        _unpack(package, folder, wanted.without)
    _finish(folder)
    if precompile:
        # Debian compiles it when a package is installed. A file of an image never changes: unchecked.
        compiling = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/usr/lib/python3.11"]
        run(["chroot", folder, "/usr/bin/python3.11", *compiling], log)


def _download(names: Sequence[str], cache: Path, log: Path, *, refresh: bool) -> list[Path]:
    debs = cache / "packages"
    for folder in (debs, cache / "state/lists/partial", cache / "cache/archives/partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = _apt_options(cache, os.environ)
    if refresh or not any((cache / "state/lists").glob("*Packages*")):
        run(["apt-get", "-qq", *options, "update"], log)
    printed = subprocess.run(
        ["apt-get", "-qq", *options, "download", "--print-uris", *names], capture_output=True, text=True, check=False
    )
    if printed.returncode:
        raise BuildFailed(f"apt-get does not know all packages of {RELEASE}: {printed.stderr.strip()}")
    files = [debs / line.split()[1] for line in printed.stdout.splitlines() if line.startswith("'")]
    if not all(file.is_file() for file in files):
        run(["env", f"--chdir={debs}", "apt-get", "-qq", *options, "download", *names], log)
    return [file for file in files if file.is_file()] or sorted(debs.glob("*.deb"))


def _apt_options(cache: Path, environment: Mapping[str, str]) -> list[str]:
    settings = {
        "Dir::State": cache / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": cache / "cache",
        "APT::Sandbox::User": "root",
    }
    if SOURCES in environment:
        settings |= {"Dir::Etc::sourcelist": Path(environment[SOURCES]).resolve(), "Dir::Etc::sourceparts": "-"}
    elif f"VERSION_CODENAME={RELEASE}\n" not in Path("/etc/os-release").read_text():
        raise Unavailable(f"this machine is not Debian {RELEASE}; let {SOURCES} name a file with apt sources of it")
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _unpack(package: Path, root: Path, without: Sequence[str]) -> None:
    content = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    control = subprocess.run(["dpkg-deb", "--field", package], capture_output=True, text=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in _members(tar, without):
            tar.extract(member, root, filter="tar")
    # As distroless images have it: scanners find the packages there.
    name = next(line.removeprefix("Package: ") for line in control.splitlines() if line.startswith("Package: "))
    _write(root / _STATUS / name, control)


def _members(tar: tarfile.TarFile, without: Sequence[str]) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        path = _merged(member.name.removeprefix("./"))
        if path in {"", ".", *(f"usr/{name}" for name in _MERGED)} or _is_below(path, without):
            continue
        member.name = path
        if member.islnk():
            member.linkname = _merged(member.linkname.removeprefix("./"))
        yield member


def _merged(path: str) -> str:
    first = path.partition("/")[0]
    return f"usr/{path}" if first in _MERGED else path


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _finish(root: Path) -> None:
    for name, text in _FILES.items():
        _write(root / name, text)
    for name, target in _LINKS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    authorities = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    _write(root / _CERTIFICATES, "".join(path.read_text() for path in authorities))
    if (root / "usr/bin/dash").exists():
        (root / "usr/bin/sh").unlink(missing_ok=True)
        (root / "usr/bin/sh").symlink_to("dash")
    for wheel in sorted((root / "usr/share/python-wheels").glob("pip-*.whl")):
        zipfile.ZipFile(wheel).extractall(root / _ENTRIES_OF_PYTHON)  # noqa: S202 -- of a package that apt has checked
    for name, mode in {
        "tmp": 0o1777,
        "var/tmp": 0o1777,
        "root": 0o700,
        "proc": 0o755,
        "sys": 0o755,
        "dev": 0o755,
    }.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
