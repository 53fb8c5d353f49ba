"""A cluster with Istio's gateway and KServe around the API server in memory, and an operator's lives in it.

A life is led step by step: nothing runs but when the test says so, and all times are those of one clock. What goes on
by itself (watches, Lease, queue) is left to tests of whole operators.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fairlead_operator.assembly import Access, Control
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.connection import connect
from fairlead_operator.platforms.kubernetes.control import control_of
from fairlead_operator.platforms.kubernetes.controller import ModelDeploymentController
from fairlead_operator.platforms.kubernetes.events import EventSink
from fairlead_operator.platforms.kubernetes.kinds import CHILDREN, PARENT, Kind, Watched
from fairlead_operator.platforms.kubernetes.store import ObjectStore, key_of
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.settings import Settings
from support.gateway_stand_in import StandInGateway
from support.kube import Kind as ServedKind
from support.kube import KubeApiServer, feast_kinds, istio_kinds, kserve_kinds
from support.kube.store import Snapshot
from support.kube.world import World
from support.operators import CRD, HASTE
from support.route_laws import Memory, RouteLaws, shares

DELAY = ObjectKey("flights", "delay")
HOST = "delay.example.org"
RELEASE = "0.3.1"
_START_US = 1_780_000_000_000_000
_RESTS_WITHIN = 80
_HASTE = 40.0
"""How much faster than real time the operator's own clock goes: it waits for gateways in earnest."""


Moment = tuple[Snapshot, Memory, int]


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.us = _START_US

    def now_us(self) -> int:
        return self.us

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.us += round(seconds * 1e6)


def experiment(name: str = "delay", namespace: str = "flights", **spec: Any) -> dict[str, Any]:
    """Return a ModelDeployment with one treatment, by steps of 10 and 50 per cent; ``spec`` replaces parts of it."""
    return {
        "apiVersion": "serving.fairlead.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "featureStore": {"configMapRef": {"name": "feast-client"}},
            "serving": {"release": RELEASE},
            "variants": [variant("logistic", "Control"), variant("boosted", "Treatment")],
            "routing": routing(name),
            "rollout": {
                "strategy": "Experiment",
                "steps": [{"weights": {"boosted": 10}, "hold": "30m"}, {"weights": {"boosted": 50}}],
                "keepPrevious": "10m",
            },
            "experiment": {"id": "e1"},
            **spec,
        },
    }


def manual(weight: float = 10, name: str = "delay", **spec: Any) -> dict[str, Any]:
    """Return a ModelDeployment whose one treatment has ``weight`` per cent, by hand."""
    made = experiment(name, **{"rollout": {"weights": {"boosted": weight}}, **spec})
    made["spec"].pop("experiment", None) if "experiment" not in spec else None
    return made


def alone(name: str = "delay", **spec: Any) -> dict[str, Any]:
    """Return a ModelDeployment of a control alone."""
    made = experiment(name, **{"variants": [variant("logistic", "Control")], **spec})
    for part in ("rollout", "experiment"):
        if part not in spec:
            del made["spec"][part]
    return made


def routing(name: str = "delay", **more: Any) -> dict[str, Any]:
    """Return how a deployment is reached; units are in a header."""
    reached = {"hosts": [f"{name}.example.org"], "gateways": ["istio-ingress/public"], "unit": {"header": "x-unit-id"}}
    return {**reached, **more}


def variant(name: str, role: str, digest: str = "a", **more: Any) -> dict[str, Any]:
    """Return a variant; its digest is one hexadecimal digit here."""
    model = {"uri": f"s3://models/{name}.onnx", "digest": f"sha256:{digest * 64}"}
    return {"name": name, "role": role, "model": model, **more}


@dataclass
class Scene:
    """A cluster."""

    server: KubeApiServer
    world: World
    gateway: StandInGateway
    laws: RouteLaws
    clock: HandClock
    folder: Path

    @property
    def route(self) -> dict[str, Any] | None:
        """The VirtualService."""
        return self.server.get("VirtualService", "flights", "delay")

    @property
    def weights(self) -> dict[str, float]:
        """Per cent by variant, what has nothing left out."""
        found: dict[str, float] = {}
        for revision, width in shares(self.route).items():
            name = revision.split("-")[-2]
            if width:
                found[name] = found.get(name, 0) + width / 100
        return found

    def status(self, key: ObjectKey = DELAY) -> dict[str, Any]:
        """Return a ModelDeployment's status."""
        found = self.server.get("ModelDeployment", key.namespace, key.name)
        status: dict[str, Any] = (found or {}).get("status", {})
        return status

    def condition(self, sort: str, key: ObjectKey = DELAY) -> tuple[str, str, str]:
        """Return status, reason and message of a condition."""
        for one in self.status(key).get("conditions", ()):
            if one["type"] == sort:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    def reason(self, sort: str, key: ObjectKey = DELAY) -> str:
        """Return the reason of a condition."""
        return self.condition(sort, key)[1]

    def service(self, variant_name: str, key: ObjectKey = DELAY) -> str:
        """Return the newest InferenceService of a variant."""
        found = [
            one["metadata"]["name"]
            for one in sorted(
                self.server.objects("InferenceService", key.namespace), key=lambda one: one["metadata"]["uid"]
            )
            if one["metadata"]["name"].startswith(f"{key.name}-{variant_name}-")
        ]
        return str(found[-1])

    def edit(self, key: ObjectKey = DELAY, **spec: Any) -> None:
        """Change parts of a ModelDeployment's spec; None removes a part."""
        self.server.patch("ModelDeployment", key.namespace, key.name, {"spec": spec})

    def break_spec(self) -> None:
        """Have something in the spec that only an older schema let in; the API forgives what nobody changes."""
        kind = self.server.catalog.named("ModelDeployment")
        older = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        self.server.catalog.add(replace(kind, schema=older, ruled=False))
        variants = [{**variant("logistic", "Control"), "role": "Champion"}, variant("boosted", "Treatment")]
        self.edit(variants=variants)

    def annotate(self, key: ObjectKey = DELAY, **annotations: str | None) -> None:
        """Set annotations of our group; None removes one."""
        named = {f"serving.fairlead.dev/{name}": value for name, value in annotations.items()}
        self.server.patch("ModelDeployment", key.namespace, key.name, {"metadata": {"annotations": named}})

    def ours(self) -> list[tuple[str, str, str]]:
        """Return kind, namespace and name of everything with our label that we write ourselves, and our finalizers."""
        kinds = {watched.kind.kind for watched in CHILDREN} - {"Deployment", "Pod"} | {"Secret"}
        found = []
        for kind in sorted(kinds):
            if not any(served.kind == kind for served in self.server.catalog):
                continue
            for live in self.server.objects(kind):
                meta = live["metadata"]
                if meta.get("labels", {}).get("app.kubernetes.io/managed-by") == "fairlead":
                    found.append((kind, meta.get("namespace", ""), meta["name"]))
        return found

    def picture(self, *, records: bool = True) -> dict[tuple[str, str, str], object]:
        """Return everything that we write, as far as it does not differ from one cluster to another by itself.

        Args:
            records: Whether what rollouts remember belongs to it: times are part of that.
        """
        return {place: _told(self.server.get(*place) or {}, records=records) for place in self.ours()}

    def snapshot(self) -> Moment:
        """Return how everything is now."""
        return self.server.store.snapshot(), self.laws.memory, self.clock.us

    def restore(self, moment: Moment) -> None:
        """Have everything as it was; operators and watchers must be dead."""
        objects, self.laws.memory, self.clock.us = moment
        self.server.store.restore(objects)

    @asynccontextmanager
    async def life(self, **settings: Any) -> AsyncIterator[Life]:
        """Yield an operator that knows nothing yet; it is killed in the end."""
        given = Settings(default_release=RELEASE, own_namespace="default", **settings)
        connection = await connect(kubeconfig=self.server.kubeconfig(self.folder))
        client = KubeClient(connection, patience=HASTE, randomness=random.Random(4))  # noqa: S311 -- spreads pauses
        life = Life(self, client, given)
        try:
            yield life
        finally:
            await life.control.close()
            await client.close()


class Life:
    """One operator, from its start to its death, by hand."""

    def __init__(self, scene: Scene, client: KubeClient, settings: Settings) -> None:
        self.scene = scene
        self.store = ObjectStore([PARENT, *CHILDREN], self._changed)
        self.woken: set[ObjectKey] = set()
        """Keys that changes have had looked at again."""
        self.ledger_calls: list[tuple[str, str]] = []
        """Calls to the ledger, with their codes."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self.access = Access(
            api=client,
            objects=self.store,
            events=EventSink(client, instance="life", clock=scene.clock, new_id=_Counter()),
            clock=scene.clock,
            settings=settings,
            new_id=_Counter(),
            now=lambda: scene.clock.us / 1e6 + _HASTE * (loop.time() - begun),
            keep=self.store.put,
            enqueue=self.woken.add,
            enqueue_after=self._due,
            ledger_called=lambda call, code, duration_s: self.ledger_calls.append((call, code)),  # noqa: ARG005
            randomness=random.Random(7),  # noqa: S311 -- spreads pauses
        )
        self.control: Control = control_of(self.access)
        assert isinstance(self.control.controller, ModelDeploymentController)
        self.controller = self.control.controller
        self.reports = self.controller.reports
        self.error: OperatorError | None = None
        """What stopped the last look."""
        self.again_s: float | None = None
        """When the last look asked to be followed by another."""

    def see(self) -> None:
        """Let the store know what is."""
        for watched in (PARENT, *CHILDREN):
            found = self._served(watched)
            if found is None:
                self.store.mark_missing(watched.kind)
                continue
            keys = frozenset(self.store.put(watched.kind, live) for live in found)
            self.store.retain(watched.kind, keys)

    async def look(self, key: ObjectKey = DELAY) -> None:
        """Reconcile once, of the world as it is; ``error`` says what stopped it."""
        self.see()
        await self.act(key)

    async def act(self, key: ObjectKey = DELAY) -> None:
        """Reconcile once, of the world as it was last seen."""
        self.error, self.again_s = None, None
        try:
            self.again_s = await self.controller.reconcile(key)
        except OperatorError as error:
            self.error = error

    async def rest(self, *keys: ObjectKey) -> None:
        """Reconcile and let the cluster work until nothing changes any more.

        Raises:
            AssertionError: It never comes to rest.
        """
        await self.scene.world.settle()
        revision = self.scene.server.store.revision
        for _ in range(_RESTS_WITHIN):
            before = revision
            for key in keys or (DELAY,):
                await self.look(key)
            revision = self.scene.server.store.revision
            if revision == before:
                return
            await self.scene.world.settle()
            revision = self.scene.server.store.revision
        raise AssertionError(f"it never comes to rest; last writes: {[str(w) for w in self.scene.server.writes[-12:]]}")

    async def wait(self, seconds: float, *keys: ObjectKey) -> None:
        """Let time pass at once, then rest."""
        self.scene.clock.advance(seconds)
        await self.rest(*keys)

    async def sweep(self) -> None:
        """Do what is done at each resync besides reconciling."""
        self.see()
        for sweep in self.control.sweeps:
            await sweep()
        self.scene.server.settle()

    def _due(self, key: ObjectKey, delay_s: float) -> None:
        del key
        self.again_s = delay_s

    def _changed(self, kind: Kind, key: ObjectKey, owner: ObjectKey | None) -> None:
        if kind == PARENT.kind:
            self.woken.add(key)
        elif owner is not None:
            self.woken.add(owner)
        else:
            self.woken.update(self.control.dependents(kind, key))

    def _served(self, watched: Watched) -> list[dict[str, Any]] | None:
        kind = watched.kind
        if not any((one.group, one.kind) == (kind.group, kind.kind) for one in self.scene.server.catalog):
            return None
        wanted = watched.labels.items()
        return [
            live
            for live in self.scene.server.objects(kind.kind)
            if wanted <= live["metadata"].get("labels", {}).items()
        ]


class _Counter:
    """Gives names that nobody else has."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> str:
        self._last += 1
        return f"{self._last:08}"


@asynccontextmanager
async def scene_of(
    folder: Path,
    *manifests: dict[str, Any],
    kinds: Iterable[ServedKind] | None = None,
    prepare: Callable[[KubeApiServer], object] = lambda server: None,  # noqa: ARG005 -- prepares nothing
) -> AsyncIterator[Scene]:
    """Yield a cluster with KServe, Istio, a gateway, a feature store, and ``manifests`` in it."""
    served = [*kserve_kinds(), *istio_kinds(), *feast_kinds()] if kinds is None else list(kinds)
    clock = HandClock()
    async with AsyncExitStack() as stack:
        made = KubeApiServer(
            kinds=served, namespaces=["flights", "taxis"], clock=clock, bookmark_interval_s=0.2, new_uid=_Uids()
        )
        server = await stack.enter_async_context(made)
        server.create(deepcopy(_definition()))
        gateway = StandInGateway(server)
        await stack.enter_async_context(gateway.open())
        client = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"feature_store.yaml": "project: flights"}}
        for namespace in ("flights", "taxis"):
            server.create({**client, "metadata": {"name": "feast-client", "namespace": namespace}})
        prepare(server)
        for manifest in manifests:
            server.create(manifest)
        laws = RouteLaws(server, gateway)
        laws.install()
        yield Scene(server, World(server), gateway, laws, clock, folder)


def _told(live: dict[str, Any], *, records: bool) -> object:
    """Return what an object says; keys are drawn by chance, and with them what they sign."""
    meta = {name: live["metadata"].get(name) for name in ("labels", "annotations", "finalizers")}
    if not records:
        (meta["annotations"] or {}).pop("serving.fairlead.dev/rollout", None)
        live.get("data", {}).pop("rollout.json", None)
    owners = [one["name"] for one in live["metadata"].get("ownerReferences", ())]
    if live["kind"] == "Secret":
        return meta, owners
    if live["kind"] == "VirtualService":
        routes = [
            (route["name"], [(one["destination"]["host"], one["weight"]) for one in route.get("route", ())])
            for route in live["spec"]["http"]
        ]
        return meta, owners, routes
    return meta, owners, live.get("spec"), live.get("data")


@cache
def _definition() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(CRD.read_text(), Loader=yaml.CSafeLoader)
    return found


class _Uids:
    """Gives uids that are the same in each run, in their order."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> str:
        self._last += 1
        return f"{self._last:05x}000-0000-4000-8000-000000000000"


__all__ = [
    "DELAY",
    "HandClock",
    "Life",
    "Scene",
    "alone",
    "experiment",
    "key_of",
    "manual",
    "routing",
    "scene_of",
    "variant",
]
