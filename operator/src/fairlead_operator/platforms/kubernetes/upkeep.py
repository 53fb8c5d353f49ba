"""Everything of a deployment that has no order: made before or after the plan, and removed when nobody wants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fairlead.route import RouteKey
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.plan import wanted_revisions
from fairlead_operator.core.record import Record
from fairlead_operator.platforms.kubernetes.api import Resource
from fairlead_operator.platforms.kubernetes.gateways import Gateways, claim_issuers
from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    CLUSTER_STORAGE_CONTAINER,
    DESTINATION_RULE,
    ENVOY_FILTER,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SERVING_RUNTIME,
    Kind,
)
from fairlead_operator.platforms.kubernetes.render.destination_rule import destination_rules
from fairlead_operator.platforms.kubernetes.render.names import STORAGE_CONTAINER, Place, image_of, runtime_name
from fairlead_operator.platforms.kubernetes.render.policies import (
    authorization_policy,
    network_policy,
    pod_disruption_budget,
)
from fairlead_operator.platforms.kubernetes.render.serving_runtime import serving_runtime
from fairlead_operator.platforms.kubernetes.render.storage_container import storage_container
from fairlead_operator.platforms.kubernetes.render.unanswered_filter import unanswered_filter
from fairlead_operator.platforms.kubernetes.store import Objects
from fairlead_operator.platforms.kubernetes.writer import Obstacle, Writer
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.settings import Settings

_PRUNED = (DESTINATION_RULE, POD_DISRUPTION_BUDGET, AUTHORIZATION_POLICY, ENVOY_FILTER)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Keeps one deployment's other objects."""

    place: Place
    objects: Objects
    writer: Writer
    settings: Settings

    async def before(self, desired: Desired, record: Record) -> None:
        """Make what servers need before they are made: KServe looks for runtimes once, then with growing pauses.

        Raises:
            OperatorError: An object cannot be written.
        """
        revisions = wanted_revisions(desired, record)
        releases = dict.fromkeys(revision.release for revision in revisions.values())
        if not self.objects.is_missing(CLUSTER_STORAGE_CONTAINER) and releases:
            await self._ensure_storage_container()
        for release in releases:
            live = self.objects.get(SERVING_RUNTIME, ObjectKey(self.place.namespace, runtime_name(release)))
            manifest = serving_runtime(self.place, release, image=image_of(live) if live else None)
            await self.writer.ensure(SERVING_RUNTIME, manifest, shared=True)

    async def after(
        self, desired: Desired, record: Record, observed: Observed, gateways: Gateways, key: RouteKey
    ) -> None:
        """Make the rest, then remove what nobody wants any more.

        Raises:
            OperatorError: An object cannot be written.
        """
        wanted: dict[Kind, set[ObjectKey]] = {kind: set() for kind in _PRUNED}
        obstacle: Obstacle | None = None
        for kind, manifest in self._manifests(desired, record, observed, gateways, key):
            if self.objects.is_missing(kind):
                continue
            if kind in wanted:
                wanted[kind].add(ObjectKey(manifest["metadata"]["namespace"], manifest["metadata"]["name"]))
            try:
                await self.writer.ensure(kind, manifest)
            except Obstacle as error:  # the others have nothing to do with it
                obstacle = obstacle or error
        # The plan decides about filters beside the gateways; elsewhere none is wanted.
        wanted[ENVOY_FILTER] |= {ObjectKey(s.namespace, self.place.foreign_name) for s in gateways.selected}
        if gateways.missing:  # its pods may be back in a moment: what guards them stays
            for kind in (ENVOY_FILTER, AUTHORIZATION_POLICY, NETWORK_POLICY):
                wanted.pop(kind, None)
        await self._prune(wanted)
        await self._log(desired, observed, gateways)
        if obstacle is not None:
            raise obstacle

    def _manifests(
        self, desired: Desired, record: Record, observed: Observed, gateways: Gateways, key: RouteKey
    ) -> Iterator[tuple[Kind, Resource]]:
        revisions = wanted_revisions(desired, record)
        namespaces = [
            *(selected.namespace for selected in gateways.selected),
            self.settings.own_namespace or "",
            self.settings.monitoring_namespace,
        ]
        known = self.objects.get(NETWORK_POLICY, ObjectKey(self.place.namespace, self.place.name)) is not None
        if not (gateways.missing and known):
            if gateways.missing:
                namespaces.append(self.settings.gateway_namespace)
            yield NETWORK_POLICY, network_policy(self.place, filter(None, namespaces))
        for revision in revisions.values():
            yield POD_DISRUPTION_BUDGET, pod_disruption_budget(self.place, revision.variant, revision.name)
        for rule in destination_rules(self.place, desired.reach, revisions):
            yield DESTINATION_RULE, rule
        unit = desired.reach.unit
        if unit.jwt_claim is not None and observed.route is not None:
            for selected in gateways.selected:
                where = (selected.namespace, selected.selector)
                issuers = claim_issuers(self.objects, selected, unit.jwt_claim, unit.header)
                policy = authorization_policy(self.place, observed.route, key, *where, issuers=issuers)
                yield AUTHORIZATION_POLICY, policy

    async def _log(self, desired: Desired, observed: Observed, gateways: Gateways) -> None:
        """Have the gateways log requests that no server answered, once there is an experiment to be told of."""
        ledger = desired.ledger or self.settings.ledger_url
        compares = desired.design is not None or (observed.route is not None and observed.route.observation is not None)
        if not (self.settings.gateway_log and compares and ledger) or self.objects.is_missing(ENVOY_FILTER):
            return
        for selected in gateways.selected:
            manifest = unanswered_filter(selected.namespace, selected.selector)
            await self.writer.ensure(ENVOY_FILTER, manifest, shared=True)

    async def _ensure_storage_container(self) -> None:
        live = self.objects.get(CLUSTER_STORAGE_CONTAINER, ObjectKey("", STORAGE_CONTAINER)) or {}
        image = live.get("spec", {}).get("container", {}).get("image")
        # Any release of ours fetches alike, so the image that it was made with stays.
        manifest = storage_container(image or self.place.image(self.settings.default_release))
        await self.writer.ensure(CLUSTER_STORAGE_CONTAINER, manifest, shared=True)

    async def _prune(self, wanted: dict[Kind, set[ObjectKey]]) -> None:
        owner = ObjectKey(self.place.namespace, self.place.name)
        for kind, keys in wanted.items():
            for live in self._owned(kind, owner):
                metadata = live["metadata"]
                if ObjectKey(metadata.get("namespace", ""), metadata["name"]) not in keys and self.writer.is_ours(live):
                    await self.writer.delete(kind, live)

    def _owned(self, kind: Kind, owner: ObjectKey) -> Iterable[Resource]:
        return () if self.objects.is_missing(kind) else self.objects.owned(kind, owner)
