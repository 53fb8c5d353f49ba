"""What the core's actions mean in a cluster: one deployment, for the time of one reconcile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.route import RouteKey
from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired, Revision
from fairlead_operator.core.observed import Filter, Observed, Problem, Route
from fairlead_operator.core.plan import (
    Action,
    InstallFilter,
    ProveFilter,
    RemoveFilter,
    Replicas,
    ScaleServer,
    StartServer,
    StopServer,
    WriteRoute,
    wanted_revisions,
)
from fairlead_operator.core.record import Record, dumped
from fairlead_operator.core.signature import Signature, misfit
from fairlead_operator.platforms.kubernetes.addresses import in_url
from fairlead_operator.platforms.kubernetes.errors import Stale
from fairlead_operator.platforms.kubernetes.gateways import Gateways, Selected
from fairlead_operator.platforms.kubernetes.kinds import (
    ENVOY_FILTER,
    GROUP,
    INFERENCE_SERVICE,
    POD,
    REVISION_LABEL,
    VIRTUAL_SERVICE,
)
from fairlead_operator.platforms.kubernetes.prove import Prover
from fairlead_operator.platforms.kubernetes.render.covers import covers
from fairlead_operator.platforms.kubernetes.render.envoy_filter import envoy_filter
from fairlead_operator.platforms.kubernetes.render.inference_service import inference_service
from fairlead_operator.platforms.kubernetes.render.names import Place, image_of
from fairlead_operator.platforms.kubernetes.render.pods import HTTP_PORT
from fairlead_operator.platforms.kubernetes.render.route_text import read_route
from fairlead_operator.platforms.kubernetes.render.virtual_service import virtual_service
from fairlead_operator.platforms.kubernetes.reports import Address, Notice, Reports, Told, mismatch
from fairlead_operator.platforms.kubernetes.servers import Absences, Look, servers
from fairlead_operator.platforms.kubernetes.store import Objects
from fairlead_operator.platforms.kubernetes.writer import Writer
from fairlead_operator.runtime.keys import ObjectKey

RECORD_ANNOTATION = f"{GROUP}/rollout"
"""On the VirtualService: what the rollout remembers, a second copy."""

LAW_ANNOTATION = f"{GROUP}/law"
"""On an EnvoyFilter: what it was written for, see ``Route.law``."""

PROVEN_ANNOTATION = f"{GROUP}/proven"
"""On an EnvoyFilter: the law that known units were seen to obey."""


@dataclass(slots=True)
class ClusterPlatform:
    """One deployment in a cluster."""

    place: Place
    desired: Desired
    record: Record
    """What is remembered; the reconcile advances it."""
    key: RouteKey
    gateways: Gateways
    problems: tuple[Problem, ...]
    objects: Objects
    writer: Writer
    prover: Prover
    reports: Reports
    absences: Absences
    now_s: float
    grace_s: float
    notice: Notice | None = None
    """What servers are told of feedback; None if that is nothing."""
    route_version: str | None = None
    """Version of the VirtualService that was last looked at."""
    has_written_route: bool = False
    """Whether this pass has: the gateway follows a moment later, so no server is taken down in the same pass."""

    @property
    def owner(self) -> ObjectKey:
        """The ModelDeployment."""
        return ObjectKey(self.place.namespace, self.place.name)

    async def observe(self) -> Observed:
        """Return the world as the store has it."""
        live = None if self.objects.is_missing(VIRTUAL_SERVICE) else await self.writer.live(VIRTUAL_SERVICE, self.owner)
        own = live if live is not None and self.writer.is_ours(live) else None
        route = read_route(own) if own is not None else None
        self.route_version = live["metadata"]["resourceVersion"] if live is not None else None
        found = servers(self.owner, self._look(route), self.absences, await self._unlabelled(route))
        desired = compared(self.desired, self.record)
        told = {name: self._told(name) for name in found}
        wrong = misfit(desired.design, self._signatures(told))
        return Observed(
            servers=found,
            route=route,
            route_altered=own is not None and (route is None or not covers(own, self._virtual_service(route))),
            filter=self._filter(route),
            mismatched=mismatch(told.values()) if desired.experiment_id else None,
            problems=self.problems if wrong is None else (*self.problems, wrong),
        )

    def _signatures(self, told: Mapping[str, Told]) -> dict[str, Signature]:
        """Return what models take and answer, by variant and by revision, as far as servers have told."""
        known = {name: one.signature for name, one in told.items()}
        wanted = {variant: revision.name for variant, revision in self.desired.revisions.items()}
        return known | {variant: known[name] for variant, name in wanted.items() if name in known}

    async def _unlabelled(self, route: Route | None) -> list[Mapping[str, Any]]:
        """Return the InferenceServices of the route that somebody took our labels off: they answer as before."""
        known = {live["metadata"]["name"] for live in self.objects.owned(INFERENCE_SERVICE, self.owner)}
        named = sorted(route.revisions - known) if route and not self.objects.is_missing(INFERENCE_SERVICE) else ()
        found = [await self.writer.live(INFERENCE_SERVICE, ObjectKey(self.place.namespace, name)) for name in named]
        return [live for live in found if live is not None]

    async def apply(self, action: Action) -> None:
        """Carry out one action; see ``Platform.apply``.

        Raises:
            Obstacle: Something that is not ours stands in the way, or no gateway takes a host.
            KubeError: The API refuses, or does not answer.
            GatewayError: A gateway does not obey the assignment law.
        """
        match action:
            case StartServer(revision, _, replicas) | ScaleServer(revision, replicas):
                await self.writer.ensure(INFERENCE_SERVICE, self._inference_service(revision, replicas))
            case WriteRoute(route):
                await self._write_route(route)
            case InstallFilter() | ProveFilter() if not self.gateways.selected:
                pass  # nothing to stand beside, nobody to ask: the missing Gateway is told already
            case InstallFilter(route):
                await self._write_filters(route, proven=False)
            case ProveFilter(route):
                await self.prover.prove(route, self.key, self.gateways.entries)
                await self._write_filters(route, proven=True)
            case RemoveFilter():
                for live in self.objects.owned(ENVOY_FILTER, self.owner):
                    await self.writer.delete(ENVOY_FILTER, live)
            case StopServer(name):
                await self._stop(name)

    async def _write_route(self, route: Route) -> None:
        """Write the route, if it is still the one that this was planned from."""
        live = self.objects.get(VIRTUAL_SERVICE, self.owner)
        if live is not None and self.route_version not in {None, live["metadata"]["resourceVersion"]}:
            raise Stale(f"{VIRTUAL_SERVICE} {self.owner} has changed since it was looked at")
        await self.writer.ensure(VIRTUAL_SERVICE, self._virtual_service(route), fenced=True)
        self.has_written_route = True

    async def _stop(self, name: str) -> None:
        if self.has_written_route:
            return
        live = self.objects.get(INFERENCE_SERVICE, ObjectKey(self.place.namespace, name))
        if live is not None and not live["metadata"].get("deletionTimestamp"):
            await self.writer.delete(INFERENCE_SERVICE, live)

    async def changed(self, timeout_s: float) -> bool:
        """Return at once: here the watches wake the queue."""
        del timeout_s
        return False

    def addresses(self, revision: str) -> list[Address]:
        """Return where the pods of ``revision`` answer."""
        found = []
        for pod in self.objects.owned(POD, self.owner):
            metadata, address = pod["metadata"], pod.get("status", {}).get("podIP")
            ready = any(
                one.get("type") == "Ready" and one.get("status") == "True"
                for one in pod.get("status", {}).get("conditions", [])
            )
            if metadata["labels"].get(REVISION_LABEL) != revision or not address or not ready:
                continue
            url = f"http://{in_url(address)}:{HTTP_PORT}/v2/models/{self.desired.reach.model_name}"
            found.append(Address(revision, metadata["uid"], url))
        return found

    def _look(self, route: Route | None) -> Look:
        weighted = {d.revision for d in route.split if d.width_bp} if route else set()
        return Look(
            objects=self.objects,
            now_s=self.now_s,
            grace_s=self.grace_s,
            generation=self.desired.generation,
            altered=self._is_altered,
            told=self._told,
            informed=lambda revision: self.reports.informed(self.addresses(revision), self.notice),
            ours=self.writer.is_ours,
            in_route=frozenset(weighted),
        )

    def _told(self, revision: str) -> Told:
        return self.reports.told(self.addresses(revision), compared(self.desired, self.record).salt)

    def _is_altered(self, name: str, live: Mapping[str, Any]) -> bool:
        """Return whether an InferenceService is not what was rendered, replica bounds aside."""
        revision = wanted_revisions(self.desired, self.record).get(name)
        if revision is None:
            return False
        predictor = live.get("spec", {}).get("predictor", {})
        fewest = int(predictor.get("minReplicas", 1))
        replicas = Replicas(fewest, int(predictor.get("maxReplicas", fewest)), self._cpu_percent(revision))
        return not covers(live, self._inference_service(revision, replicas))

    def _cpu_percent(self, revision: Revision) -> int:
        scaling = self.desired.scaling.get(revision.variant)
        return scaling.target.cpu_percent if scaling else 70

    def _inference_service(self, revision: Revision, replicas: Replicas) -> dict[str, Any]:
        live = self.objects.get(INFERENCE_SERVICE, ObjectKey(self.place.namespace, revision.name))
        return inference_service(
            self.place,
            revision,
            min_replicas=replicas.fewest,
            max_replicas=replicas.most,
            cpu_percent=replicas.cpu_percent,
            image=image_of(live) if live is not None else None,
        )

    def _virtual_service(self, route: Route) -> dict[str, Any]:
        return virtual_service(self.place, route, self.key, annotations={RECORD_ANNOTATION: dumped(self.record)})

    def _filter(self, route: Route | None) -> Filter | None:
        """Return the filter that stands beside every selected gateway; None unless all do, as they were written."""
        lives = {live["metadata"]["namespace"]: live for live in self.objects.owned(ENVOY_FILTER, self.owner)}
        if not lives:
            return None
        laws = {_annotation(live, LAW_ANNOTATION) for live in lives.values()}
        wanted = {selected.namespace for selected in self.gateways.selected}
        if len(laws) != 1 or not wanted <= lives.keys():
            return Filter("incomplete", proven=False)
        law = str(laws.pop())
        if route is not None and route.law == law:
            for selected in self.gateways.selected:
                live = lives[selected.namespace]
                proven = _annotation(live, PROVEN_ANNOTATION) == law
                if not covers(live, self._envoy_filter(route, selected, proven=proven)):
                    return Filter("altered", proven=False)
        return Filter(law, proven=all(_annotation(live, PROVEN_ANNOTATION) == law for live in lives.values()))

    async def _write_filters(self, route: Route, *, proven: bool) -> None:
        for selected in self.gateways.selected:
            await self.writer.ensure(ENVOY_FILTER, self._envoy_filter(route, selected, proven=proven))

    def _envoy_filter(self, route: Route, selected: Selected, *, proven: bool) -> dict[str, Any]:
        annotations = {LAW_ANNOTATION: route.law, PROVEN_ANNOTATION: route.law if proven else ""}
        return envoy_filter(self.place, route, selected.namespace, selected.selector, annotations=annotations)


def _annotation(live: Mapping[str, Any], name: str) -> str | None:
    found = (live["metadata"].get("annotations") or {}).get(name)
    return found if isinstance(found, str) else None
