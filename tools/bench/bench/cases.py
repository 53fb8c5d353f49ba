"""What is asked of a server, and how: ``<protocol>-<batch>x<connections>``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["v2-json", "v2-binary", "v1-json", "grpc", "v2-json-contract", "hydrated"]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to ask."""

    name: str
    title: str
    protocol: Protocol
    batch: int = 1
    """Rows of a request."""
    connections: int = 16
    streams: int = 1
    """Requests under way at once on each connection."""
    main: bool = True
    """Whether it has all rounds; the others have half as many."""


CASES = (
    Case("v2-json-1x16", "V2 JSON, batch 1, 16 connections", "v2-json"),
    Case("v2-json-1x1", "V2 JSON, batch 1, 1 connection", "v2-json", connections=1, main=False),
    Case("v2-json-1x64", "V2 JSON, batch 1, 64 connections", "v2-json", connections=64, main=False),
    Case("v2-json-64x16", "V2 JSON, batch 64, 16 connections", "v2-json", batch=64),
    Case("v2-binary-1x16", "V2 binary tensors, batch 1, 16 connections", "v2-binary"),
    Case("v1-json-1x16", "V1 JSON, batch 1, 16 connections", "v1-json"),
    Case("grpc-1x16", "gRPC ModelInfer, raw contents, batch 1, 16 connections", "grpc"),
    Case("grpc-4x16streams", "the same, 4 connections of 16 streams", "grpc", connections=4, streams=16, main=False),
    Case("v2-json-contract-1x16", "V2 JSON, the flights contract model, all its tensors", "v2-json-contract"),
    Case("hydrated-1x16", "V1 JSON with entity keys, features from Feast's SQLite store", "hydrated"),
)
