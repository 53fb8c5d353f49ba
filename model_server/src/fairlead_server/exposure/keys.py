"""The keys that sign experiment headers, as the operator tells them to a running server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fairlead.route import RouteKey
from fairlead_server.exposure.watched import WatchedFile

FILE_NAME = "route-keys.json"
"""Name of the keys' file in the serving directory."""


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9-]{1,63}$")
    secret: str = Field(pattern=r"^([0-9a-f]{2}){16,}$")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[_Key]


class RouteKeys(WatchedFile[Mapping[str, RouteKey]]):
    """The keys in a file by id, read again when the file changes; none without the file."""

    def __init__(self, serving_dir: Path | None, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Watch the keys.

        Args:
            serving_dir: Where ``route-keys.json`` is or will be; None for a server that has no operator, and no keys.
            monotonic_s: Seconds that never go back, for the interval between looks.
        """
        super().__init__(None if serving_dir is None else serving_dir / FILE_NAME, _parse, {}, monotonic_s)


def _parse(content: bytes) -> Mapping[str, RouteKey]:
    try:
        file = _File.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['type']}") from None
    return {key.id: RouteKey(key.id, bytes.fromhex(key.secret)) for key in file.keys}
