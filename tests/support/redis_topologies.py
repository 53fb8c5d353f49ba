"""Redis as it runs in production, on the loopback: with TLS and users, behind Sentinel, as a Cluster."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from support.servers import RedisServer, free_port, need_redis
from support.waiting import until_so

MASTER = "features"
"""What Sentinel calls the master."""


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[RedisServer, str]]:
    """Run a redis-server for TLS and clients with a certificate; gives settings for a connection string."""
    need_redis()
    for name, subject in (("ca", "/CN=features CA"), ("server", "/CN=127.0.0.1"), ("client", "/CN=reader")):
        _make_certificate(folder, name, subject)
    port = free_port()
    options = ["--port", "0", "--tls-port", str(port), "--tls-ca-cert-file", "ca.crt", "--tls-auth-clients", "yes"]
    options += ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key"]
    settings = {"ssl": "true", "ssl_ca_certs": "ca.crt", "ssl_certfile": "client.crt", "ssl_keyfile": "client.key"}
    with RedisServer(folder, port, options=options) as server:
        yield server, ",".join(f"{k}={v if k == 'ssl' else folder / v}" for k, v in settings.items())


def _make_certificate(folder: Path, name: str, subject: str) -> None:
    """Make ``name.key`` and ``name.crt``, signed by the authority ``ca``, or by itself if it is that."""
    key, of = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"], "ca"
    signed = ["-CA", f"{of}.crt", "-CAkey", f"{of}.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    request = ["openssl", "req", "-x509", *key, "-subj", subject, "-days", "1", "-out", f"{name}.crt"]
    subprocess.run([*request, *([] if name == of else signed)], cwd=folder, check=True, capture_output=True)


@dataclass(slots=True)
class Sentinel:
    """A master, a replica, and Sentinels that watch them."""

    folder: Path
    master: RedisServer
    replica: RedisServer
    ports: list[int] = field(default_factory=list)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def online_store(self) -> dict[str, str]:
        """The block ``online_store`` of a feature_store.yaml."""
        servers = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return {
            "type": "redis",
            "redis_type": "redis_sentinel",
            "sentinel_master": MASTER,
            "connection_string": servers,
        }

    def start_sentinel(self, quorum: int) -> None:
        """Start one more."""
        port = free_port()
        config = self.folder / f"sentinel-{port}.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\nprotected-mode no\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self.master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} 500\n"
            f"sentinel failover-timeout {MASTER} 3000\n"
        )
        process = subprocess.Popen(["redis-server", str(config), "--sentinel"], cwd=self.folder, stdout=subprocess.PIPE)
        self._processes.append(process)
        self.ports.append(port)
        assert process.stdout is not None
        if not any(b"+monitor" in line for line in process.stdout):
            raise RuntimeError("the sentinel did not start")

    def freeze_sentinel(self, which: int) -> None:
        self._processes[which].send_signal(signal.SIGSTOP)

    def wait_for_replica(self) -> None:
        """Return once the replica has all that was written: a failover loses what it has not."""
        with redis.Redis(port=self.master.port) as master, redis.Redis(port=self.replica.port) as replica:
            until_so(lambda: _is_online(master.info("replication")))
            written = master.info("replication")["master_repl_offset"]
            until_so(lambda: replica.info("replication")["slave_repl_offset"] >= written)

    def master_port(self) -> int:
        """Return the port of whoever is the master for the last sentinel."""
        with redis.Redis(port=self.ports[-1], decode_responses=True) as asked:
            _, port = asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
            return int(port)

    def fail_over(self) -> None:
        """Have the replica become the master, without anything having failed."""
        with redis.Redis(port=self.ports[-1]) as asked:
            asked.execute_command("SENTINEL", "FAILOVER", MASTER)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@contextmanager
def sentinel(folder: Path, *, sentinels: int = 1) -> Iterator[Sentinel]:
    """Run a master, its replica in step, and Sentinels that know of it and of each other."""
    need_redis()
    at_once = ["--repl-diskless-sync-delay", "0"]
    with ExitStack() as stack:
        master = stack.enter_context(RedisServer(folder, options=at_once))
        of_master = ["--replicaof", f"127.0.0.1 {master.port}", *at_once]
        replica = stack.enter_context(RedisServer(folder, options=of_master))
        with redis.Redis(port=replica.port) as asked:
            until_so(lambda: asked.info("replication")["master_link_status"] == "up")
        made = Sentinel(folder, master, replica)
        stack.callback(made.close)
        for _ in range(sentinels):
            made.start_sentinel(sentinels // 2 + 1)
        for port in made.ports:
            with redis.Redis(port=port) as asked:
                until_so(lambda: _knows(asked, sentinels))
        yield made


def _is_online(told: Any) -> bool:
    return bool(told["connected_slaves"] == 1 and told["slave0"]["state"] == "online")


def _knows(asked: Any, sentinels: int) -> bool:
    state = asked.sentinel_masters()[MASTER]
    return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == sentinels - 1)


@dataclass(slots=True)
class Cluster:
    """A Redis Cluster."""

    nodes: Sequence[RedisServer]
    """Those that have slots at first."""
    replica: RedisServer | None = None
    """Of the first node, if there is one."""

    @property
    def online_store(self) -> dict[str, str]:
        """The block ``online_store`` of a feature_store.yaml."""
        servers = ",".join(node.address for node in self.nodes)
        return {"type": "redis", "redis_type": "redis_cluster", "connection_string": servers}

    def keys(self, node: RedisServer) -> list[bytes]:
        """Return the keys of a node."""
        with redis.Redis(port=node.port) as asked:
            return list(asked.scan_iter())

    def begin_move(self, slot: int, start: RedisServer, end: RedisServer) -> None:
        """Declare that a slot moves: keys that are gone from its node are asked of the other one."""
        with redis.Redis(port=start.port) as from_, redis.Redis(port=end.port) as to:
            to.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(from_))
            from_.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(to))

    def move_key(self, key: bytes, start: RedisServer, end: RedisServer) -> None:
        with redis.Redis(port=start.port) as from_:
            from_.execute_command("MIGRATE", end.host, end.port, key, 0, 5000)

    def end_move(self, slot: int, start: RedisServer, end: RedisServer) -> None:
        """Declare that a slot has moved."""
        with redis.Redis(port=start.port) as from_, redis.Redis(port=end.port) as to:
            node_id = _id(to)
            to.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id)
            from_.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id)

    def move(self, key: bytes, start: RedisServer, end: RedisServer) -> None:
        """Move a key and its slot, in which there must be no other."""
        slot = key_slot(key)
        self.begin_move(slot, start, end)
        self.move_key(key, start, end)
        self.end_move(slot, start, end)


@contextmanager
def cluster(folder: Path, *, size: int = 3, replica: bool = False) -> Iterator[Cluster]:
    """Run a Cluster whose nodes agree on who has which slots; the first may have a replica."""
    need_redis()
    with ExitStack() as stack:
        nodes = []
        buses = []
        for i in range(size + replica):
            bus = free_port()
            options = ["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{i}.conf"]
            options += ["--cluster-port", str(bus), "--cluster-node-timeout", "2000"]
            options += ["--cluster-require-full-coverage", "no"]
            nodes.append(stack.enter_context(RedisServer(folder, options=options)))
            buses.append(bus)
        asked: list[Any] = [stack.enter_context(redis.Redis(port=node.port)) for node in nodes]
        masters, others = asked[:size], asked[size:]
        bounds = [16384 * i // size for i in range(size + 1)]
        for i, one in enumerate(masters):
            one.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            one.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            asked[0].execute_command("CLUSTER", "MEET", node.host, node.port, bus)
        until_so(lambda: all(_agrees(one, size) for one in asked))
        until_so(lambda: all(_replicates(one, _id(masters[0])) for one in others))
        yield Cluster(nodes[:size], nodes[size] if replica else None)


def _agrees(asked: Any, size: int) -> bool:
    told = asked.execute_command("CLUSTER INFO")
    slots = asked.execute_command("CLUSTER SLOTS")
    state = told["cluster_state"] if isinstance(told, dict) else ("ok" if b"cluster_state:ok" in told else "fail")
    return bool(state == "ok" and len(slots) == size)


def _replicates(asked: Any, node_id: str) -> bool:
    """Have a node replicate another; tell whether it is in step."""
    told = asked.info("replication")
    if told["role"] == "master":
        asked.execute_command("CLUSTER", "REPLICATE", node_id)
    return bool(told.get("master_link_status") == "up")


def _id(asked: Any) -> str:
    told = asked.execute_command("CLUSTER MYID")
    return str(told.decode() if isinstance(told, bytes) else told)
