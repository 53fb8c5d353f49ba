"""What the operator runs in a cluster: the controller of ModelDeployments, its sweeps, and what depends on what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import aiohttp
import httpx

from fairlead_operator.assembly import Access, Control
from fairlead_operator.metrics import Values
from fairlead_operator.platforms.kubernetes.controller import ModelDeploymentController
from fairlead_operator.platforms.kubernetes.feedback import FeedbackFiles
from fairlead_operator.platforms.kubernetes.gateways import GatewayFinder
from fairlead_operator.platforms.kubernetes.kinds import (
    CLUSTER_STORAGE_CONTAINER,
    FEATURE_STORE,
    GATEWAY,
    PARENT,
    REQUEST_AUTHENTICATION,
    SERVING_RUNTIME,
    Kind,
)
from fairlead_operator.platforms.kubernetes.reports import Reports
from fairlead_operator.platforms.kubernetes.sweeps import Sweeps
from fairlead_operator.platforms.kubernetes.unanswered.logs import GatewayLogs
from fairlead_operator.runtime.evidence import LedgerEvidence
from fairlead_operator.runtime.evidence import Terms as EvidenceTerms
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.ledger import LedgerClient

_SHARED_BY_ALL = (GATEWAY, REQUEST_AUTHENTICATION, CLUSTER_STORAGE_CONTAINER)
_SHARED_IN_NAMESPACE = (FEATURE_STORE, SERVING_RUNTIME)


@dataclass(frozen=True, slots=True)
class _Dependents:
    """Who is to be looked at again when something that is not ours changes."""

    access: Access

    def of(self, kind: Kind, key: ObjectKey) -> Iterable[ObjectKey]:
        """Return the deployments that may depend on an object."""
        parents = self.access.objects.keys(PARENT.kind)
        if kind in _SHARED_BY_ALL:
            return tuple(parents)
        if kind in _SHARED_IN_NAMESPACE:
            return tuple(parent for parent in parents if parent.namespace == key.namespace)
        return ()


def control_of(access: Access) -> Control:
    """Return what is run; called on the event loop."""
    settings = access.settings
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=64, force_close=True),
        timeout=aiohttp.ClientTimeout(total=settings.probe_timeout_s),
        auto_decompress=False,
    )
    sweeps = Sweeps(access)
    reports = Reports(session, access.now, settings.probe_timeout_s, settings.report_interval_s)
    feedback = FeedbackFiles(settings)
    client = LedgerClient(
        httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=16)),
        settings.ledger_timeout_s,
        feedback.operator_key,
        access.ledger_called,
        keyed=settings.ledger_url or "",
    )
    logs = GatewayLogs(access.api, client, access.clock, access.enqueue)
    terms = EvidenceTerms(settings.analysis_interval_s, lambda: settings.ledger_url)
    evidence = LedgerEvidence(client, terms, access.now, access.randomness)

    async def close() -> None:
        await evidence.close()
        await reports.close()

    controller = ModelDeploymentController(
        access=access,
        session=session,
        finder=GatewayFinder(access.api, access.objects, access.now, settings.child_namespaces),
        reports=reports,
        evidence=evidence,
        feedback=feedback,
        logs=logs,
    )
    return Control(
        controller=controller,
        sweeps=(sweeps.orphans, sweeps.unused_runtimes, sweeps.unused_storage, sweeps.unused_logs),
        dependents=_Dependents(access).of,
        work=logs.run,
        readings=_readings(logs),
        close=close,
    )


def _readings(logs: GatewayLogs) -> Mapping[str, Callable[[], Values]]:
    noted = logs.noted
    return {
        "fairlead_gateway_logs": lambda: {(): logs.followed},
        "fairlead_gateway_log_failures_total": lambda: {(): noted.failures},
        "fairlead_gateway_log_unread_seconds_total": lambda: {
            ("running",): noted.gap_us / 1e6,
            ("before",): noted.unknown_us / 1e6,
        },
        "fairlead_unanswered_requests_total": lambda: {
            ("told",): noted.told,
            ("late",): noted.late,
            ("lost",): noted.lost,
        },
    }
