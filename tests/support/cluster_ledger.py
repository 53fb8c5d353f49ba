"""A ledger beside the test cluster, which operator and pods reach, and what it has been told by gateways."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fairlead.feedback.keys import KeyRing, SigningKey
from support.cluster import wait_for
from support.servers import free_port

ROOT = KeyRing((SigningKey("k1", os.urandom(16)),), os.urandom(16))
_ROLES = {"operator": ["operator"], "server": ["server"]}
_OF_GATEWAYS = """
    SELECT cells.variant, sum(blocks.errors) FROM blocks
    JOIN cells ON cells.id = blocks.cell_id JOIN servers ON servers.id = blocks.server_id
    WHERE servers.name LIKE 'gateway.%' GROUP BY cells.variant
"""
_OF_UNITS = """
    SELECT cells.variant, sum(units.errors), sum(units.requests) FROM units
    JOIN cells ON cells.id = units.cell_id GROUP BY cells.variant
"""


@dataclass(frozen=True, slots=True)
class ClusterLedger:
    """A ledger with API keys."""

    url: str
    folder: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """What an operator is given for it."""
        files = {"ledger-api-key": "operator", "ledger-server-key": "server", "feedback-keys": "keys.json"}
        return (f"--ledger-url={self.url}", *(f"--{flag}={self.folder / name}" for flag, name in files.items()))

    def told_by_gateways(self) -> dict[str, int]:
        """Return how many requests gateways have told of, by variant."""
        return {variant: int(errors) for variant, errors in self._rows(_OF_GATEWAYS)}

    def of_units(self) -> dict[str, tuple[int, int]]:
        """Return errors and requests of all units, by variant."""
        return {variant: (int(errors), int(requests)) for variant, errors, requests in self._rows(_OF_UNITS)}

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder / 'ledger.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()


@contextmanager
def cluster_ledger(host: str, folder: Path) -> Iterator[ClusterLedger]:
    """Run a ledger at an address that pods reach, and end it afterwards."""
    (folder / "keys.json").write_text(ROOT.dumped())
    listed = []
    for name, roles in _ROLES.items():
        secret = os.urandom(16).hex()
        (folder / name).write_text(f"{name}.{secret}")
        listed.append({"id": name, "hash": hashlib.sha256(secret.encode()).hexdigest(), "roles": roles})
    (folder / "api-keys.json").write_text(json.dumps(listed))
    port = free_port(host)
    command = [
        *(sys.executable, "-m", "fairlead_ledger", "serve", "--host", host, "--port", str(port)),
        *("--database", f"sqlite:///{folder / 'ledger.db'}"),
        *("--keys", str(folder / "keys.json"), "--api-keys", str(folder / "api-keys.json")),
    ]
    url = f"http://{host}:{port}"
    with (folder / "ledger.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: _is_ready(url), timeout_s=90, otherwise=(folder / "ledger.log").read_text)
        yield ClusterLedger(url, folder)
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=5).is_success
    except httpx.HTTPError:
        return False
