"""The targets: what each takes, and how its inputs are changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fuzz import mutate
from fuzz.paths import CORPUS


@dataclass(frozen=True, slots=True)
class Target:
    """A target."""

    name: str
    what: str
    mutate: mutate.Mutate
    instrumented: tuple[str, ...]
    """Packages and modules whose branches guide the search."""


_CODECS = ("fairlead_server.protocol", "fairlead_server.predict.binding", "fairlead_server.predict.signature")

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("http", "bytes of HTTP/1.1 connections", mutate.http, ("fairlead_server.protocol", "uvicorn.protocols")),
        Target("v2-json", "V2 and V1 bodies, by lane and application", mutate.json_body, _CODECS),
        Target("v2-binary", "V2 bodies with bytes after their JSON", mutate.binary, _CODECS),
        Target("protobuf", "messages of every gRPC method", mutate.protobuf, _CODECS),
        Target(
            "frames",
            "HTTP/2 frames, by both engines",
            mutate.frames,
            ("fairlead_server.protocol", "h2", "hpack", "hyperframe"),
        ),
    )
}


def kept(target: str) -> Mapping[str, bytes]:
    """Return the inputs that once broke something, by name."""
    folder = CORPUS / target
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())} if folder.is_dir() else {}
