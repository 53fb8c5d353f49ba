"""What stores suffer while they are asked: each scenario starts servers of its own and harms them for five seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from support.proxies import Proxy, Way
from support.redis_topologies import Cluster, Sentinel, cluster, sentinel
from support.servers import RedisServer
from support.waiting import until

FAULT_S = 5.0
"""How long it lasts."""
_FLAP_S = 0.5
_SLOWNESS_S = 0.3
_FAILOVER_S = 60.0
_PASSWORD = "right"  # noqa: S105 -- of a server of a few seconds


@dataclass(frozen=True, slots=True)
class Sick:
    """A store, and how it is harmed."""

    online_store: Mapping[str, str]
    """The block ``online_store`` of a feature_store.yaml."""
    harm: Callable[[], Awaitable[None]]
    """Harms it for a while; when this returns it is well again, as far as whoever runs it can see."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table."""

    name: str
    title: str
    run: Callable[[Path], Any]
    """An asynchronous context manager that gives a ``Sick``."""


@asynccontextmanager
async def _frozen(folder: Path) -> AsyncIterator[Sick]:
    with RedisServer(folder) as server:

        async def harm() -> None:
            server.freeze()
            await asyncio.sleep(FAULT_S)
            server.thaw()

        yield Sick(server.online_store, harm)


@asynccontextmanager
async def _killed(folder: Path) -> AsyncIterator[Sick]:
    with RedisServer(folder, options=["--appendonly", "yes"]) as server:

        async def harm() -> None:
            server.kill()
            await asyncio.sleep(FAULT_S)
            await asyncio.to_thread(server.start)

        yield Sick(server.online_store, harm)


@asynccontextmanager
async def _flapping(folder: Path) -> AsyncIterator[Sick]:
    with RedisServer(folder) as server:

        async def harm() -> None:
            for _ in range(round(FAULT_S / _FLAP_S / 2)):
                server.freeze()
                await asyncio.sleep(_FLAP_S)
                server.thaw()
                await asyncio.sleep(_FLAP_S)

        yield Sick(server.online_store, harm)


@asynccontextmanager
async def _wrong_password(folder: Path) -> AsyncIterator[Sick]:
    with RedisServer(folder) as server, redis.Redis(port=server.port) as opened:
        admin: Any = opened
        admin.execute_command("ACL", "SETUSER", "reader", "on", f">{_PASSWORD}", "~*", "+@all")

        async def harm() -> None:
            admin.execute_command("ACL", "SETUSER", "reader", "resetpass", ">another")
            admin.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(FAULT_S)
            admin.execute_command("ACL", "SETUSER", "reader", f">{_PASSWORD}")

        string = f"{server.address},username=reader,password={_PASSWORD}"
        yield Sick({"type": "redis", "connection_string": string}, harm)


def _through_proxy(way: Way) -> Callable[[Path], Any]:
    @asynccontextmanager
    async def run(folder: Path) -> AsyncIterator[Sick]:
        with RedisServer(folder) as server:
            async with Proxy(server.port, delay_s=_SLOWNESS_S).running() as proxy:

                async def harm() -> None:
                    proxy.way = way
                    await asyncio.sleep(FAULT_S)
                    proxy.way = Way.OPEN

                yield Sick(proxy.online_store, harm)

    return run


@asynccontextmanager
async def _master_killed(folder: Path) -> AsyncIterator[Sick]:
    with await asyncio.to_thread(_entered, sentinel(folder, sentinels=3)) as store:

        async def harm() -> None:
            await asyncio.to_thread(store.wait_for_replica)
            store.master.kill()
            await until(lambda: asyncio.to_thread(_has_failed_over, store), timeout_s=_FAILOVER_S)

        yield Sick(store.online_store, harm)


def _has_failed_over(store: Sentinel) -> bool:
    return store.master_port() == store.replica.port


@asynccontextmanager
async def _failover(folder: Path) -> AsyncIterator[Sick]:
    with await asyncio.to_thread(_entered, sentinel(folder, sentinels=3)) as store:

        async def harm() -> None:
            await asyncio.to_thread(store.wait_for_replica)
            await asyncio.to_thread(store.fail_over)
            await until(lambda: asyncio.to_thread(_has_failed_over, store), timeout_s=_FAILOVER_S)

        yield Sick(store.online_store, harm)


@asynccontextmanager
async def _slots_move(folder: Path) -> AsyncIterator[Sick]:
    with await asyncio.to_thread(_entered, cluster(folder)) as store:
        yield Sick(store.online_store, lambda: asyncio.to_thread(_move_all, store))


def _move_all(store: Cluster) -> None:
    """Move all keys of the first node to the second, slot by slot."""
    start, end, _ = store.nodes
    by_slot: dict[int, list[bytes]] = {}
    for key in store.keys(start):
        by_slot.setdefault(key_slot(key), []).append(key)
    for slot, keys in by_slot.items():
        store.begin_move(slot, start, end)
        for key in keys:
            store.move_key(key, start, end)
        store.end_move(slot, start, end)


@asynccontextmanager
async def _node_frozen(folder: Path) -> AsyncIterator[Sick]:
    with await asyncio.to_thread(_entered, cluster(folder)) as store:

        async def harm() -> None:
            store.nodes[0].freeze()
            await asyncio.sleep(FAULT_S)
            store.nodes[0].thaw()

        yield Sick(store.online_store, harm)


@asynccontextmanager
async def _replica_takes_over(folder: Path) -> AsyncIterator[Sick]:
    with await asyncio.to_thread(_entered, cluster(folder, replica=True)) as store:

        async def harm() -> None:
            store.nodes[0].kill()
            await until(lambda: asyncio.to_thread(_has_taken_over, store), timeout_s=_FAILOVER_S)

        yield Sick(store.online_store, harm)


def _has_taken_over(store: Cluster) -> bool:
    """Tell whether the replica has slots for all others that live."""
    ports = []
    for node in store.nodes[1:]:
        with redis.Redis(port=node.port) as opened:
            asked: Any = opened
            ports.append({owner[1] for _, _, owner, *_ in asked.execute_command("CLUSTER SLOTS")})
    return all(store.replica is not None and store.replica.port in of_node for of_node in ports)


class _Entered:
    """A context that was entered in a thread."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._what = context.__enter__()

    def __enter__(self) -> Any:
        return self._what

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)


def _entered(context: Any) -> _Entered:
    return _Entered(context)


SCENARIOS = (
    Scenario("frozen", "Redis frozen (SIGSTOP) for 5 s", _frozen),
    Scenario("killed", "Redis killed, restarted after 5 s", _killed),
    Scenario("flapping", "Redis frozen and thawed every 0.5 s", _flapping),
    Scenario("half-open", "connections accepted, everything swallowed for 5 s", _through_proxy(Way.SWALLOWED)),
    Scenario("cut", "connections closed at the first byte for 5 s", _through_proxy(Way.CUT)),
    Scenario("slow", "answers 0.3 s late for 5 s", _through_proxy(Way.SLOW)),
    Scenario("password", "password changed for 5 s, clients thrown out", _wrong_password),
    Scenario("sentinel-killed", "master behind Sentinel killed", _master_killed),
    Scenario("sentinel-failover", "failover of a healthy master by Sentinel", _failover),
    Scenario("cluster-slots", "a Cluster node's slots moved, key by key", _slots_move),
    Scenario("cluster-failover", "a Cluster node killed, its replica takes over", _replica_takes_over),
    Scenario("cluster-frozen", "one of three Cluster nodes frozen for 5 s", _node_frozen),
)
