"""The keys that sign experiment headers, as the operator tells them to a running server."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fairlead.route import RouteKey

_LOG = logging.getLogger(__name__)
_CHECK_INTERVAL_S = 1.0
FILE_NAME = "route-keys.json"
"""Name of the keys' file in the serving directory."""


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9-]{1,63}$")
    secret: str = Field(pattern=r"^([0-9a-f]{2}){16,}$")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[_Key]


class RouteKeys:
    """The keys in a file, read again when the file changes; looked at once a second at most."""

    def __init__(self, serving_dir: Path | None, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Read the keys.

        Args:
            serving_dir: Where ``route-keys.json`` is or will be; None for a server that has no operator, and no keys.
            monotonic_s: Seconds that never go back, for the interval between looks.
        """
        self._path = None if serving_dir is None else serving_dir / FILE_NAME
        self._monotonic_s = monotonic_s
        self._keys: Mapping[str, RouteKey] = {}
        self._seen: tuple[int, int, int] | None = None
        self._next_look_s = float("-inf")

    def current(self) -> Mapping[str, RouteKey]:
        """Return the keys by id; those read last if the file is not valid now, none if it is gone."""
        if self._path is not None and self._monotonic_s() >= self._next_look_s:
            self._next_look_s = self._monotonic_s() + _CHECK_INTERVAL_S
            self._look(self._path)
        return self._keys

    def _look(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError:
            self._keys, self._seen = {}, None
            return
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            file = _File.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            _LOG.warning("route keys not read file=%s error=%s", path.name, type(error).__name__)
            return
        self._keys = {key.id: RouteKey(key.id, bytes.fromhex(key.secret)) for key in file.keys}
        _LOG.info("route keys read ids=%s", ",".join(self._keys))
