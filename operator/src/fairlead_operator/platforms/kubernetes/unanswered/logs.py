"""The gateways' logs that are read, and of whom: run by the leader, told by the controller what to look for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from fairlead.clock import Clock
from fairlead.feedback.messages import ExposureReport
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.observed import Problem
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.gateways import Selected
from fairlead_operator.platforms.kubernetes.kinds import POD
from fairlead_operator.platforms.kubernetes.unanswered.follower import LOOK_BACK_US, Follower, Noted
from fairlead_operator.platforms.kubernetes.unanswered.instances import Instance, instances_of
from fairlead_operator.platforms.kubernetes.unanswered.minutes import Told, heartbeat, reports_of
from fairlead_operator.platforms.kubernetes.unanswered.teller import Teller
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.ledger import LedgerClient

_log = logging.getLogger(__name__)

_Place = tuple[str, tuple[tuple[str, str], ...]]
"""A gateway's namespace and selector."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """A deployment of which a ledger is told."""

    told: Told
    places: frozenset[_Place]


@dataclass(slots=True)
class _Telling:
    teller: Teller
    task: asyncio.Task[None]


@dataclass(slots=True)
class _Followed:
    follower: Follower
    place: _Place
    task: asyncio.Task[None]


@dataclass(slots=True)
class GatewayLogs:
    """Reads gateways' logs for the deployments that it is told of. What it keeps can be read again."""

    api: KubeApi
    client: LedgerClient
    clock: Clock
    enqueue: Callable[[ObjectKey], None]
    """Has a deployment looked at again."""
    every_s: float = 5.0
    """How often the gateways' pods are listed."""
    noted: Noted = field(default_factory=Noted)
    _watched: dict[ObjectKey, _Watched] = field(default_factory=dict)
    _followed: dict[str, _Followed] = field(default_factory=dict)
    """By the id of the instance."""
    _told: dict[ObjectKey, _Telling] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    """By namespace, why its logs may not be read."""

    def watch(self, told: Told, selected: Collection[Selected]) -> None:
        """Have a deployment's ledger told of what its gateways did not get answered; as often as is liked."""
        places = frozenset((one.namespace, tuple(sorted(one.selector.items()))) for one in selected)
        self._watched[told.deployment] = _Watched(told, places)

    def forget(self, deployment: ObjectKey) -> None:
        """Have nobody told of a deployment any more."""
        self._watched.pop(deployment, None)

    def problem(self, deployment: ObjectKey) -> Problem | None:
        """Return why the evidence of a deployment's experiment lacks what its gateways know; None if it does not."""
        watched = self._watched.get(deployment)
        namespaces = sorted({namespace for namespace, _ in watched.places} & self._refused.keys()) if watched else []
        if not namespaces:
            return None
        message = (
            f"the log of the gateway in namespace {namespaces[0]} cannot be read, so requests that no server answered"
            f" are missing in the evidence: {self._refused[namespaces[0]]}; grant the operator pods/log there"
            " (operator.rbac.gatewayLogNamespaces of the chart)"
        )
        return Problem(ConditionType.EXPERIMENT_HEALTHY, Reason.GATEWAY_LOG_UNREADABLE, message)

    @property
    def followed(self) -> int:
        """How many logs are followed."""
        return sum(not one.task.done() for one in self._followed.values())

    async def run(self) -> None:
        """Read and tell until cancelled."""
        try:
            while True:
                try:
                    await self._look()
                except OperatorError as error:
                    _log.warning("the gateways' pods cannot be read", extra={"error": str(error)[:300]})
                except Exception:  # noqa: BLE001 -- the loop's top
                    self.noted.failures += 1
                    _log.exception("the gateways' logs are looked for again")
                await asyncio.sleep(self.every_s)
        finally:
            tasks = [one.task for one in self._followed.values()] + [one.task for one in self._told.values()]
            self._followed.clear()
            self._told.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Follow the logs that are there and of use, and no others.

        Raises:
            KubeError: Pods cannot be listed.
        """
        self._keep_tellers()
        listed: set[str] = set()
        for place in {place for watched in self._watched.values() for place in watched.places}:
            namespace, selector = place
            pods = await self.api.list(POD, namespace=namespace, labels=dict(selector))
            instances = {one.id: one for one in instances_of(pods)}
            self._follow(place, instances)
            listed |= instances.keys()
        self._reap(listed)

    def _keep_tellers(self) -> None:
        for key, known in [*self._told.items()]:
            watched = self._watched.get(key)
            if watched is None:
                known.task.cancel()
                del self._told[key]
            else:
                known.teller.told = watched.told
        for key, watched in self._watched.items():
            if key not in self._told:
                teller = Teller(self.client, watched.told, self.noted)
                self._told[key] = _Telling(teller, asyncio.create_task(teller.run()))
                self._add(key, watched)

    def _add(self, deployment: ObjectKey, watched: _Watched) -> None:
        """Have a deployment told of what was written before it was known; a log that has ended is read once more."""
        for id_, known in [*self._followed.items()]:
            if known.place in watched.places:
                known.follower.add([deployment])
                if known.task.done():
                    del self._followed[id_]

    def _follow(self, place: _Place, instances: Mapping[str, Instance]) -> None:
        for instance in instances.values():
            known = self._followed.get(instance.id)
            if known is None:
                if instance.ended_us is None or instance.ended_us > self.clock.now_us() - LOOK_BACK_US:
                    self._begin(place, instance)
            elif instance.ended_us is not None:
                known.follower.end(is_previous=instance.is_previous)
        for known in self._followed.values():
            if known.place == place and known.follower.instance.id not in instances:
                known.follower.end(is_previous=False)

    def _begin(self, place: _Place, instance: Instance) -> None:
        follower = Follower(
            api=self.api,
            instance=instance,
            clock=self.clock,
            tell=partial(self._tell, place, instance.id),
            noted=self.noted,
            refused=partial(self._note_refused, place[0]),
        )
        follower.add(self._at(place))
        task = asyncio.create_task(follower.run())
        self._followed[instance.id] = _Followed(follower, place, task)

    def _reap(self, listed: Collection[str]) -> None:
        """Stop following where nobody is told; of a log that has ended it is kept in mind as long as its pod tells."""
        wanted = {place for watched in self._watched.values() for place in watched.places}
        for id_, known in [*self._followed.items()]:
            if known.place not in wanted:
                known.task.cancel()
                del self._followed[id_]
            elif known.task.done():
                error = None if known.task.cancelled() else known.task.exception()
                if error is not None:
                    self.noted.failures += 1
                    _log.error("a gateway's log is read anew", exc_info=error)
                if error is not None or id_ not in listed:
                    del self._followed[id_]

    async def _tell(
        self, place: _Place, instance: str, minute: int, lines: list[bytes], deployments: Collection[ObjectKey] | None
    ) -> None:
        """Have the ledgers told of a minute of a log: of all deployments on that gateway, or of some."""
        for key in self._at(place) if deployments is None else deployments:
            watched, telling = self._watched.get(key), self._told.get(key)
            if watched is None or telling is None:
                continue
            reports: list[ExposureReport] = []
            lost = 0
            if lines:
                reports, lost = await asyncio.to_thread(reports_of, lines, minute, watched.told, instance)
            self.noted.lost += lost
            telling.teller.put(reports)
            if deployments is None and not any(report.blocks for report in reports):
                telling.teller.beat(heartbeat(watched.told, instance))

    def _at(self, place: _Place) -> list[ObjectKey]:
        return [key for key, watched in self._watched.items() if place in watched.places]

    def _note_refused(self, namespace: str, why: str | None) -> None:
        before = self._refused.get(namespace)
        if why is None:
            self._refused.pop(namespace, None)
        else:
            self._refused[namespace] = why
        if (before is None) is not (why is None):
            for key, watched in self._watched.items():
                if namespace in {place[0] for place in watched.places}:
                    self.enqueue(key)
