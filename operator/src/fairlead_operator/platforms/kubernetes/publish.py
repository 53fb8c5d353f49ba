"""Status and Events: what a deployment says about itself, written only when it has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_operator.api.conditions import Condition, ConditionType, Reason, stamped
from fairlead_operator.api.v1alpha1 import Status
from fairlead_operator.assembly import Access
from fairlead_operator.core.status import iso
from fairlead_operator.platforms.kubernetes.api import Resource
from fairlead_operator.platforms.kubernetes.errors import Stale
from fairlead_operator.platforms.kubernetes.events import EventType
from fairlead_operator.platforms.kubernetes.kinds import PARENT
from fairlead_operator.platforms.kubernetes.store import key_of


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes one deployment's status."""

    access: Access
    resource: Resource
    """The ModelDeployment as it was read."""

    async def publish(self, status: Status) -> bool:
        """Write ``status`` if it differs from what is there; return whether it did.

        Raises:
            Stale: The deployment has changed since it was read.
            KubeError: The API refuses.
        """
        return await self._write(status.model_dump(mode="json", by_alias=True, exclude_none=True))

    async def publish_invalid(self, message: str, now_s: float) -> bool:
        """Write that the spec cannot be used; what else the status says stays."""
        generation = int(self.resource["metadata"].get("generation", 1))
        before = self.resource.get("status") or {}
        known = [
            Condition.model_validate({**one, "reason": Reason.INVALID_SPEC})
            for one in before.get("conditions", [])
            if one.get("type") in set(ConditionType)
        ]
        fresh = [
            Condition(
                type=kind,
                status="False",
                reason=Reason.INVALID_SPEC,
                message=message[:4096],
                observed_generation=generation,
            )
            for kind in (ConditionType.READY, ConditionType.PROGRESSING)
        ]
        said = [one.model_dump(mode="json", by_alias=True) for one in stamped(fresh, known, iso(now_s))]
        others = [one for one in before.get("conditions", []) if one.get("type") not in {"Ready", "Progressing"}]
        status = {"servingRelease": "", **before, "observedGeneration": generation, "conditions": [*said, *others]}
        return await self._write(status)

    async def _write(self, status: Mapping[str, Any]) -> bool:
        before = self.resource.get("status") or {}
        if status == before:
            return False
        key = key_of(self.resource)
        current = self.access.objects.get(PARENT.kind, key)
        if current is None or current["metadata"].get("generation") != self.resource["metadata"].get("generation"):
            raise Stale(f"{PARENT.kind} {key} has changed since it was read")
        version = current["metadata"]["resourceVersion"]
        written = await self.access.api.patch_status(PARENT.kind, key, status, resource_version=version)
        self.access.keep(PARENT.kind, written)
        self._tell(before, status)
        return True

    def _tell(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Post what has changed for people: readiness, and where the rollout stands."""
        then, now = _of(before, "Ready"), _of(after, "Ready")
        if (then.get("status"), then.get("reason")) != (now.get("status"), now.get("reason")):
            well = now.get("status") == "True"
            kind = EventType.NORMAL if well or now.get("reason") in _EXPECTED else EventType.WARNING
            self.access.events.post(self._about, str(now.get("reason")), str(now.get("message")), type=kind)
        self._tell_experiment(before, after)
        was, stands = before.get("rollout") or {}, after.get("rollout") or {}
        if (was.get("state"), was.get("step")) != (stands.get("state"), stands.get("step")):
            note = f"rollout: {stands.get('state')}, step {int(stands.get('step', 0)) + 1}"
            self.access.events.post(self._about, f"Rollout{stands.get('state')}", note, action="Rollout")

    def _tell_experiment(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Post how sound an experiment is, what its analysis says, and where the record of its decision is."""
        then, now = _of(before, "ExperimentHealthy"), _of(after, "ExperimentHealthy")
        if (then.get("status"), then.get("reason")) != (now.get("status"), now.get("reason")) and then:
            well = now.get("status") == "True" or now.get("reason") in _EXPECTED
            kind = EventType.NORMAL if well else EventType.WARNING
            reason = f"Experiment{now.get('reason')}"
            self.access.events.post(self._about, reason, str(now.get("message")), action="Experiment", type=kind)
        was, says = before.get("experiment") or {}, after.get("experiment") or {}
        if says.get("verdict") and _verdict(was) != _verdict(says):
            note = f"experiment {says.get('id')}: {says['verdict']} ({says.get('reason')}); {says.get('page')}"
            self.access.events.post(self._about, f"Verdict{says['verdict']}", note, action="Experiment")
        record = ((after.get("rollout") or {}).get("decision") or {}).get("record")
        if record and record != ((before.get("rollout") or {}).get("decision") or {}).get("record"):
            self.access.events.post(self._about, "DecisionRecorded", str(record), action="Experiment")

    @property
    def _about(self) -> Mapping[str, Any]:
        return {"apiVersion": PARENT.kind.api_version, "kind": PARENT.kind.kind, "metadata": self.resource["metadata"]}


_EXPECTED = frozenset(
    {Reason.STARTING, Reason.SCALING_UP, Reason.ASSIGNMENT_UNPROVEN, Reason.PAUSED, Reason.NOT_OBSERVING}
)
"""Reasons of a deployment that is on its way and nothing is wrong with."""


def _of(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return a condition; empty if it has not been told yet."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == kind:
            found: Mapping[str, Any] = condition
            return found
    return {}


def _verdict(experiment: Mapping[str, Any]) -> tuple[object, ...]:
    return experiment.get("salt"), experiment.get("verdict"), experiment.get("reason")
