"""What must hold at every single write: watched from behind the API server."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import xxhash

from fairlead import BUCKETS
from support.gateway_stand_in import StandInGateway
from support.kube import KubeApiServer, Record

UNITS = tuple(f"u{number}" for number in range(120))
_ROUTES = {"virtualservices", "envoyfilters"}


Memory = tuple[list[dict[str, int]], dict[str, set[str]]]


class LawBroken(AssertionError):
    """A write has broken a law of routes."""


@dataclass
class RouteLaws:
    """Looks at the cluster after each write of a VirtualService or an EnvoyFilter."""

    server: KubeApiServer
    gateway: StandInGateway
    ramps: bool = False
    """Whether treatments may only grow at present."""
    forgives_losses: bool = False
    """Whether a treatment may stay in the route though none of its pods is available (for a while)."""
    seen: list[dict[str, int]] = field(default_factory=list)
    """Weights by revision after each write of a VirtualService, repetitions left out."""
    _arms: dict[str, set[str]] = field(default_factory=dict)

    def install(self) -> None:
        """Look from now on."""
        self.server.after_write.append(self.look)

    async def look(self, record: Record) -> None:
        """Check what a write has brought about.

        Raises:
            LawBroken: A law is broken.
        """
        if record.call.plural not in _ROUTES or not record.changed:
            return
        if record.call.plural == "virtualservices":
            self._check_widths(record)
            self._check_ready(record)
            self._check_ramp(record)
            self._check_law(record)
        elif record.call.verb == "delete":
            self._check_whole(record)
        self._check_hazard()

    @property
    def memory(self) -> Memory:
        """What later writes are compared with."""
        return list(self.seen), {arm: set(units) for arm, units in self._arms.items()}

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self.seen, self._arms = list(memory[0]), {arm: set(units) for arm, units in memory[1].items()}

    def _check_widths(self, record: Record) -> None:
        for route in _http(record.object_after):
            widths = [one["weight"] for one in route.get("route", ())]
            if widths and sum(widths) != BUCKETS:
                raise LawBroken(f"weights of {route['name']} sum to {sum(widths)}: {record}")

    def _check_hazard(self) -> None:
        for live in self.server.objects("VirtualService"):
            for route in _http(live):
                if "route" in route and len(route["route"]) < 2 and self.gateway.policy(route["name"]):
                    raise LawBroken(f"{route['name']} has one destination and a filter")

    def _check_ready(self, record: Record) -> None:
        before, after = shares(record.object_before), shares(record.object_after)
        if after and after != (self.seen[-1] if self.seen else None):
            self.seen.append(after)
        if not after:
            return
        for revision, width in after.items():
            deployment = self.server.get("Deployment", record.call.namespace, f"{revision}-predictor")
            status = (deployment or {}).get("status", {})
            available, replicas = status.get("availableReplicas", 0), (deployment or {"spec": {}})["spec"]
            complete = available and available == status.get("updatedReplicas") == replicas.get("replicas")
            if width > before.get(revision, 0) and "logistic" not in revision and not complete:
                raise LawBroken(f"{revision} grew to {width} though it is not complete: {record}")
            if width and not available and "logistic" not in revision and not self.forgives_losses:
                raise LawBroken(f"{revision} has {width} and no pod: {record}")

    def _check_ramp(self, record: Record) -> None:
        after = record.object_after
        if after is None or not self.ramps:
            self._arms.clear()
            return
        salt = _salt(after)
        if salt is None:
            return
        for unit in UNITS:
            arm = _arm(after, salt, unit)
            if arm is None or "logistic" in arm:
                continue
            self._arms.setdefault(arm, set()).add(unit)
        for arm, units in self._arms.items():
            for unit in units:
                if _arm(after, salt, unit) != arm:
                    raise LawBroken(f"{unit} has left {arm}: {record}")

    def _check_law(self, record: Record) -> None:
        """Where a split grows or is observed, the gateway must split by the law."""
        after, before = record.object_after, shares(record.object_before)
        grows = any(width > before.get(revision, 0) for revision, width in shares(after).items())
        if not _is_split(after) or not (grows or "x-fairlead-experiment" in _sent(after)):
            return
        for route in _http(after):
            if route["name"].endswith((".unit", ".cookie")) and self.gateway.policy(route["name"]) is None:
                raise LawBroken(f"{route['name']} is split and has no filter: {record}")

    def _check_whole(self, record: Record) -> None:
        """A filter goes only where nothing is split any more."""
        for live in self.server.objects("VirtualService"):
            for route in _http(live):
                gone = route["name"] in (record.before or b"").decode() and self.gateway.policy(route["name"]) is None
                if gone and _is_split(live):
                    raise LawBroken(f"{route['name']} is split and its filter was taken away: {record}")


def unit_route(service: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the route of REST requests with a unit."""
    return next((route for route in _http(service) if route["name"].endswith(".http.unit")), None)


def shares(service: dict[str, Any] | None) -> dict[str, int]:
    """Return weights by revision of requests with a unit, basis points; empty without a route."""
    found: dict[str, int] = {}
    for one in (unit_route(service) or {"route": ()})["route"]:
        revision = one["destination"]["host"].split("-predictor.")[0]
        found[revision] = found.get(revision, 0) + one["weight"]
    return found


def _is_split(service: dict[str, Any] | None) -> bool:
    return max(shares(service).values(), default=BUCKETS) < BUCKETS


def _sent(service: dict[str, Any] | None) -> set[str]:
    """Return the names of headers that the split of units sets on requests."""
    entries = (unit_route(service) or {"route": ()})["route"]
    return {name for one in entries for name in one["headers"]["request"].get("set", {})}


def _http(service: dict[str, Any] | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (service or {}).get("spec", {}).get("http", [])
    return found


def _salt(service: dict[str, Any]) -> str | None:
    text = service["metadata"].get("annotations", {}).get("serving.fairlead.dev/route")
    return None if text is None else str(json.loads(text)["salt"])


def _arm(service: dict[str, Any], salt: str, unit: str) -> str | None:
    bucket = xxhash.xxh64_intdigest(f"{salt}:{unit}".encode()) % BUCKETS
    for one in (unit_route(service) or {"route": ()})["route"]:
        bucket -= one["weight"]
        if bucket < 0:
            return str(one["destination"]["host"].split("-predictor.")[0])
    return None
