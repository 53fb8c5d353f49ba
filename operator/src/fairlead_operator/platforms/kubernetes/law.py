"""The assignment that a VirtualService carries out: salt, and arms in the order of its destinations. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fairlead import BUCKETS, bucket_of
from fairlead.route import VARIANT_HEADER
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.render.hashed import Protocol, Split
from fairlead_operator.platforms.kubernetes.render.route_text import read_route


class LawUnknown(OperatorError):
    """A VirtualService does not say how it assigns."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of neighbouring buckets."""

    arm: str
    revision: str
    width: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where a unit lands."""

    unit: str
    bucket: int
    arm: str
    revision: str


@dataclass(frozen=True, slots=True)
class Law:
    """How units are assigned now."""

    salt: str
    pieces: tuple[Piece, ...]
    """In the order of the route; widths sum to ``BUCKETS``."""
    altered: bool
    """Whether somebody has changed the weights behind the operator's back; it will restore them."""

    def assign(self, unit: str) -> Assigned:
        """Return where ``unit`` lands."""
        bucket = bucket_of(unit, self.salt)
        ends = accumulate(piece.width for piece in self.pieces)
        found = next(piece for piece, end in zip(self.pieces, ends, strict=True) if bucket < end)
        return Assigned(unit, bucket, found.arm, found.revision)


def law_of(virtual_service: Mapping[str, Any]) -> Law:
    """Return the law that a VirtualService of ours carries out for requests with a unit.

    The weights are those of its destinations, which the gateway goes by, not those that were meant.

    Raises:
        LawUnknown: It is not one that this version writes.
    """
    route = read_route(virtual_service)
    pieces = tuple(_pieces(virtual_service))
    if route is None or sum(piece.width for piece in pieces) != BUCKETS:
        metadata = virtual_service["metadata"]
        where = f"VirtualService {metadata['namespace']}/{metadata['name']}"
        raise LawUnknown(f"{where}: is not one that this version writes; use the fairlead of the operator's release")
    meant = [(piece.variant, piece.revision, piece.width_bp) for piece in route.split if piece.width_bp]
    return Law(route.salt, pieces, altered=meant != [(p.arm, p.revision, p.width) for p in pieces])


def _pieces(virtual_service: Mapping[str, Any]) -> Iterator[Piece]:
    for route in virtual_service.get("spec", {}).get("http", ()):
        if not route.get("name", "").endswith(f".{Protocol.HTTP}.{Split.UNIT}"):
            continue
        for entry in route.get("route", ()):
            arm = entry.get("headers", {}).get("request", {}).get("set", {}).get(VARIANT_HEADER, "")
            revision = entry["destination"]["host"].split("-predictor.")[0]
            if entry.get("weight"):
                yield Piece(arm.replace("%%", "%"), revision, int(entry["weight"]))
