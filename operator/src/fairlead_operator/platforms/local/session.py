"""What ``fairlead up`` does: keep the world as one manifest file asks, until told to stop."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from fairlead.clock import Clock, ReplayClock, ReplayClockWriter, from_us
from fairlead_operator.api.conditions import Condition, ConditionType, Reason, stamped
from fairlead_operator.api.manifest import Manifest, read
from fairlead_operator.api.v1alpha1 import REQUEST_ANNOTATION, ModelDeployment, Scaling, Status, Url
from fairlead_operator.core.desired import Desired, desired_from, refuse_breaking_edit
from fairlead_operator.core.evidence import NO_EVIDENCE, Evidence
from fairlead_operator.core.observed import Health, Observed
from fairlead_operator.core.record import Record
from fairlead_operator.core.status import Surroundings, iso, status_of
from fairlead_operator.errors import EditRefused, ManifestError, PortTaken, ServerFailed, StateUnreadable
from fairlead_operator.platforms.local.envoy import UNANSWERED_LOG, Gateway
from fairlead_operator.platforms.local.evidence import LocalEvidence
from fairlead_operator.platforms.local.planned import planned_of
from fairlead_operator.platforms.local.platform import LocalPlatform, ServerSetup
from fairlead_operator.platforms.local.processes import ProcessRecord, end_leftovers
from fairlead_operator.platforms.local.state import State, locked
from fairlead_operator.runtime.reconciler import Outcome, reconcile

_WATCH_EVERY_S = 0.1
_RESYNC_S = 1.0
_REPLAY_RESYNC_S = 0.25
"""A replay's hours pass in milliseconds."""
_ANALYSE_EVERY_S = 5.0
_REPLAY_ANALYSE_EVERY_S = 1.0
_ONE_PROCESS = Scaling(min_replicas=1, max_replicas=1)
_HOPELESS_CRASHES = 3
"""Crashes before a first readiness after which starting up is given up."""


@dataclass(frozen=True, slots=True)
class Options:
    """How ``fairlead up`` was called."""

    manifest: Path
    host: str
    port: int
    state: Path
    replay: bool
    """Whether the time is a replay's."""
    server_command: Sequence[str]
    server_release: str
    """Release of the servers that ``server_command`` runs."""
    ledger_command: Sequence[str] = ()
    """Program that keeps an experiment's evidence, and its first arguments."""
    start_deadline_s: float = 120.0
    """Longest wait until every variant is ready for the first time."""


@dataclass(frozen=True, slots=True)
class _InForce:
    """What is being kept."""

    deployment: ModelDeployment
    desired: Desired
    record: Record


class Session:
    """One run of ``fairlead up``."""

    def __init__(
        self,
        options: Options,
        *,
        clock: Clock,
        report: Callable[[ModelDeployment], None],
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Describe the run.

        Args:
            options: How the command was called.
            clock: The machine's time, which counts unless a replay's does.
            report: Called with the resource and its status whenever that has changed.
            note: Called with a sentence that people should read once.
        """
        self._options = options
        self._clock = clock
        self._report = report
        self._note = note
        self._noted: set[tuple[str, int, bool, bool]] = set()
        self._stopping = asyncio.Event()
        self._edit_problem: str | None = None
        self._published: ModelDeployment | None = None
        self._processes: tuple[ProcessRecord, ...] = ()
        self._evidence: LocalEvidence | None = None

    def stop(self) -> None:
        """Ask the run to drain and end."""
        self._stopping.set()

    async def run(self) -> None:
        """Bring the manifest up and keep it so until :meth:`stop`; nothing is left running afterwards.

        Raises:
            OperatorError: It cannot come up; the message names the fix.
        """
        seen = _fingerprint(self._options.manifest)  # before it is read: an edit from here on is news
        manifest = read(self._options.manifest)
        refuse_what_one_machine_lacks(manifest, self._options.server_release)
        refuse_wrong_models(manifest)
        state = State(self._options.state, manifest.deployment.metadata.name)
        with locked(state.root):
            self._state = state
            self._record = state.read()
            seen = (*seen, *_fingerprint(state.annotations_file))
            state.status_file.unlink(missing_ok=True)  # it speaks of an earlier run
            await self._end_leftovers()
            _refuse_taken_port(self._options.host, self._options.port)
            self._simulated = self._replay_clock()
            self._in_force = self._accept(manifest)
            self._platform = self._local_platform(manifest)
            self._evidence = evidence = self._local_evidence()
            try:
                evidence.keep(self._in_force.desired)
                await self._platform.start()
                await self._keep(seen)
            finally:
                await self._platform.stop()
                await evidence.stop()  # the last one: what servers say in the end is heard
                self._remember_processes()
                self._publish_stopped()

    async def _keep(self, seen: tuple[int, ...]) -> None:
        started = time.monotonic()
        up = False
        while not self._stopping.is_set():
            known = self._look()
            outcome = await reconcile(
                self._platform,
                self._in_force.desired,
                self._in_force.record,
                now_s=self._now_s(),
                remember=self._remember_rollout,
                evidence=known,
            )
            if outcome.problem is not None and not outcome.problem.retryable:
                raise outcome.problem
            self._in_force = replace(self._in_force, record=outcome.record)
            self._forget_answered_request()
            self._publish(outcome, known)
            if not up:
                up = self._is_up(outcome.observed)
                self._give_up_if_hopeless(outcome, time.monotonic() - started)
            # What was done is seen at the next look; a rollout may go on from there.
            seen = await self._wait_for_news(seen, _WATCH_EVERY_S if outcome.actions else self._resync_s)

    def _look(self) -> Evidence:
        """Return what the ledger is known to have said; it is asked behind this pass's back."""
        if self._evidence is None:
            return NO_EVIDENCE
        known = self._evidence.look(self._in_force.desired, self._in_force.record, self._platform.wake)
        for report in known.reports.values():
            planned = planned_of(report)
            if planned is not None and planned.topic not in self._noted:
                self._noted.add(planned.topic)
                self._note(planned.sentence)
        return known

    @property
    def _resync_s(self) -> float:
        return _REPLAY_RESYNC_S if self._simulated else _RESYNC_S

    async def _wait_for_news(self, seen: tuple[int, ...], within_s: float) -> tuple[int, ...]:
        """Return when the world or the manifest has changed, or it is time to look anyway; with the file's state."""
        end = time.monotonic() + within_s
        while not self._stopping.is_set() and time.monotonic() < end:
            if await self._platform.changed(_WATCH_EVERY_S):
                break
            now = self._seen()
            if now != seen:
                self._read_again()
                return now
        return seen

    def _read_again(self) -> None:
        try:
            manifest = read(self._options.manifest)
            refuse_what_one_machine_lacks(manifest, self._options.server_release)
            self._in_force = self._accept(manifest)
            if self._evidence is not None:
                self._evidence.keep(self._in_force.desired)
            self._edit_problem = None
        except ManifestError as error:
            self._edit_problem = str(error)

    def _accept(self, manifest: Manifest) -> _InForce:
        """Return what is in force from now on, and remember it.

        Raises:
            ManifestError: The manifest must not replace what is in force; the message says why.
        """
        before = self._before()
        deployment = _numbered(manifest.deployment, before, self._record.generation)
        if deployment.metadata.name != self._state.folder.name:
            message = f"{self._state.folder.name} is running and keeps its name; stop it first"
            raise manifest.error(("metadata", "name"), message)
        paused = _annotated(deployment, self._state.annotations()).paused
        if paused:
            if before is None:
                message = "is true" if deployment.spec.paused else "is asked for by `fairlead pause`"
                raise manifest.error(("spec", "paused"), f"{message} and nothing is in force; set it to false")
            deployment = _with_paused(before, paused=True)
        desired = self._desired(_annotated(deployment, self._state.annotations()))
        if before is not None:
            try:
                refuse_breaking_edit(self._desired(before), desired)
            except EditRefused as error:
                message = f"{error} (to forget it, remove {self._state.folder})"
                raise manifest.error(("spec", "experiment", "id"), message) from None
        self._record = self._record.model_copy(
            update={
                "generation": deployment.metadata.generation,
                "manifest": _with_paused(deployment, paused=False).model_dump_json(),
            }
        )
        self._state.write(self._record)
        return _InForce(deployment, desired, self._record.rollout_before(self._options.server_release))

    def _desired(self, deployment: ModelDeployment) -> Desired:
        """Return what is asked of this machine: one process a variant."""
        desired = desired_from(deployment, self._options.server_release)
        strategy = desired.strategy
        if strategy.name != "Experiment" and "keep_previous" not in deployment.spec.rollout.model_fields_set:
            strategy = replace(strategy, keep_previous_s=0.0)  # a laptop has no room for servers of the past
        return replace(desired, strategy=strategy, scaling=dict.fromkeys(desired.scaling, _ONE_PROCESS))

    def _before(self) -> ModelDeployment | None:
        """Return what was in force last, here or in an earlier run.

        Raises:
            StateUnreadable: It was written by another version.
        """
        if self._record.manifest is None:
            return None
        try:
            return ModelDeployment.model_validate_json(self._record.manifest)
        except ValidationError as error:
            message = f"{self._state.folder}: is of another version; remove it to start afresh"
            raise StateUnreadable(message) from error

    def _local_platform(self, manifest: Manifest) -> LocalPlatform:
        state, options = self._state, self._options
        gateway = Gateway(
            host=options.host,
            port=options.port,
            folder=state.envoy,
            log=state.logs / "envoy.log",
            key=state.route_key(),
        )
        setup = ServerSetup(options.server_command, self._clock_argument, manifest.resolve)
        return LocalPlatform(
            state=state,
            gateway=gateway,
            setup=setup,
            remember=self._remember,
            design=lambda: self._in_force.desired.design,
        )

    def _local_evidence(self) -> LocalEvidence:
        return LocalEvidence(
            self._state,
            command=[*self._options.ledger_command, "--clock", self._clock_argument],
            clock=self._simulated or self._clock,
            log=self._state.envoy / UNANSWERED_LOG,
            new_id=lambda: f"gateway-{uuid.uuid4().hex}",
            remember=self._remember_ledger,
            port=self._record.ledger_port,
            every_s=_REPLAY_ANALYSE_EVERY_S if self._simulated else _ANALYSE_EVERY_S,
        )

    @property
    def _clock_argument(self) -> str:
        return f"replay:{self._state.clock}" if self._options.replay else "system"

    def _replay_clock(self) -> Clock | None:
        if not self._options.replay:
            return None
        ReplayClockWriter(self._state.clock)
        return ReplayClock(self._state.clock)

    async def _end_leftovers(self) -> None:
        await end_leftovers(self._record.processes)
        self._remember_processes()

    async def _remember_rollout(self, record: Record) -> None:
        self._record = self._record.with_rollout(record)
        self._state.write(self._record)

    def _forget_answered_request(self) -> None:
        """Take away a request that was carried out or came too late, so that the same one can be made again."""
        request, run = self._in_force.desired.request, self._in_force.record.run
        if request is None or self._in_force.desired.paused:
            return
        waits = run is not None and request.endswith(f" {run.id}") and run.state.is_splitting
        if not waits and self._state.annotations().get(REQUEST_ANNOTATION) == request:
            self._state.annotate({REQUEST_ANNOTATION: None})

    def _remember(self, processes: tuple[ProcessRecord, ...]) -> None:
        self._processes = processes
        self._remember_processes()

    def _remember_ledger(self, port: int) -> None:
        self._record = self._record.model_copy(update={"ledger_port": port})
        self._remember_processes()

    def _remember_processes(self) -> None:
        ledger = self._evidence.record if self._evidence else None
        processes = (*self._processes, *((ledger,) if ledger else ()))
        self._record = self._record.model_copy(update={"processes": processes})
        self._state.write(self._record)

    def _is_up(self, observed: Observed) -> bool:
        abandoned = self._in_force.record.abandoned
        names = [revision.name for revision in self._in_force.desired.revisions.values()]
        servers = [observed.servers.get(name) for name in names if name not in abandoned]
        return observed.route is not None and all(server is not None and server.ready for server in servers)

    def _give_up_if_hopeless(self, outcome: Outcome, elapsed_s: float) -> None:
        for server in outcome.observed.servers.values():
            crashed = server.health is Health.CRASHED and server.restarts + 1 >= _HOPELESS_CRASHES
            if (server.health is Health.REFUSED or crashed) and server.failure:
                raise ServerFailed(f"{self._options.manifest}: variant {server.variant}: {server.failure.message}")
        if elapsed_s > self._options.start_deadline_s:
            waiting = [s.variant for s in outcome.observed.servers.values() if not s.ready]
            raise ServerFailed(
                f"{self._options.manifest}: not ready within {self._options.start_deadline_s:g}s "
                f"({outcome.problem or ', '.join(waiting)}); see {self._state.logs}"
            )

    def _publish(self, outcome: Outcome, known: Evidence) -> None:
        around = Surroundings(
            url=self._url(),
            now_s=self._now_s(),
            simulated_time=from_us(self._simulated.now_us()).isoformat() if self._simulated else None,
            gateway_problem=str(outcome.problem) if outcome.problem else None,
            edit_problem=self._edit_problem,
            evidence=known,
        )
        former = self._published.status if self._published else None
        deployment = self._in_force.deployment.model_copy(update={"status": former})
        status = status_of(deployment, self._in_force.desired, outcome.observed, outcome.record, around)
        self._tell(status)

    def _publish_stopped(self) -> None:
        if self._published is None or self._published.status is None:
            return
        status = self._published.status
        gone = [
            Condition(
                type=kind,
                status="False",
                reason=Reason.STOPPED,
                message="`fairlead up` has ended; start it again",
                observed_generation=status.observed_generation,
            )
            for kind in ConditionType
        ]
        self._tell(
            status.model_copy(
                update={
                    "conditions": stamped(gone, status.conditions, iso(self._now_s())),
                    "variants": tuple(v.model_copy(update={"ready": False, "replicas": 0}) for v in status.variants),
                }
            )
        )

    def _tell(self, status: Status) -> None:
        resource = self._in_force.deployment.model_copy(update={"status": status})
        if resource != self._published:
            self._published = resource
            self._state.write_status(resource.model_dump(mode="json", exclude_none=True))
            self._report(resource)

    def _url(self) -> Url:
        host = "127.0.0.1" if self._options.host in {"0.0.0.0", "::"} else self._options.host  # noqa: S104 -- compared
        return Url(rest=f"http://{host}:{self._options.port}", grpc=f"{host}:{self._options.port}")

    def _seen(self) -> tuple[int, ...]:
        return *_fingerprint(self._options.manifest), *_fingerprint(self._state.annotations_file)

    def _now_s(self) -> float:
        return (self._simulated or self._clock).now_us() / 1e6


def refuse_what_one_machine_lacks(manifest: Manifest, release: str) -> None:
    """Check the parts of a manifest that a cluster has and one machine has not.

    Args:
        manifest: What is wanted.
        release: The one release of the model server that is installed.

    Raises:
        ManifestError: Such a part is used, or a file that it names is not there.
    """
    spec = manifest.deployment.spec
    if spec.feature_store.path is None:
        message = "is for clusters; on one machine give path, the folder of feature_store.yaml"
        raise manifest.error(("spec", "featureStore", "configMapRef"), message)
    if spec.feedback.ledger.url is not None:
        raise manifest.error(("spec", "feedback", "ledger", "url"), "is for clusters; remove it: one is started here")
    unit = spec.routing.units
    for field, given in (("jwtClaim", unit.jwt_claim), ("cookie", unit.cookie)):
        if given is not None:
            raise manifest.error(("spec", "routing", "unit", field), "is for clusters; on one machine use header")
    if spec.routing.fault is not None:
        raise manifest.error(("spec", "routing", "fault"), "is for clusters; remove it")
    if spec.serving.release not in {None, release}:
        message = f"{spec.serving.release} is not installed; remove it, or set it to {release}"
        raise manifest.error(("spec", "serving", "release"), message)
    if not manifest.resolve(spec.feature_store.path, store := ("spec", "featureStore", "path")).exists():
        message = f"{spec.feature_store.path} does not exist; give the folder of feature_store.yaml"
        raise manifest.error(store, f"{message}, relative to this file")
    for index, variant in enumerate(spec.variants):
        if not manifest.resolve(variant.model.uri, uri := ("spec", "variants", index, "model", "uri")).is_file():
            message = f"{variant.model.uri} is not an existing file; make the model, or give its path"
            raise manifest.error(uri, f"{message}, relative to this file")


def refuse_wrong_models(manifest: Manifest) -> None:
    """Check that each variant's file is the model that its digest names; this reads the files whole.

    Raises:
        ManifestError: One is another, or cannot be read.
    """
    for index, variant in enumerate(manifest.deployment.spec.variants):
        field = ("spec", "variants", index, "model")
        try:
            with manifest.resolve(variant.model.uri, (*field, "uri")).open("rb") as file:
                found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError as error:
            message = f"{variant.model.uri} cannot be read ({error.strerror}); give a readable file"
            raise manifest.error((*field, "uri"), message) from None
        if found != variant.model.digest:
            message = f"{variant.model.uri} is {found}; write that here, or restore the file"
            raise manifest.error((*field, "digest"), message)


def _numbered(deployment: ModelDeployment, before: ModelDeployment | None, generation: int) -> ModelDeployment:
    """Return ``deployment`` with its generation: one more than before if its spec differs."""
    same = before is not None and before.spec == deployment.spec.model_copy(update={"paused": before.spec.paused})
    number = generation if same and generation else generation + 1
    return deployment.model_copy(
        update={"metadata": deployment.metadata.model_copy(update={"generation": number}), "status": None}
    )


def _with_paused(deployment: ModelDeployment, *, paused: bool) -> ModelDeployment:
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"paused": paused})})


def _annotated(deployment: ModelDeployment, annotations: dict[str, str]) -> ModelDeployment:
    """Return ``deployment`` with what was asked for by command; what the manifest says itself is overridden."""
    merged = {**deployment.metadata.annotations, **annotations}
    metadata = deployment.metadata.model_copy(update={"annotations": merged})
    return deployment.model_copy(update={"metadata": metadata})


def _fingerprint(path: Path) -> tuple[int, ...]:
    """Return what changes when the file does; a file that is just being replaced is like one that has changed."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _refuse_taken_port(host: str, port: int) -> None:
    try:
        with closing(socket.create_server((host, port))):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"--port: {port} is in use on {host}; stop what listens there, or give another --port"
            ) from None
        raise PortTaken(f"--port: {host}:{port} cannot be listened on ({error.strerror}); give another") from None
