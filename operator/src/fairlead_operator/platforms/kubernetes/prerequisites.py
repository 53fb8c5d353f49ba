"""What must be there before a deployment can be served as asked, and what is told when it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.api.v1alpha1 import FeatureStore, ModelDeployment
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.observed import Problem
from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.errors import KubeError, NotFound
from fairlead_operator.platforms.kubernetes.gateways import Gateways, Hosts, claim_issuers
from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    CONFIG_MAP,
    DESTINATION_RULE,
    ENVOY_FILTER,
    FEATURE_STORE,
    GATEWAY,
    GROUP,
    INFERENCE_SERVICE,
    NAMESPACE,
    SERVING_RUNTIME,
    VIRTUAL_SERVICE,
)
from fairlead_operator.platforms.kubernetes.render.inference_service import client_config_map
from fairlead_operator.platforms.kubernetes.render.names import foreign_name, name_too_long
from fairlead_operator.platforms.kubernetes.store import Objects
from fairlead_operator.runtime.keys import ObjectKey

FAULT_LABEL = f"{GROUP}/fault-injection"
"""On a namespace: ``allowed`` lets its deployments inject faults."""

_KSERVE = (INFERENCE_SERVICE, SERVING_RUNTIME)
_ISTIO = (VIRTUAL_SERVICE, DESTINATION_RULE, ENVOY_FILTER, GATEWAY)


@dataclass(frozen=True, slots=True)
class Prerequisites:
    """Looks for what a deployment depends on."""

    api: KubeApi
    objects: Objects
    hosts: Hosts

    async def missing(
        self, key: ObjectKey, deployment: ModelDeployment, desired: Desired, gateways: Gateways
    ) -> tuple[Problem, ...]:
        """Return every problem, the gravest of each condition first."""
        found = [*self._apis(), *_names(key, desired)]
        if not any(problem.stops_route for problem in found):
            found += self._routing(key, desired, gateways)
        found += [problem async for problem in self._features(key, deployment.spec.feature_store)]
        return tuple(found)

    async def allowed(self, key: ObjectKey, desired: Desired) -> tuple[Desired, tuple[Problem, ...]]:
        """Return ``desired`` without faults, unless the namespace allows them."""
        if desired.reach.fault is None:
            return desired, ()
        if await self._allows_faults(key.namespace):
            return desired, ()
        message = f"routing.fault is left out: label namespace {key.namespace} {FAULT_LABEL}=allowed, or remove it"
        problem = Problem(ConditionType.ROUTING_READY, Reason.FAULT_NOT_ALLOWED, message)
        return replace(desired, reach=replace(desired.reach, fault=None)), (problem,)

    async def _allows_faults(self, namespace: str) -> bool:
        try:
            found = await self.api.get(NAMESPACE, ObjectKey("", namespace))
        except KubeError as error:
            if error.ends_pass:
                raise
            return False
        return (found["metadata"].get("labels") or {}).get(FAULT_LABEL) == "allowed"

    def _apis(self) -> Iterator[Problem]:
        for kind in _KSERVE:
            if self.objects.is_missing(kind):
                message = f"{kind} is not installed; install KServe, it is looked for again and again"
                yield Problem(ConditionType.VARIANTS_READY, Reason.KSERVE_MISSING, message, stops_servers=True)
                break
        for kind in _ISTIO:
            if self.objects.is_missing(kind):
                message = f"{kind} is not installed; install Istio 1.28 or newer, it is looked for again and again"
                yield Problem(ConditionType.ROUTING_READY, Reason.ISTIO_MISSING, message, stops_route=True)
                break

    def _routing(self, key: ObjectKey, desired: Desired, gateways: Gateways) -> Iterator[Problem]:
        lost = self.hosts.lost(key)
        homeless = lost.keys() >= set(desired.reach.hosts)
        for host, holder in lost.items():
            message = f"host {host} belongs to ModelDeployment {holder}, which had it first; choose another host"
            yield Problem(ConditionType.ROUTING_READY, Reason.HOST_CONFLICT, message, stops_route=homeless)
        if gateways.missing:
            message = f"Gateway {', '.join(gateways.missing)} is not there, or selects no pods; name one that does"
            yield Problem(ConditionType.ROUTING_READY, Reason.GATEWAY_NOT_FOUND, message, stops_growth=True)
        unit = desired.reach.unit
        if unit.jwt_claim is None:
            return
        for selected in gateways.selected:
            if not claim_issuers(self.objects, selected, unit.jwt_claim, unit.header):
                message = (
                    f"no RequestAuthentication on the gateway's pods in {selected.namespace} copies claim "
                    f"{unit.jwt_claim} into header {unit.header}; add outputClaimToHeaders to the platform's own"
                )
                yield Problem(ConditionType.ROUTING_READY, Reason.UNIT_CLAIM_UNAVAILABLE, message, stops_split=True)
            policy = ObjectKey(selected.namespace, foreign_name(key.namespace, key.name))
            if self.objects.get(AUTHORIZATION_POLICY, policy) is None:
                message = f"AuthorizationPolicy {policy} is not there yet: without it clients could choose their arm"
                yield Problem(ConditionType.ROUTING_READY, Reason.ASSIGNMENT_UNPROVEN, message, stops_split=True)

    async def _features(self, key: ObjectKey, store: FeatureStore) -> AsyncIterator[Problem]:
        if store.feature_store_ref is not None:
            problem = self._feast(ObjectKey(key.namespace, store.feature_store_ref.name))
            if problem is not None:
                yield Problem(ConditionType.FEATURES_READY, Reason.FEATURE_STORE_NOT_FOUND, problem)
                return
        name = client_config_map(store)
        try:
            await self.api.get(CONFIG_MAP, ObjectKey(key.namespace, name))
        except NotFound:
            message = f"ConfigMap {name} is not in namespace {key.namespace}; make it, with feature_store.yaml"
            yield Problem(ConditionType.FEATURES_READY, Reason.FEATURE_STORE_NOT_FOUND, message)
        except KubeError as error:
            if error.ends_pass:
                raise
            message = f"ConfigMap {name} cannot be read: {error}"
            yield Problem(ConditionType.FEATURES_READY, Reason.REFUSED_BY_API, message)

    def _feast(self, key: ObjectKey) -> str | None:
        """Return why the Feast operator's FeatureStore ``key`` cannot be used; None if it can."""
        if self.objects.is_missing(FEATURE_STORE):
            return f"{FEATURE_STORE} is not installed; install the Feast operator, or give configMapRef"
        found = self.objects.get(FEATURE_STORE, key)
        if found is None:
            return f"FeatureStore {key} is not there; make it, or name another"
        phase = found.get("status", {}).get("phase", "")
        return None if phase == "Ready" else f"FeatureStore {key} is {phase or 'not ready'}; see its conditions"


def _names(key: ObjectKey, desired: Desired) -> Iterator[Problem]:
    for revision in desired.revisions.values():
        message = name_too_long(key.namespace, revision.name)
        if message is not None:
            yield Problem(ConditionType.VARIANTS_READY, Reason.NAME_TOO_LONG, message, stops_servers=True)
            return
