"""The controller of ModelDeployments in a cluster: read, advance, plan, apply, prune, report; one key at a time."""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import aiohttp

from fairlead.feedback.serving import Feedback, FeedbackError
from fairlead.route import RouteKey
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.api.objects import from_object
from fairlead_operator.api.v1alpha1 import ModelDeployment, Url
from fairlead_operator.assembly import Access
from fairlead_operator.core.desired import Desired, desired_from
from fairlead_operator.core.evidence import Evidence
from fairlead_operator.core.observed import Filter, Observed, Problem
from fairlead_operator.core.plan import WriteRoute, parting
from fairlead_operator.core.record import Record, dumped, loaded
from fairlead_operator.core.status import Surroundings, iso, status_of
from fairlead_operator.core.timing import next_look_s
from fairlead_operator.errors import GatewayError, ManifestError, OperatorError
from fairlead_operator.platforms.kubernetes.api import Resource
from fairlead_operator.platforms.kubernetes.errors import NotFound
from fairlead_operator.platforms.kubernetes.feedback import FeedbackFiles, KeysUnreadable
from fairlead_operator.platforms.kubernetes.gateways import GatewayFinder, Gateways, Hosts
from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    CONFIG_MAP,
    ENVOY_FILTER,
    FINALIZER,
    PARENT,
    SECRET,
    VIRTUAL_SERVICE,
    Kind,
)
from fairlead_operator.platforms.kubernetes.platform import RECORD_ANNOTATION, ClusterPlatform
from fairlead_operator.platforms.kubernetes.prerequisites import Prerequisites
from fairlead_operator.platforms.kubernetes.prove import Prover
from fairlead_operator.platforms.kubernetes.publish import Publisher
from fairlead_operator.platforms.kubernetes.render.covers import covers
from fairlead_operator.platforms.kubernetes.render.inference_service import pod_identity
from fairlead_operator.platforms.kubernetes.render.names import Place, owned
from fairlead_operator.platforms.kubernetes.render.route_text import read_route
from fairlead_operator.platforms.kubernetes.render.serving import read_feedback, read_keys, serving_secret
from fairlead_operator.platforms.kubernetes.render.virtual_service import virtual_service
from fairlead_operator.platforms.kubernetes.reports import UNINFORMED_S, Notice, Reports
from fairlead_operator.platforms.kubernetes.servers import Absences
from fairlead_operator.platforms.kubernetes.unanswered.logs import GatewayLogs
from fairlead_operator.platforms.kubernetes.unanswered.minutes import Told
from fairlead_operator.platforms.kubernetes.upkeep import Upkeep
from fairlead_operator.platforms.kubernetes.writer import Obstacle, Writer
from fairlead_operator.runtime.evidence import EvidenceSource
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.reconciler import reconcile

_log = logging.getLogger(__name__)

_KEY_BYTES = 32
_NO_KEY = RouteKey("none", bytes(_KEY_BYTES))
"""Where nothing is signed."""
_KEY_REMEMBERED_S = 5.0
_PROOF_PATIENCE_S = 8.0
_PROBLEM_LOOK_S = 30.0
_NOT_WATCHED = frozenset({Reason.FEATURE_STORE_NOT_FOUND, Reason.GATEWAY_NOT_FOUND, Reason.FAULT_NOT_ALLOWED})
"""Problems that end without an event: what they are about is looked for, not watched."""
_RECORD_FILE = "rollout.json"


@dataclass(frozen=True, slots=True)
class _Served:
    """What the Secret of a deployment was seen to hold."""

    seen_s: float
    uid: str
    """Of the deployment."""
    key: RouteKey
    feedback: str | None
    notice: Notice | None
    """What servers say that have read ``feedback``; None if there is nothing to read."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """One ModelDeployment and its surroundings, as one reconcile reads them."""

    resource: Resource
    deployment: ModelDeployment
    desired: Desired
    place: Place
    record: Record
    gateways: Gateways
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class ModelDeploymentController:
    """Reconciles ModelDeployments. What it keeps in memory it can do without."""

    access: Access
    session: aiohttp.ClientSession
    """For probes through gateways and servers' reports."""
    finder: GatewayFinder
    reports: Reports
    evidence: EvidenceSource
    feedback: FeedbackFiles
    logs: GatewayLogs
    hosts: Hosts = field(init=False)
    _knows_hosts: bool = False
    _absences: dict[ObjectKey, Absences] = field(default_factory=dict)
    _pauses: dict[ObjectKey, float] = field(default_factory=dict)
    """Since when what is paused is, Unix time; the status says it, too."""
    _route_keys: dict[ObjectKey, _Served] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Know where routes are."""
        self.hosts = Hosts(self._reached)

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Reconcile one ModelDeployment; see ``runtime.keys.Controller``."""
        self._know_hosts()
        resource = self.access.objects.get(PARENT.kind, key)
        if resource is None:
            self._forget(key)
            return None
        if resource["metadata"].get("deletionTimestamp"):
            await self._part(key, resource)
            return None
        try:
            deployment = from_object(resource)
        except ManifestError as error:
            await Publisher(self.access, resource).publish_invalid(str(error), self._now_s)
            return None
        reading = await self._read(key, resource, deployment)
        await self._watch_logs(key, reading)
        if reading.desired.paused:
            await self._tell_paused(reading)
            return None
        return await self._carry_out(key, reading)

    async def _carry_out(self, key: ObjectKey, reading: _Reading) -> float | None:
        writer = self._writer(reading.place)
        platform = self._platform(key, reading, writer)
        try:
            hindered = await self._prepare(key, reading, platform, writer)
            observed, problem = await self._pass(reading, platform, writer)
            problem = problem or hindered
        except OperatorError as error:
            if error.ends_pass:
                raise
            observed, problem = await platform.observe(), error
        if problem is not None and problem.ends_pass:
            raise problem
        await self._publish(reading, platform, observed, problem)
        self._refresh_reports(key, platform, observed)
        due_s = self._next_look_s(key, reading, platform, observed)
        if problem is None:
            return due_s
        if due_s is not None:  # what falls due by time does not wait for the problem's next try
            self.access.enqueue_after(key, due_s)
        raise problem

    async def _prepare(
        self, key: ObjectKey, reading: _Reading, platform: ClusterPlatform, writer: Writer
    ) -> OperatorError | None:
        """Make what a pass builds upon; return what could not be made, and hold back only what needs it."""
        hindered: OperatorError | None = None
        try:
            platform.key = await self._serve(key, reading, writer)
            platform.notice = self._route_keys[key].notice
        except OperatorError as error:
            if error.ends_pass:
                raise
            hindered = error
            known = self._route_keys.get(key)
            platform.key = known.key if known is not None and known.uid == reading.place.uid else _NO_KEY
            platform.notice = known.notice if known is not None else None
            keyless = platform.key is _NO_KEY
            platform.problems += (replace(_problem_of(error), stops_route=keyless),)
        if not any(found.stops_servers for found in platform.problems):
            try:
                await self._upkeep(reading, writer).before(reading.desired, reading.record)
            except OperatorError as error:
                if error.ends_pass:
                    raise
                hindered = hindered or error
                platform.problems += (replace(_problem_of(error), stops_servers=True),)
        return hindered

    async def _watch_logs(self, key: ObjectKey, reading: _Reading) -> None:
        """Have the ledger told of what no server answers while the route in force observes an experiment."""
        live = self.access.objects.get(VIRTUAL_SERVICE, key)
        route = read_route(live) if live is not None else None
        if not self.access.settings.gateway_log or route is None or route.observation is None:
            if reading.record.run is None or reading.record.run.is_over:
                self.logs.forget(key)
            return
        try:
            feedback = self.feedback.of(reading.desired)
            known = self._route_keys.get(key)
            route_key = known.key if known is not None else await self._last_key(key, reading.place)
        except OperatorError as error:
            _log.info("the gateways' logs are not read yet", extra={"deployment": str(key), "error": str(error)[:300]})
            return
        if feedback is None or route_key is None:
            self.logs.forget(key)
            return
        told = Told(key, route.observation.salt, feedback.ledger, feedback.api_key, feedback.keys, (route_key,))
        self.logs.watch(told, reading.gateways.selected)

    def _upkeep(self, reading: _Reading, writer: Writer) -> Upkeep:
        return Upkeep(reading.place, self.access.objects, writer, self.access.settings)

    async def _pass(
        self, reading: _Reading, platform: ClusterPlatform, writer: Writer
    ) -> tuple[Observed, OperatorError | None]:
        """Bring the cluster a step nearer; return what is there then, and what stopped it."""
        if any(found.reason is Reason.HOST_CONFLICT and found.stops_route for found in platform.problems):
            await self._leave(platform.owner, reading.place, writer)
        if not any(found.stops_route for found in platform.problems):
            await self._hold_on(reading)

        async def remember(record: Record) -> None:
            manifest = owned(CONFIG_MAP, reading.place, _record_name(reading.place))
            manifest["data"] = {_RECORD_FILE: dumped(record)}
            await writer.ensure(CONFIG_MAP, manifest, fenced=True)
            platform.record = record

        outcome = await reconcile(
            platform,
            reading.desired,
            reading.record,
            now_s=platform.now_s,
            remember=remember,
            evidence=self._evidence(reading.desired, reading.record),
        )
        if outcome.problem is not None and outcome.problem.ends_pass:
            return outcome.observed, outcome.problem
        await remember(outcome.record)  # restored if somebody has removed it
        await self._upkeep(reading, writer).after(
            reading.desired, outcome.record, outcome.observed, reading.gateways, platform.key
        )
        return outcome.observed, outcome.problem

    async def _read(self, key: ObjectKey, resource: Resource, deployment: ModelDeployment) -> _Reading:
        settings = self.access.settings
        record = self._record(key, deployment)
        desired = desired_from(deployment, record.release, pod_identity)
        hosts = desired.reach.hosts or (f"{key.name}.{key.namespace}.{settings.host_domain}",)
        names = desired.reach.gateways or (settings.gateway,)
        self._claim(key, resource["metadata"].get("creationTimestamp", ""), hosts, names)
        lost = self.hosts.lost(key)
        left = tuple(host for host in hosts if host not in lost)
        desired = replace(desired, reach=replace(desired.reach, hosts=left or hosts, gateways=names))
        gateways, unseen = await self._gateways(names, key.namespace)
        prerequisites = Prerequisites(self.access.api, self.access.objects, self.hosts)
        desired, faults = await prerequisites.allowed(key, desired)
        missing = await prerequisites.missing(key, deployment, desired, gateways)
        keyless = self.feedback.problem(desired)
        unread = self.logs.problem(key)
        problems = (*unseen, *missing, *faults, *([keyless] if keyless else []), *([unread] if unread else []))
        place = Place(key.namespace, key.name, resource["metadata"]["uid"], settings.server_image)
        return _Reading(resource, deployment, desired, place, record, gateways, problems)

    async def _gateways(self, names: Iterable[str], namespace: str) -> tuple[Gateways, tuple[Problem, ...]]:
        """Return what is known of the gateways; that they cannot be read is a problem like that they are not there."""
        try:
            return await self.finder.find(names, namespace), ()
        except OperatorError as error:
            if error.ends_pass:
                raise
            message = f"the gateways' pods and Services cannot be read: {error}"
            told = Problem(ConditionType.ROUTING_READY, Reason.REFUSED_BY_API, message, stops_growth=True)
            return Gateways(missing=tuple(names)), (told,)

    def _record(self, key: ObjectKey, deployment: ModelDeployment) -> Record:
        """Return what is remembered: from its ConfigMap, else from the route, else a fresh one."""
        kept = self.access.objects.get(CONFIG_MAP, ObjectKey(key.namespace, f"{key.name}-rollout"))
        found = loaded((kept or {}).get("data", {}).get(_RECORD_FILE, ""))
        if found is None:
            route = self.access.objects.get(VIRTUAL_SERVICE, key)
            annotations = (route["metadata"].get("annotations") or {}) if route else {}
            found = loaded(annotations.get(RECORD_ANNOTATION, ""))
        told = deployment.status.serving_release if deployment.status else None
        record = found or Record(deployment.spec.serving.release or told or self.access.settings.default_release)
        stamps = (_paused_since_s(deployment), self._pauses.get(key))
        return replace(record, paused_s=next((s for s in stamps if s not in {None, record.accounted_s}), None))

    def _platform(self, key: ObjectKey, reading: _Reading, writer: Writer) -> ClusterPlatform:
        settings = self.access.settings
        known = self._route_keys.get(key)
        return ClusterPlatform(
            place=reading.place,
            desired=reading.desired,
            record=reading.record,
            key=known.key if known else _NO_KEY,
            gateways=reading.gateways,
            problems=reading.problems,
            objects=self.access.objects,
            writer=writer,
            prover=Prover(self.session, settings.probe_timeout_s, _PROOF_PATIENCE_S, self.access.now),
            reports=self.reports,
            absences=self._absences.setdefault(key, Absences()),
            now_s=self._now_s,
            grace_s=settings.unavailable_grace_s,
        )

    async def _serve(self, key: ObjectKey, reading: _Reading, writer: Writer) -> RouteKey:
        """Have the deployment's Secret hold what its servers are told; return the key that signs experiment headers.

        That key is made with the deployment and lives in the Secret alone.

        Raises:
            KeysUnreadable: What servers are to be told is not known; they keep what they have.
            KubeError: The API refuses.
            Obstacle: The Secret is somebody else's.
        """
        place, known = reading.place, self._route_keys.get(key)
        unreadable: KeysUnreadable | None = None
        feedback = known.feedback if known is not None else None
        try:
            told = self.feedback.of(reading.desired)
            feedback = told.dumped() if told is not None else None
        except KeysUnreadable as error:
            unreadable = error
        if known is None or known.uid != place.uid:
            fresh = False
        else:
            fresh = known.feedback == feedback and self.access.now() - known.seen_s < _KEY_REMEMBERED_S
        if known is None or not fresh:
            known = await self._write_served(key, reading, writer, feedback, keep=unreadable is not None)
        if unreadable is not None:
            raise unreadable
        return known.key

    async def _write_served(
        self, key: ObjectKey, reading: _Reading, writer: Writer, feedback: str | None, *, keep: bool
    ) -> _Served:
        """Write the Secret if it differs; ``keep`` leaves there what it tells of feedback."""
        place, known = reading.place, self._route_keys.get(key)
        try:
            live: Resource | None = await self.access.api.get(SECRET, ObjectKey(key.namespace, place.serving_name))
        except NotFound:
            live = None
        keys = read_keys(live) if live is not None else ()
        if live is not None and not writer.is_ours(live):
            message = f"Secret {key.namespace}/{place.serving_name} belongs to somebody else; rename or delete it"
            raise Obstacle(Problem(ConditionType.ROUTING_READY, Reason.FOREIGN_OBJECT, message))
        # A Secret that somebody has removed or damaged gets the key back that signs what is on its way.
        before = known.key if known is not None and known.uid == place.uid else None
        route_key = keys[0] if keys else before or RouteKey("k1", secrets.token_bytes(_KEY_BYTES))
        there = read_feedback(live) if live is not None else None
        feedback = (there or feedback) if keep else feedback
        wanted = serving_secret(place, keys or [route_key], feedback)
        if live is None or not covers(live, wanted) or there != feedback:
            await self.access.api.apply(SECRET, wanted)
        now_s = self.access.now()
        if known is not None and known.uid == place.uid and known.feedback == feedback:
            notice = known.notice
        else:
            notice = _notice(feedback, now_s)
        served = self._route_keys[key] = _Served(now_s, place.uid, route_key, feedback, notice)
        return served

    async def _last_key(self, key: ObjectKey, place: Place) -> RouteKey | None:
        """Return the key of a deployment that goes: no other is made, in a namespace that may be going, too."""
        try:
            keys = read_keys(await self.access.api.get(SECRET, ObjectKey(key.namespace, place.serving_name)))
        except NotFound:
            return None
        return keys[0] if keys else None

    async def _hold_on(self, reading: _Reading) -> None:
        """Have the deployment's deletion wait for us, if anything of it will stand in another namespace."""
        metadata = reading.resource["metadata"]
        finalizers = metadata.get("finalizers", [])
        splits = bool(reading.desired.arms) or reading.desired.reach.unit.jwt_claim is not None
        if not splits or FINALIZER in finalizers:
            return
        written = await self.access.api.patch_metadata(
            PARENT.kind,
            ObjectKey(metadata["namespace"], metadata["name"]),
            {"finalizers": [*finalizers, FINALIZER]},
            resource_version=metadata["resourceVersion"],
        )
        self.access.keep(PARENT.kind, written)

    async def _part(self, key: ObjectKey, resource: Resource) -> None:
        """Take away what nothing owns, weights first; then let the deployment go."""
        finalizers = resource["metadata"].get("finalizers", [])
        if FINALIZER not in finalizers:
            return
        place = Place(key.namespace, key.name, resource["metadata"]["uid"], self.access.settings.server_image)
        writer = self._writer(place)
        await self._leave(key, place, writer)
        others = [one for one in finalizers if one != FINALIZER]
        version = resource["metadata"]["resourceVersion"]
        with contextlib.suppress(NotFound):  # gone already: we had not heard of it yet
            await self.access.api.patch_metadata(PARENT.kind, key, {"finalizers": others}, resource_version=version)

    async def _leave(self, key: ObjectKey, place: Place, writer: Writer) -> None:
        """Take a deployment off its gateways, weights first."""
        await self._withdraw(key, place, writer)
        for kind in (ENVOY_FILTER, VIRTUAL_SERVICE, AUTHORIZATION_POLICY):
            await self._remove(kind, key, writer)

    async def _withdraw(self, key: ObjectKey, place: Place, writer: Writer) -> None:
        """Give control every bucket, as long as the filter stands; whatever the spec says by now."""
        objects = self.access.objects
        if objects.is_missing(VIRTUAL_SERVICE):
            return
        live = await writer.live(VIRTUAL_SERVICE, key)
        route = read_route(live) if live is not None and writer.is_ours(live) else None
        standing = Filter("standing", proven=False) if objects.owned(ENVOY_FILTER, key) else None
        for action in parting(Observed({}, route, filter=standing)):
            if isinstance(action, WriteRoute):
                route_key = await self._last_key(key, place) or _NO_KEY
                await writer.ensure(VIRTUAL_SERVICE, virtual_service(place, action.route, route_key), fenced=True)

    async def _remove(self, kind: Kind, key: ObjectKey, writer: Writer) -> None:
        for live in self.access.objects.owned(kind, key):
            if writer.is_ours(live):
                await writer.delete(kind, live)

    async def _tell_paused(self, reading: _Reading) -> None:
        """Say that changes wait; nothing else is written."""
        told = reading.deployment.status
        conditions = told.conditions if told else ()
        said = any(
            c.reason is Reason.PAUSED and c.observed_generation == reading.desired.generation for c in conditions
        )
        if said and _paused_since_s(reading.deployment) == reading.record.paused_s is not None:
            return
        key = ObjectKey(reading.place.namespace, reading.place.name)
        platform = self._platform(key, reading, self._writer(reading.place))
        # The status alone says since when; whoever removes it while we live gets it back.
        since_s = self._pauses[key] = reading.record.paused_s or _stamp_s(iso(platform.now_s))
        platform.record = replace(reading.record, paused_s=since_s)
        await self._publish(reading, platform, await platform.observe(), None)

    async def _publish(
        self, reading: _Reading, platform: ClusterPlatform, observed: Observed, problem: OperatorError | None
    ) -> None:
        if problem is not None:
            observed = replace(observed, problems=(_problem_of(problem), *observed.problems))
        evidence = self._evidence(reading.desired, platform.record)  # a decision of this pass is told at once
        around = Surroundings(url=_url(reading), now_s=platform.now_s, evidence=evidence)
        status = status_of(reading.deployment, reading.desired, observed, platform.record, around)
        await Publisher(self.access, reading.resource).publish(status)
        if not reading.desired.paused:
            self._pauses.pop(ObjectKey(reading.place.namespace, reading.place.name), None)

    def _evidence(self, desired: Desired, record: Record) -> Evidence:
        key = ObjectKey(desired.namespace, desired.name)
        return self.evidence.look(desired, record, lambda: self.access.enqueue(key))

    def _refresh_reports(self, key: ObjectKey, platform: ClusterPlatform, observed: Observed) -> None:
        addresses = [address for revision in observed.servers for address in platform.addresses(revision)]
        self.reports.refresh(addresses, platform.notice, lambda: self.access.enqueue(key))

    def _next_look_s(
        self, key: ObjectKey, reading: _Reading, platform: ClusterPlatform, observed: Observed
    ) -> float | None:
        due = [
            next_look_s(reading.desired, observed, platform.record, platform.now_s),
            self._absences[key].due_s(platform.now_s, platform.grace_s),
            _PROBLEM_LOOK_S if any(problem.reason in _NOT_WATCHED for problem in observed.problems) else None,
            self.access.settings.report_interval_s if observed.route and observed.route.observation else None,
            self.evidence.due_s(key),
            UNINFORMED_S if _waits_for_pods(reading.desired, observed) else None,
        ]
        return min((one for one in due if one is not None), default=None)

    def _claim(self, key: ObjectKey, created: str, hosts: Iterable[str], gateways: Iterable[str]) -> None:
        before = self.hosts.rivals(key)
        self.hosts.claim(key, created, hosts, gateways)
        for rival in before ^ self.hosts.rivals(key):
            self.access.enqueue(rival)

    def _reached(self, key: ObjectKey) -> frozenset[tuple[str, str]]:
        """Return the gateways and hosts of a deployment's route in force."""
        route = read_route(self.access.objects.get(VIRTUAL_SERVICE, key) or {})
        return frozenset(itertools.product(route.reach.gateways, route.reach.hosts)) if route else frozenset()

    def _know_hosts(self) -> None:
        """Read once whose hosts are whose, so that the first reconcile after a start takes nobody's."""
        if self._knows_hosts:
            return
        self._knows_hosts = True
        settings = self.access.settings
        for key in self.access.objects.keys(PARENT.kind):
            resource = self.access.objects.get(PARENT.kind, key) or {"metadata": {}}
            routing = _mapping(_mapping(resource.get("spec")).get("routing"))
            hosts = _texts(routing.get("hosts")) or (f"{key.name}.{key.namespace}.{settings.host_domain}",)
            created = resource["metadata"].get("creationTimestamp", "")
            self.hosts.claim(key, created, hosts, _texts(routing.get("gateways")) or (settings.gateway,))

    def _forget(self, key: ObjectKey) -> None:
        rivals = self.hosts.rivals(key)
        self.hosts.release(key)
        self.logs.forget(key)
        self._absences.pop(key, None)
        self._pauses.pop(key, None)
        self._route_keys.pop(key, None)
        self.evidence.forget(key)
        for rival in rivals:
            self.access.enqueue(rival)

    def _writer(self, place: Place) -> Writer:
        return Writer(self.access.api, self.access.objects, self.access.keep, place)

    @property
    def _now_s(self) -> float:
        return self.access.clock.now_us() / 1e6


def _notice(feedback: str | None, now_s: float) -> Notice | None:
    """Return what servers are told by a text; None if that is nothing, or somebody else's that no server takes."""
    try:
        return Notice(Feedback.loaded(feedback).digest, now_s) if feedback is not None else None
    except FeedbackError:
        return None


def _waits_for_pods(desired: Desired, observed: Observed) -> bool:
    """Return whether an experiment cannot begin before pods know what servers are told of feedback."""
    has_begun = observed.route is not None and observed.route.observation is not None
    is_observed = desired.experiment_id is not None or desired.is_judged
    return is_observed and not has_begun and not observed.informed(observed.servers)


def _record_name(place: Place) -> str:
    return f"{place.name}-rollout"


def _problem_of(error: OperatorError) -> Problem:
    """Return what a failed write is told as."""
    if isinstance(error, Obstacle):
        return error.problem
    if isinstance(error, KeysUnreadable):
        return Problem(ConditionType.EXPERIMENT_HEALTHY, Reason.LEDGER_MISSING, str(error))
    reason = Reason.GATEWAY_REFUSED if isinstance(error, GatewayError) else Reason.REFUSED_BY_API
    condition = ConditionType.VARIANTS_READY if "serving.kserve.io" in str(error) else ConditionType.ROUTING_READY
    return Problem(condition, reason, str(error))


def _url(reading: _Reading) -> Url | None:
    for host, entry in itertools.product(reading.desired.reach.hosts, reading.gateways.entries):
        if entry.takes(host):
            scheme = "https" if entry.tls else "http"
            usual = entry.port == (443 if entry.tls else 80)
            return Url(
                rest=f"{scheme}://{host}" if usual else f"{scheme}://{host}:{entry.port}",
                grpc=f"{host}:{entry.port}",
                internal=entry.internal,
            )
    return None


def _paused_since_s(deployment: ModelDeployment) -> float | None:
    """Return since when the status says that all is paused, Unix time; a pause writes nothing else."""
    told = deployment.status.rollout.paused_at if deployment.status and deployment.status.rollout else None
    return _stamp_s(told) if told else None


def _stamp_s(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _texts(given: object) -> tuple[str, ...]:
    return tuple(one for one in given if isinstance(one, str)) if isinstance(given, list) else ()


def _mapping(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {}
