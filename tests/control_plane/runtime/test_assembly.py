"""Whole operators against the API server in memory: what they do together, and how they end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from fairlead_operator.health import HealthServer
from fairlead_operator.platforms.kubernetes.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    MODEL_DEPLOYMENT,
    VIRTUAL_SERVICE,
    Kind,
    Watched,
    fields,
)
from fairlead_operator.runtime.keys import ObjectKey
from support.kube import End, FallSilent, Hang, KubeApiServer, Refuse, WatchError, calls, feast_kinds
from support.operators import (
    CRD,
    QUICK,
    Operator,
    config_map,
    model_deployment,
    operator_of,
)
from support.waiting import until

DELAY, FARES = ObjectKey("flights", "delay"), ObjectKey("flights", "fares")
FEW = (
    Watched(CONFIG_MAP, fields("data")),
    Watched(DEPLOYMENT, fields("status")),
    Watched(VIRTUAL_SERVICE, fields("spec"), optional=True),
)


def marks(server: KubeApiServer) -> set[str]:
    return {found["metadata"]["name"] for found in server.objects("ConfigMap", "flights")}


async def test_every_deployment_that_is_there_is_reconciled_once(server: KubeApiServer, tmp_path: Path) -> None:
    for name in ("delay", "fares"):
        server.create(model_deployment(name))
    async with operator_of(server, tmp_path, children=FEW) as operator:
        await until(lambda: {"delay-mark", "fares-mark"} <= marks(server))
        await asyncio.sleep(0.2)
        assert sorted(set(operator.controller.runs)) == [DELAY, FARES]
        assert operator.value("fairlead_leader") == 1
        assert operator.value("fairlead_stored_objects", kind="modeldeployments") == 2


async def test_kopf_tells_of_deployments_that_come_change_and_go(server: KubeApiServer, tmp_path: Path) -> None:
    async with operator_of(server, tmp_path, children=FEW, kopf=True) as operator:
        runs = operator.controller.runs
        await until(lambda: "modeldeployments.serving.fairlead.dev" in server.open_watches)
        server.create(model_deployment("delay"))
        await until(lambda: "delay-mark" in marks(server))
        await asyncio.sleep(0.1)
        runs.clear()
        server.patch("ModelDeployment", "flights", "delay", {"spec": {"paused": True}})
        await until(lambda: DELAY in runs)
        runs.clear()
        server.delete("ModelDeployment", "flights", "delay")
        await until(lambda: DELAY in runs)
        assert operator.runtime.store.get(MODEL_DEPLOYMENT, DELAY) is None
        writes = {record.call.plural for record in server.writes}
        assert writes == {"configmaps", "leases"}, "kopf writes nothing of its own"


@pytest.mark.parametrize("fault", [WatchError(410), FallSilent(), WatchError(500, "InternalError", "leader changed")])
async def test_deployments_are_heard_of_again_after_kopfs_watch_broke(
    server: KubeApiServer, tmp_path: Path, fault: WatchError | FallSilent
) -> None:
    async with operator_of(server, tmp_path, children=FEW, kopf=True, watch_silence_s=0.5) as operator:
        await until(lambda: "modeldeployments.serving.fairlead.dev" in server.open_watches)
        server.interrupt_watches(fault, "modeldeployments.serving.fairlead.dev")
        server.create(model_deployment("delay"))
        await until(lambda: "delay-mark" in marks(server))
        ended = isinstance(fault, WatchError) and fault.code == 500
        assert operator.value("fairlead_transport_restarts_total") == float(ended)
        assert operator.value("fairlead_leader") == 1


async def test_a_rotated_token_stops_nothing(tmp_path: Path) -> None:
    async with KubeApiServer(namespaces=["flights"], token="first", bookmark_interval_s=0.2) as server:  # noqa: S106
        server.load(CRD)
        async with operator_of(server, tmp_path, children=FEW, kopf=True) as operator:
            await until(lambda: "modeldeployments.serving.fairlead.dev" in server.open_watches)
            server.token = "second"  # noqa: S105 -- of a test
            server.kubeconfig(tmp_path)
            server.interrupt_watches(End())
            await asyncio.sleep(0.5)
            server.create(model_deployment("delay"))
            await until(lambda: "delay-mark" in marks(server))
            assert operator.value("fairlead_transport_restarts_total") == 0
            refused = [record for record in server.requests if record.code == 401]
            assert refused, "somebody met it first"
            assert len(refused) < 20, "and it was read again at once"


async def test_a_child_that_is_deleted_or_edited_has_its_owner_run(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(model_deployment("delay"))
    async with operator_of(server, tmp_path, children=FEW):
        await until(lambda: "delay-mark" in marks(server))
        server.delete("ConfigMap", "flights", "delay-mark")
        await until(lambda: "delay-mark" in marks(server))


async def test_a_kind_that_appears_has_every_deployment_run(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(model_deployment("delay"))
    (feast,) = feast_kinds()
    kind = Kind(feast.group, feast.version, feast.kind, feast.plural)
    children = (*FEW, Watched(kind, fields("status"), labels={}, optional=True))
    needed = {kind: (DELAY,)}
    async with operator_of(
        server, tmp_path, children=children, dependents=lambda kind, _: needed.get(kind, ())
    ) as operator:
        for reflector in operator.runtime.reflectors:
            object.__setattr__(reflector._terms, "first_probe_s", 0.05)
        await until(lambda: operator.runtime.store.is_missing(kind))
        await until(lambda: "delay-mark" in marks(server))
        operator.controller.runs.clear()
        server.register(feast)
        await until(lambda: DELAY in operator.controller.runs, timeout_s=10)
        operator.controller.runs.clear()
        server.create(
            {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "metadata": {"name": "feast", "namespace": "flights"},
                "spec": {"feastProject": "flights"},
            }
        )
        await until(lambda: DELAY in operator.controller.runs)


async def test_the_crd_may_come_after_the_operator(tmp_path: Path) -> None:
    async with (
        KubeApiServer(namespaces=["flights"], bookmark_interval_s=0.2) as server,
        operator_of(server, tmp_path, children=FEW) as operator,
    ):
        await until(lambda: operator.runtime.store.is_missing(MODEL_DEPLOYMENT))
        assert operator.runtime.ready["store"]() == "not listed yet: modeldeployments.serving.fairlead.dev"
        server.load(CRD)
        server.create(model_deployment("delay"))
        await until(lambda: "delay-mark" in marks(server))
        assert operator.runtime.ready["store"]() is None


async def test_a_resync_finds_what_no_event_told_and_sweeps(server: KubeApiServer, tmp_path: Path) -> None:
    swept: list[bool] = []

    async def sweep() -> None:
        swept.append(True)

    async with operator_of(server, tmp_path, children=FEW, sweeps=[sweep], resync_interval_s=0.2) as operator:
        await until(lambda: bool(swept))
        server.create(model_deployment("delay"))  # nobody watches deployments here
        await until(lambda: "delay-mark" in marks(server))
        server.faults.inject(Refuse(500), calls("list", "modeldeployments"), times=4)
        await until(lambda: operator.value("fairlead_resyncs_total", result="error") >= 1)


async def test_of_two_operators_one_writes_and_the_other_is_ready(server: KubeApiServer, tmp_path: Path) -> None:
    async with operator_of(server, tmp_path, name="one", children=FEW) as one:
        await until(lambda: one.value("fairlead_leader") == 1)
        async with operator_of(server, tmp_path, name="two", children=FEW) as two:
            await until(lambda: two.runtime.ready["store"]() is None)
            server.create(model_deployment("delay"))
            server.create(config_map("poke", owner=DELAY))
            await until(lambda: "delay-mark" in marks(server) or DELAY in one.controller.runs)
            await asyncio.sleep(0.3)
            assert two.controller.runs == []
            await one.stop()
            await until(lambda: "delay-mark" in marks(server), timeout_s=2)
            assert set(two.controller.runs) == {DELAY}


async def test_a_leader_that_is_stopped_past_its_lease_and_goes_on_in_a_reconcile_writes_nothing(
    server: KubeApiServer, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    leapt_s = 0.0
    server.create(model_deployment("delay"))
    async with operator_of(server, tmp_path, name="one", children=FEW, now=lambda: loop.time() + leapt_s) as one:
        one.controller.gate.clear()
        await one.controller.entered.wait()  # it has decided to write, and is stopped
        leapt_s = 100.0
        server.patch("Lease", "default", "fairlead-operator", {"spec": {"holderIdentity": "two"}})
        one.controller.gate.set()
        await asyncio.sleep(0.5)
        assert one.controller.written == 0
        assert "delay-mark" not in marks(server)
        assert one.value("fairlead_leader") == 0


async def test_stop_lets_a_reconcile_end_and_releases_the_lease(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(model_deployment("delay"))
    server.create(model_deployment("fares"))
    async with operator_of(server, tmp_path, children=FEW, workers=1) as operator:
        operator.controller.gate.clear()
        await operator.controller.entered.wait()
        operator.runtime.stop()
        await asyncio.sleep(0.1)
        operator.controller.gate.set()
        await operator.task
        assert operator.controller.written == 1
        assert len(operator.controller.runs) == 1
        lease = server.get("Lease", "default", "fairlead-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == ""


async def test_stop_abandons_a_reconcile_that_does_not_end(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(model_deployment("delay"))
    async with operator_of(server, tmp_path, children=FEW, shutdown_s=0.2) as operator:
        operator.controller.gate.clear()
        await operator.controller.entered.wait()
        async with asyncio.timeout(3):
            await operator.stop()
        assert operator.controller.written == 0
        lease = server.get("Lease", "default", "fairlead-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == ""


async def test_the_end_of_a_part_is_the_end_of_the_operator(server: KubeApiServer, tmp_path: Path) -> None:
    async with operator_of(server, tmp_path, children=FEW) as operator:
        await until(lambda: operator.value("fairlead_leader") == 1)

        def broken(*_: object) -> None:
            raise KeyError("a bug in the store")

        operator.runtime.store._changed = broken
        server.create(config_map("poke", owner=DELAY))
        await until(operator.task.done)
        assert isinstance(operator.task.exception(), ExceptionGroup)


async def answers(operator: Operator) -> dict[str, tuple[int, str]]:
    runtime = operator.runtime
    server = HealthServer(
        live=runtime.live, ready=runtime.ready, registry=operator.metrics.registry, host="127.0.0.1", port=0
    )
    found = {}
    async with server, aiohttp.ClientSession() as session:
        for path in ("livez", "readyz", "metrics"):
            async with session.get(f"http://127.0.0.1:{server.port}/{path}") as response:
                found[path] = (response.status, await response.text())
    return found


async def test_a_healthy_operator_is_live_and_ready_and_counts(server: KubeApiServer, tmp_path: Path) -> None:
    async with operator_of(server, tmp_path, children=FEW) as operator:
        await until(lambda: operator.value("fairlead_leader") == 1)
        found = await answers(operator)
        assert found["livez"] == (200, "ok\n")
        assert found["readyz"] == (200, "ok\n")
        assert 'fairlead_api_calls_total{code="200",kind="configmaps",verb="list"} 1.0' in found["metrics"][1]


async def test_livez_fails_once_a_watch_is_deaf_though_the_loop_lives(server: KubeApiServer, tmp_path: Path) -> None:
    leapt_s = 0.0
    loop = asyncio.get_running_loop()
    async with operator_of(server, tmp_path, children=FEW, now=lambda: loop.time() + leapt_s) as operator:
        await until(lambda: operator.value("fairlead_leader") == 1)
        server.faults.inject(Hang(), calls("watch", "deployments"), times=1000)
        server.interrupt_watches(FallSilent(), "deployments.apps")
        leapt_s = QUICK_STALE_S
        status, text = (await answers(operator))["livez"]
        assert status == 503
        assert "deployments.apps" in text
        await until(lambda: "configmaps" not in (operator.runtime.live["watches"]() or ""))


async def test_livez_fails_once_a_list_told_what_the_watch_of_deployments_never_does(
    server: KubeApiServer, tmp_path: Path
) -> None:
    leapt_s = 0.0
    loop = asyncio.get_running_loop()
    async with operator_of(
        server, tmp_path, children=FEW, kopf=True, now=lambda: loop.time() + leapt_s, watch_silence_s=1
    ) as operator:
        deaf = operator.runtime.live["deployments"]
        await until(lambda: "modeldeployments.serving.fairlead.dev" in server.open_watches)
        server.interrupt_watches(FallSilent(), "modeldeployments.serving.fairlead.dev")
        server.create(model_deployment("delay"))
        await operator.runtime.resync.once()
        assert deaf() is None
        leapt_s = QUICK_STALE_S
        assert deaf() == "the watch has kept changes of ModelDeployments from us for 301 s"
        await until(lambda: deaf() is None)  # opened anew, it tells


async def test_only_the_namespaces_that_were_given_are_served(server: KubeApiServer, tmp_path: Path) -> None:
    async with operator_of(server, tmp_path, children=FEW, kopf=True, namespaces="flights") as operator:
        await until(lambda: "modeldeployments.serving.fairlead.dev" in server.open_watches)
        server.create(model_deployment("elsewhere", "taxis"))
        server.create(model_deployment("delay"))
        await until(lambda: "delay-mark" in marks(server))
        assert set(operator.controller.runs) == {DELAY}
        asked = {record.call.namespace for record in server.requests if record.call.verb == "list"}
        assert asked == {"flights", "istio-ingress"}


async def test_livez_fails_once_a_worker_is_stuck(server: KubeApiServer, tmp_path: Path) -> None:
    leapt_s = 0.0
    loop = asyncio.get_running_loop()
    server.create(model_deployment("delay"))
    async with operator_of(
        server, tmp_path, children=FEW, now=lambda: loop.time() + leapt_s, reconcile_deadline_s=60, shutdown_s=0.1
    ) as operator:
        operator.controller.gate.clear()
        await operator.controller.entered.wait()
        assert operator.runtime.live["workers"]() is None
        leapt_s = 200.0
        assert operator.runtime.live["workers"]() == "a reconcile has been running for 200 s"


async def test_readyz_fails_until_the_store_is_filled(server: KubeApiServer, tmp_path: Path) -> None:
    server.faults.inject(Hang(), calls("list", "deployments"), times=2)
    async with operator_of(server, tmp_path, children=FEW) as operator:
        await until(lambda: operator.runtime.store.is_filled(CONFIG_MAP))
        await until(lambda: operator.runtime.ready["store"]() == "not listed yet: deployments.apps")
        assert operator.value("fairlead_leader") == 0
        await until(lambda: operator.value("fairlead_leader") == 1)


async def test_conditions_are_counted_as_they_change(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(model_deployment("delay"))
    async with operator_of(server, tmp_path, children=FEW, kopf=True) as operator:
        await until(lambda: "modeldeployments.serving.fairlead.dev" in server.open_watches)
        ready = {"type": "Ready", "status": "False", "reason": "Starting", "message": "", "observedGeneration": 1}
        ready["lastTransitionTime"] = "2026-11-21T07:00:00Z"
        server.set_status("ModelDeployment", "flights", "delay", {"conditions": [ready]})
        await until(lambda: operator.value("fairlead_deployments", condition="Ready", status="False") == 1)
        server.set_status("ModelDeployment", "flights", "delay", {"conditions": [{**ready, "status": "True"}]})
        await until(lambda: operator.value("fairlead_deployments", condition="Ready", status="True") == 1)
        assert operator.value("fairlead_deployments", condition="Ready", status="False") == 0
        judged = {"id": "e1", "verdict": "Invalid", "reason": "SampleRatio"}
        server.set_status("ModelDeployment", "flights", "delay", {"conditions": [], "experiment": judged})
        await until(lambda: operator.value("fairlead_experiments", verdict="Invalid", reason="SampleRatio") == 1)


QUICK_STALE_S = 301.0
assert "stale_after_s" not in QUICK
