"""Asks a Redis Cluster: every node at once for what it has, each by itself, so that a sick one fails alone.

Where keys live is asked of the cluster when it is first needed, and again, beside the requests, whenever a node says
that a key has moved or does not answer. A key that is moving is followed at once (``MOVED``, ``ASK``).

A node that does not answer in time costs its own keys, which are told as errors in their places; so is one that has
failed several times in a row, without being asked, until it answers a ``PING`` again. If no node is well, nothing
is told in places: the read fails as that of a single server does, and whoever reads decides when to try again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError
from redis.exceptions import ConnectionError as RedisConnectionError

from fairlead_server.hydrate.breaker import Breaker, Circuit
from fairlead_server.hydrate.redis_line import Heard, Replies
from fairlead_server.hydrate.redis_single import UNREACHABLE, Command, SingleClient

_LOG = logging.getLogger(__name__)
_HOPS = 3
"""Times that a key is asked for: where it was, where it is said to have moved, and where it was moved meanwhile."""
_SHARE_OF_DEADLINE = 0.75
"""After so much of the deadline a node's part is given up, so that what others have answered is in time."""
_GRACE_TURNS = 8
"""Turns of the event loop (microseconds each) between an answer's arrival and whoever waits for it."""
_CLUSTER_SLOTS = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n"
_PING = b"*1\r\n$4\r\nPING\r\n"
_ASKING = b"*1\r\n$6\r\nASKING\r\n"

Address = tuple[str, int]
Connect = Callable[[str, int], SingleClient]


@dataclass(slots=True, eq=False)
class _Node:
    address: Address
    client: SingleClient
    breaker: Breaker
    failing: bool = False
    """Whether it did not answer when it was last asked."""
    next_try: asyncio.TimerHandle | None = None

    @property
    def is_left_alone(self) -> bool:
        return self.breaker.circuit is not Circuit.CLOSED

    def note_answer(self) -> None:
        self.failing = False
        self.breaker.succeeded()


@dataclass(slots=True)
class _Asked:
    """Commands for one node, by their places in the request."""

    places: list[int] = field(default_factory=list)
    payload: list[bytes] = field(default_factory=list)
    replies: list[int] = field(default_factory=list)
    """Places of their replies among those of the node."""

    def add(self, place: int, packed: bytes, *, asking: bool) -> None:
        if asking:
            self.payload.append(_ASKING)
        self.replies.append(len(self.payload))
        self.payload.append(packed)
        self.places.append(place)


class ClusterClient:
    """A Redis Cluster."""

    def __init__(self, servers: Sequence[Address], connect: Connect, *, deadline_s: float, connect_s: float) -> None:
        """Make the client; nothing is connected yet.

        Args:
            servers: Some of the nodes.
            connect: Gives a client for one node.
            deadline_s: Longest wait of a request, seconds.
            connect_s: Longest time that making a connection may take, seconds.
        """
        self._connect = connect
        self._servers = list(servers)
        self._patience_s = _SHARE_OF_DEADLINE * deadline_s
        self._connect_s = connect_s
        self._nodes: dict[Address, _Node] = {}
        self._owners: list[_Node | None] = []
        """By slot, empty if it is not known yet."""
        self._learning: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Learn where keys live, and connect to every node."""
        try:
            await self._learned()
        except UNREACHABLE as error:
            _LOG.info("no node of the cluster can be asked error=%s", type(error).__name__)
            return
        await asyncio.gather(*(node.client.connect() for node in self._nodes.values()))

    async def ask(self, commands: Sequence[Command]) -> Replies:
        """Ask for hashes, each of the node that has it.

        Returns:
            By command values, the ``ResponseError`` that its node gave, or why its node could not be asked.

        Raises:
            RedisError: No node can be asked.
            OSError: The same.
            TimeoutError: No node answers in time.
        """
        if not self._owners:
            await self._learned()
        give_up_s = asyncio.get_running_loop().time() + self._patience_s
        replies: Replies = [None] * len(commands)
        parts: dict[_Node, _Asked] = {}
        for place, command in enumerate(commands):
            node = self._owners[key_slot(command.key)]
            if node is None:
                replies[place] = ClusterDownError("the slot is not served")
                self._learn()
            else:
                parts.setdefault(node, _Asked()).add(place, command.packed, asking=False)
        for _ in range(_HOPS):
            await self._ask_nodes(parts, replies, give_up_s)
            parts = self._redirected(commands, replies, parts)
            if not parts:
                break
        self._raise_if_none_is_well(replies)
        return replies

    def start(self, commands: Sequence[Command], give_up_s: float, heard: Heard) -> bool:
        """Return False: several nodes are waited for."""
        del commands, give_up_s, heard
        return False

    async def close(self) -> None:
        """Close all connections."""
        tasks = {task for task in (self._learning, *self._tasks) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for node in list(self._nodes.values()):
            await _close(node)

    async def _ask_nodes(self, parts: dict[_Node, _Asked], replies: Replies, give_up_s: float) -> None:
        answered = [self._ask_node(node, asked, give_up_s) for node, asked in parts.items()]
        # A single part needs no task.
        of_nodes = [await answered[0]] if len(answered) == 1 else await asyncio.gather(*answered)
        for asked, of_node in zip(parts.values(), of_nodes, strict=True):
            for place, reply in zip(asked.places, asked.replies, strict=True):
                replies[place] = of_node if isinstance(of_node, Exception) else of_node[reply]

    async def _ask_node(self, node: _Node, asked: _Asked, give_up_s: float) -> Replies | Exception:
        if node.is_left_alone and any(not other.failing for other in self._nodes.values()):
            return RedisConnectionError("the node does not answer")
        try:
            async with _patience(give_up_s):
                replies = await node.client.exchange(b"".join(asked.payload), len(asked.payload))
        except UNREACHABLE as error:
            self._note_failure(node)
            return error
        node.note_answer()
        return replies

    def _redirected(
        self, commands: Sequence[Command], replies: Replies, asked: dict[_Node, _Asked]
    ) -> dict[_Node, _Asked]:
        """Return what is to be asked of another node."""
        parts: dict[_Node, _Asked] = {}
        for former, of_node in asked.items():
            for place in of_node.places:
                reply = replies[place]
                if isinstance(reply, AskError):  # and so MovedError
                    node = self._node((reply.host or former.address[0], reply.port))
                    moved = isinstance(reply, MovedError)
                    if moved:
                        self._owners[reply.slot_id] = node
                        self._learn()
                    parts.setdefault(node, _Asked()).add(place, commands[place].packed, asking=not moved)
                elif isinstance(reply, ClusterDownError):
                    self._learn()
        return parts

    def _raise_if_none_is_well(self, replies: Replies) -> None:
        if any(not node.failing for node in self._nodes.values()):
            return
        error = next((reply for reply in replies if isinstance(reply, UNREACHABLE)), None)
        if error is not None:
            raise error

    def _node(self, address: Address) -> _Node:
        node = self._nodes.get(address)
        if node is None:
            where = f"{address[0]}:{address[1]}"
            breaker = Breaker(random.random, lambda circuit: _LOG.info("cluster node=%s circuit=%s", where, circuit))
            node = self._nodes[address] = _Node(address, self._connect(*address), breaker)
        return node

    def _note_failure(self, node: _Node) -> None:
        """Count a failure, and look for the node that has its keys now."""
        node.failing = True
        self._learn()
        pause_s = node.breaker.failed()
        if pause_s is not None and node.next_try is None:
            node.next_try = asyncio.get_running_loop().call_later(pause_s, self._try_again, node)

    def _try_again(self, node: _Node) -> None:
        node.next_try = None
        self._start(self._try(node))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try(self, node: _Node) -> None:
        if self._nodes.get(node.address) is not node:
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await node.client.exchange(_PING, 1)
        except UNREACHABLE:
            self._note_failure(node)
        else:
            node.note_answer()

    def _learn(self) -> asyncio.Task[None]:
        """Ask where keys live, beside the requests."""
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(self._ask_where())
            self._learning.add_done_callback(self._note_learned)
        return self._learning

    async def _learned(self) -> None:
        """Wait until it is known where keys live; finding it out goes on when nobody waits any more."""
        learning = self._learn()
        await asyncio.wait({learning})
        if learning.cancelled():
            raise RedisConnectionError("the client was closed")
        learning.result()

    def _note_learned(self, task: asyncio.Task[None]) -> None:
        self._learning = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.info("cluster does not say where keys live error=%s", type(error).__name__)

    async def _ask_where(self) -> None:
        known = sorted(self._nodes.values(), key=lambda node: node.failing)
        addresses = dict.fromkeys([*(node.address for node in known), *self._servers])
        failed: Exception = RedisConnectionError("no node is named")
        for address in addresses:
            node = self._node(address)
            try:
                async with asyncio.timeout(self._connect_s / len(addresses)):
                    (reply,) = await node.client.exchange(_CLUSTER_SLOTS, 1)
                if isinstance(reply, Exception):
                    raise reply
            except UNREACHABLE as error:
                failed = error
                continue
            if reply:
                self._take(reply, asked=address)
                return
        raise failed

    def _take(self, ranges: Sequence[Sequence[Any]], asked: Address) -> None:
        """Use what ``CLUSTER SLOTS`` says: ranges of slots with their nodes, the one that has them first."""
        owners: list[_Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            node = self._node((host.decode() if host else asked[0], port))
            owners[first : last + 1] = [node] * (last + 1 - first)
        self._owners = owners
        used = {node for node in owners if node is not None}
        for node in [node for node in self._nodes.values() if node not in used]:
            del self._nodes[node.address]
            self._start(_close(node))


@asynccontextmanager
async def _patience(give_up_s: float) -> AsyncIterator[None]:
    """Time out at a moment, unless the answer is there and only the event loop was late to hand it on."""
    loop = asyncio.get_running_loop()
    ended = False

    def expire(grace_turns: int) -> None:
        if ended:
            return
        if grace_turns:
            loop.call_soon(expire, grace_turns - 1)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        timer = loop.call_at(give_up_s, expire, _GRACE_TURNS)
        try:
            yield
        finally:
            ended = True
            timer.cancel()


async def _close(node: _Node) -> None:
    if node.next_try is not None:
        node.next_try.cancel()
    try:
        await node.client.close()
    except UNREACHABLE:
        _LOG.info("cluster node could not be left in order node=%s:%s", *node.address)
