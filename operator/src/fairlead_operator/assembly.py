"""The operator's parts put together: here and nowhere else is said what knows what.

```
Kopf (own thread) --> Parents --+
Reflectors (one per kind) ------+--> ObjectStore --changed(key)--> ReconcileQueue --> Controller --> fenced KubeApi
Resync (LIST, sweeps) ----------+                                       runs while the Leader holds the Lease
```
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.clock import Clock
from fairlead_operator.errors import OperatorError
from fairlead_operator.health import Check
from fairlead_operator.metrics import OperatorMetrics, Values
from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.errors import KindMissing
from fairlead_operator.platforms.kubernetes.events import EventSink
from fairlead_operator.platforms.kubernetes.kinds import CHILDREN, PARENT, Kind, Watched
from fairlead_operator.platforms.kubernetes.parents import Parents
from fairlead_operator.platforms.kubernetes.reflector import Reflector, WatchTerms
from fairlead_operator.platforms.kubernetes.store import Objects, ObjectStore
from fairlead_operator.runtime.keys import Controller, ObjectKey
from fairlead_operator.runtime.leader import Leader, Terms
from fairlead_operator.runtime.ledger import CallObserver
from fairlead_operator.runtime.queue import ReconcileQueue, Run
from fairlead_operator.runtime.resync import Resync, Sweep
from fairlead_operator.settings import Settings

_log = logging.getLogger(__name__)

_STUCK_AFTER_S = 30.0
"""Beyond the deadline of a reconcile: then its worker does not even end when it is cancelled."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is not ours to choose; tests choose it."""

    now: Callable[[], float]
    """A clock that never goes back, seconds; it goes on while the process is stopped."""
    clock: Clock
    """The time of day."""
    randomness: random.Random
    new_id: Callable[[], str]
    """Gives 8 or more characters of [a-z0-9] that nobody else has."""
    namespace: str
    """Where the Lease is."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a controller is given."""

    api: KubeApi
    """Its writes raise LeaseLost once we do not lead."""
    objects: Objects
    events: EventSink
    clock: Clock
    settings: Settings
    new_id: Callable[[], str]
    now: Callable[[], float]
    """A clock that never goes back, seconds."""
    keep: Callable[[Kind, Mapping[str, Any]], object]
    """Has the store keep what a write has just answered, so that the next look sees it."""
    enqueue: Callable[[ObjectKey], None]
    """Has a key run."""
    enqueue_after: Callable[[ObjectKey, float], None]
    """Has a key run in so many seconds, or sooner."""
    ledger_called: CallObserver
    """Counts calls to the ledger."""
    randomness: random.Random


def _none_depend(kind: Kind, key: ObjectKey) -> Iterable[ObjectKey]:  # noqa: ARG001 -- depends on neither
    return ()


async def _nothing_to_close() -> None:
    pass


async def _nothing_to_do() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Control:
    """What is run."""

    controller: Controller
    sweeps: Sequence[Sweep] = ()
    """Run at each resync, by the leader alone."""
    dependents: Callable[[Kind, ObjectKey], Iterable[ObjectKey]] = _none_depend
    """The ModelDeployments that depend on an object which carries no label of ours."""
    work: Callable[[], Awaitable[None]] = _nothing_to_do
    """Run beside the reconciles, by the leader alone; it may end, and what it raises is logged."""
    readings: Mapping[str, Callable[[], Values]] = field(default_factory=dict)
    """Metrics that it has, by name."""
    close: Callable[[], Awaitable[None]] = _nothing_to_close
    """Ends what it keeps open."""


class Tally:
    """How many ModelDeployments say what in their status, kept up as they change."""

    def __init__(self, said: Callable[[Mapping[str, object]], Iterable[tuple[str, str]]]) -> None:
        """Start with none.

        Args:
            said: What one of them says, to be counted.
        """
        self._said = said
        self._known: dict[ObjectKey, tuple[tuple[str, str], ...]] = {}
        self.counts: Counter[tuple[str, ...]] = Counter()

    def note(self, key: ObjectKey, resource: Mapping[str, object] | None) -> None:
        """Take in a ModelDeployment as it is now; None if it has gone."""
        for pair in self._known.pop(key, ()):
            self.counts[pair] -= 1
        if resource is not None:
            self._known[key] = pairs = tuple(self._said(resource))
            self.counts.update(pairs)


def _conditions(resource: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    status = resource.get("status")
    given = status.get("conditions") if isinstance(status, Mapping) else None
    for condition in given or ():
        yield str(condition.get("type")), str(condition.get("status"))


def _verdicts(resource: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    status = resource.get("status")
    experiment = status.get("experiment") if isinstance(status, Mapping) else None
    if isinstance(experiment, Mapping) and experiment.get("verdict"):
        yield str(experiment["verdict"]), str(experiment.get("reason"))


@dataclass(slots=True)
class Runtime:
    """One operator. ``run`` runs it until ``stop`` or until a part ends that should not."""

    settings: Settings
    store: ObjectStore
    parents: Parents
    reflectors: tuple[Reflector, ...]
    queue: ReconcileQueue
    leader: Leader
    resync: Resync
    events: EventSink
    transport: Callable[[], Awaitable[None]] | None
    """Watches the ModelDeployments and tells ``parents``."""
    surroundings: Surroundings
    work: Callable[[], Awaitable[None]]
    """What the leader does beside the reconciles."""
    close: Callable[[], Awaitable[None]]
    """Ends what the controller keeps open."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Take in no more; running reconciles end or are abandoned, the Lease is released, and ``run`` returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until stopped.

        Raises:
            ExceptionGroup: A part ended; the process must, too.
        """
        try:
            await self._run()
        finally:
            await self.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part, name=name) for name, part in self._parts()]
            leading = group.create_task(self._lead(), name="leader")
            await self._stopping.wait()
            _log.info("stopping: no more reconciles are begun")
            self.queue.stop()
            if self.leader.is_leading:
                await asyncio.wait({leading}, timeout=self.settings.shutdown_s)
            leading.cancel()
            await asyncio.wait({leading})
            for part in parts:
                part.cancel()
        _log.info("stopped")

    @property
    def live(self) -> Mapping[str, Check]:
        """What must hold lest the process be restarted."""
        return {"workers": self._stuck_worker, "watches": self._deaf_watch, "deployments": self._deaf_transport}

    @property
    def ready(self) -> Mapping[str, Check]:
        """What must hold before it counts as up."""
        return {"store": self._unfilled_store}

    def _parts(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Yield what runs in every process, leading or not; none of it ends by itself."""
        for reflector in self.reflectors:
            yield f"reflector {reflector.kind}", _endless(reflector.run())
        yield "events", _endless(self.events.run())
        yield "parents", _endless(self._watch_parents())

    async def _watch_parents(self) -> None:
        await self._list_parents()
        if self.transport is not None:
            await self.transport()
        else:
            await asyncio.Event().wait()

    async def _list_parents(self) -> None:
        """Return once the ModelDeployments are listed: their CRD may come after us."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                for key in await self.parents.relist():
                    self.queue.add(key)
            except KindMissing:
                self.store.mark_missing(PARENT.kind)
                _log.warning("the CRD of ModelDeployment is not installed; install the chart fairlead-crds")
            except OperatorError as error:
                _log.warning("the ModelDeployments cannot be listed", extra={"detail": str(error)})
            else:
                return
            await asyncio.sleep(pause_s * self.surroundings.randomness.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _lead(self) -> None:
        await self.store.wait_until_ready()  # absence must mean absence before anything is decided
        await self.leader.run(self._work)
        if not self._stopping.is_set():
            raise RuntimeError("the leader's work ended by itself")

    async def _work(self) -> None:
        """Reconcile and resync; returns when the queue has been stopped."""
        resyncing = asyncio.ensure_future(self.resync.run())
        reconciling = asyncio.ensure_future(self.queue.run())
        beside = asyncio.ensure_future(self._beside())
        try:
            await asyncio.wait({resyncing, reconciling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            running = [task for task in (resyncing, reconciling, beside) if not task.done()]
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
        for task in (resyncing, reconciling):
            if not task.cancelled() and (problem := task.exception()) is not None:
                raise problem

    async def _beside(self) -> None:
        """Do what serving does not need: nothing of it may end the operator."""
        try:
            await self.work()
        except Exception:  # noqa: BLE001 -- whatever it is, deployments are served without it
            _log.exception("the work beside the reconciles has ended")

    def _stuck_worker(self) -> str | None:
        running_s = self.queue.longest_run_s
        stuck = running_s > self.queue.deadline_s + _STUCK_AFTER_S
        return f"a reconcile has been running for {running_s:.0f} s" if stuck else None

    def _deaf_watch(self) -> str | None:
        deaf = [str(r.kind) for r in self.reflectors if r.silent_for_s > self.settings.stale_after_s]
        return f"nothing heard for {self.settings.stale_after_s:.0f} s of {', '.join(deaf)}" if deaf else None

    def _deaf_transport(self) -> str | None:
        deaf_s = self.parents.deaf_for_s if self.transport else 0.0
        deaf = deaf_s > self.settings.stale_after_s
        return f"the watch has kept changes of ModelDeployments from us for {deaf_s:.0f} s" if deaf else None

    def _unfilled_store(self) -> str | None:
        if self.store.is_ready:
            return None
        unfilled = [str(one.kind) for one in self.store.kinds if not self.store.is_settled(one.kind)]
        return f"not listed yet: {', '.join(unfilled)}"


TransportOf = Callable[[Parents], Callable[[], Awaitable[None]]]


def build(
    settings: Settings,
    client: KubeClient,
    control_of: Callable[[Access], Control],
    *,
    surroundings: Surroundings,
    metrics: OperatorMetrics,
    transport_of: TransportOf | None = None,
    children: Sequence[Watched] = CHILDREN,
) -> Runtime:
    """Put an operator together; nothing runs yet.

    Args:
        settings: Everything that can be set.
        client: The API, not fenced.
        control_of: Makes what is run.
        surroundings: Clocks, randomness, names.
        metrics: What is counted.
        transport_of: Makes the watch of the ModelDeployments; without one the resync alone finds them.
        children: The kinds that are watched beside the ModelDeployments.
    """
    now, dice = surroundings.now, surroundings.randomness
    conditions, verdicts = Tally(_conditions), Tally(_verdicts)

    def changed(kind: Kind, key: ObjectKey, owner: ObjectKey | None) -> None:
        if kind == PARENT.kind:
            for tally in (conditions, verdicts):
                tally.note(key, store.get(kind, key))
            queue.add(key)
        elif owner is not None:
            queue.add(owner)
        else:
            for dependent in control.dependents(kind, key):
                queue.add(dependent)

    def scopes(kind: Kind) -> tuple[str | None, ...]:
        return (settings.namespaces if kind == PARENT.kind else settings.child_namespaces) or (None,)

    def appeared(_: Kind) -> None:
        for key in store.keys(PARENT.kind):
            queue.add(key)

    def ended(run: Run) -> None:
        metrics.reconciles.labels(run.result.value).inc()
        metrics.reconcile_seconds.observe(run.duration_s)
        metrics.queue_wait_seconds.observe(run.waited_s)

    store = ObjectStore([PARENT, *children], changed, scopes)
    identity = f"{settings.pod_name}_{surroundings.new_id()}"
    leader = Leader(
        client,
        ObjectKey(surroundings.namespace, settings.lease_name),
        identity,
        now=now,
        clock=surroundings.clock,
        randomness=dice,
        terms=Terms(settings.lease_duration_s, settings.lease_renew_deadline_s, settings.lease_retry_s),
    )
    fenced = client.fenced(leader.fence)
    events = EventSink(
        fenced,
        instance=identity,
        clock=surroundings.clock,
        new_id=surroundings.new_id,
        observe=lambda result: metrics.events.labels(result.value).inc(),
    )
    control = control_of(
        Access(
            api=fenced,
            objects=store,
            events=events,
            clock=surroundings.clock,
            settings=settings,
            new_id=surroundings.new_id,
            now=now,
            keep=store.put,
            enqueue=lambda key: queue.add(key),  # noqa: PLW0108 -- the queue is made below
            enqueue_after=lambda key, delay_s: queue.add_after(key, delay_s),  # noqa: PLW0108 -- see above
            ledger_called=metrics.ledger_called,
            randomness=dice,
        )
    )
    queue = ReconcileQueue(
        control.controller,
        now=now,
        randomness=dice,
        workers=settings.workers,
        deadline_s=settings.reconcile_deadline_s,
        observe=ended,
    )
    parents = Parents(client, store, now)
    reflectors = tuple(
        Reflector(
            client,
            store,
            watched,
            now=now,
            randomness=dice,
            namespace=namespace,
            terms=WatchTerms(settings.watch_timeout_s, settings.watch_silence_s),
            appeared=appeared,
            observe=lambda kind, restart: metrics.watch_restarts.labels(kind.plural, restart.value).inc(),
        )
        for watched in children
        for namespace in store.scopes(watched.kind)
    )
    runtime = Runtime(
        settings=settings,
        store=store,
        parents=parents,
        reflectors=reflectors,
        queue=queue,
        leader=leader,
        resync=Resync(
            parents.relist,
            queue.add,
            randomness=dice,
            interval_s=settings.resync_interval_s,
            sweeps=control.sweeps,
            observe=lambda well: metrics.resyncs.labels("success" if well else "error").inc(),
        ),
        events=events,
        transport=transport_of(parents) if transport_of else None,
        surroundings=surroundings,
        work=control.work,
        close=control.close,
    )
    _measure(metrics, runtime, now)
    metrics.read("fairlead_deployments", lambda: dict(conditions.counts))
    metrics.read("fairlead_experiments", lambda: dict(verdicts.counts))
    metrics.read_all(control.readings)
    return runtime


def _measure(metrics: OperatorMetrics, runtime: Runtime, now: Callable[[], float]) -> None:
    """Have the gauges read off the parts."""
    store, schedule = runtime.store, runtime.queue.schedule
    metrics.read("fairlead_leader", lambda: {(): float(runtime.leader.is_leading)})
    metrics.read("fairlead_queue_keys", lambda: {("ready",): schedule.depth, ("delayed",): schedule.delayed})
    metrics.read("fairlead_queue_oldest_seconds", lambda: {(): schedule.oldest_wait_s(now())})
    metrics.read("fairlead_queue_dropped_total", lambda: {(): schedule.dropped})
    metrics.read("fairlead_running_oldest_seconds", lambda: {(): schedule.longest_run_s(now())})
    metrics.read("fairlead_stored_objects", lambda: {(one.kind.plural,): store.count(one.kind) for one in store.kinds})
    metrics.read(
        "fairlead_kind_missing", lambda: {(one.kind.plural,): store.is_missing(one.kind) for one in store.kinds}
    )
    metrics.read(
        "fairlead_watch_age_seconds",
        lambda: {(kind,): age for kind, age in sorted((r.kind.plural, r.silent_for_s) for r in runtime.reflectors)},
    )
    metrics.read("fairlead_relist_repairs_total", lambda: {(): runtime.parents.repaired})


async def _endless(part: Awaitable[None]) -> None:
    """Await what must not end by itself.

    Raises:
        RuntimeError: It did.
    """
    await part
    raise RuntimeError("a part of the operator ended by itself")
