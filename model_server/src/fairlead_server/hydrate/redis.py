"""Asks Redis for what Feast keeps there: one hash per entity, all views of a request in one round trip.

The layout is Feast's, and documented by it: a key of the entity's serialized names and values and the project, in it
a field per feature (the little-endian murmur3 hash of ``view:feature``) and one per view for the event time. Views
that are asked for the same entity share its hash and so a command. Feast's own code makes names and prefixes, once;
tests compare what is read with ``get_online_features``.

``HMGET`` tells a field that is not there from one that is null, so a feature that was never written is told from a
null here, as ``online_read`` cannot.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from feast import FeatureStore
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, compute_versioned_name
from feast.protos.feast.types.Value_pb2 import ValueType
from redis.exceptions import NoPermissionError, ResponseError

from fairlead_server.hydrate.found import Found, Heard, JoinKeys, Key, Lookup, ViewRead
from fairlead_server.hydrate.hashes import HashDecoder
from fairlead_server.hydrate.plan import ViewPlan
from fairlead_server.hydrate.redis_client import open_client
from fairlead_server.hydrate.redis_line import Replies
from fairlead_server.hydrate.redis_single import UNREACHABLE, Command, RedisClient, pack
from fairlead_server.hydrate.source import Table
from fairlead_server.hydrate.wire import BROKEN, Reply, ViewDecoder

_LOG = logging.getLogger(__name__)
_KEY_VERSION = 3
_READS_AT_ONCE = 2
_GIVE_UP_AFTER = 1.5
"""Deadlines after which a read that nobody waits for any more is given up, and its connection with it."""
_REPLIES_PER_TURN = 512
"""After so many replies are decoded the event loop serves others."""
_LEAST_READ_WHOLE, _LEAST_SHARE, _LARGEST_LISTPACK = 60, 0.5, 512
"""A hash is read whole from so many wanted fields on, if they are that share of it and Redis keeps it in one piece,
where ``HMGET`` looks for every field from the start (docs/decisions/0132-wide-hashes-are-read-whole.md)."""
_NO_ENTITY: Key = ("",)
_INT64, _INT32, _SIZE = struct.Struct("<IIq"), struct.Struct("<IIi"), struct.Struct("<II")


def _text(value: Any) -> bytes:
    encoded: bytes = value.encode()
    return _SIZE.pack(ValueType.STRING, len(encoded)) + encoded


def _int64(value: Any) -> bytes:
    return _INT64.pack(ValueType.INT64, 8, value)


def _int32(value: Any) -> bytes:
    return _INT32.pack(ValueType.INT32, 4, value)


_ENCODINGS: Mapping[str, Callable[[Any], bytes]] = {"string_val": _text, "int64_val": _int64, "int32_val": _int32}
"""How Feast serializes a join key's value, by the field of its ``Value``."""


def open_back_end(
    store: FeatureStore, views: Sequence[ViewPlan], tables: Mapping[str, Table], deadline_s: float
) -> RedisBackEnd:
    """Return a back end with connections of its own; see :class:`RedisBackEnd`."""
    client = open_client(store.config.online_store, deadline_s)
    return RedisBackEnd(store, views, tables, client=client, deadline_s=deadline_s)


class RedisBackEnd:
    """Feast's Redis store, without Feast in the way of a request."""

    name = "redis"
    reads_at_once = _READS_AT_ONCE

    def __init__(
        self,
        store: FeatureStore,
        views: Sequence[ViewPlan],
        tables: Mapping[str, Table],
        *,
        client: RedisClient,
        deadline_s: float,
    ) -> None:
        """Make the back end; nothing is read yet.

        Args:
            store: The opened feature store, with Feast's own Redis store.
            views: What may be looked up.
            tables: The store's side of ``views``, by name.
            client: Connections to the store.
            deadline_s: Longest wait of one request, seconds.
        """
        self._client = client
        self._give_up_s = _GIVE_UP_AFTER * deadline_s
        hashes: dict[tuple[JoinKeys, JoinKeys, tuple[str, ...]], HashPlan] = {}
        for view in views:
            table = tables[view.name]
            kinds = _kinds(table)
            asked = (view.join_keys, table.join_keys, kinds)
            if asked not in hashes:
                hashes[asked] = HashPlan(view.join_keys, table.join_keys, kinds, store.project)
            hashes[asked].add(view, table, _stored_name(store, table))
        self._hashes = list(hashes.values())
        for one in self._hashes:
            one.compile(reads_whole=one.is_better_read_whole)
        self.probe: Lookup = {view.join_keys: [tables[view.name].probe] for view in views}

    async def connect(self) -> None:
        """Make connections, which may take longer than a read may, and find out what may be asked."""
        await self._client.connect()
        for of_hash in self._hashes:
            if of_hash.reads_whole and not await self._may_read_whole(of_hash):
                of_hash.compile(reads_whole=False)
                _LOG.info("redis user may not use HGETALL, features are asked for by name")

    async def _may_read_whole(self, of_hash: HashPlan) -> bool:
        try:
            async with asyncio.timeout(self._give_up_s):
                (reply,) = await self._client.ask([of_hash.command(self.probe[of_hash.asked][0])])
        except UNREACHABLE:  # reads will tell
            return True
        return not isinstance(reply, NoPermissionError)

    async def read(self, lookup: Lookup) -> Found:
        """Look up keys.

        Raises:
            TimeoutError: The store did not answer for longer than the deadline.
            RedisError: It cannot be asked, or refuses every command.
            OSError: It cannot be asked.
        """
        commands = self.commands(lookup)
        async with asyncio.timeout(self._give_up_s):
            replies = await self._client.ask(commands)
        if len(commands) <= _REPLIES_PER_TURN:
            return self._found(lookup, replies)
        _check(replies)
        found: dict[str, ViewRead | None] = {}
        start = 0
        for of_hash in self._hashes:
            end = start + len(lookup[of_hash.asked])
            found.update(zip(of_hash.names, await _decode_bit_by_bit(of_hash, replies[start:end]), strict=True))
            start = end
        return found

    def start(self, lookup: Lookup, heard: Heard) -> bool:
        """Look up keys at once, if a connection is free and not too much is asked for; return whether that was so."""
        commands = self.commands(lookup)
        if len(commands) > _REPLIES_PER_TURN:
            return False
        return self._client.start(commands, self._give_up_s, partial(self._hear, lookup, heard))

    def _hear(self, lookup: Lookup, heard: Heard, replies: Replies | Exception) -> None:
        found: Found | Exception
        try:
            found = replies if isinstance(replies, Exception) else self._found(lookup, replies)
        except Exception as error:  # noqa: BLE001 -- whoever asked must hear of it; it is counted there
            found = error
        heard(found)

    def _found(self, lookup: Lookup, replies: Replies) -> Found:
        """Decode the replies of all hashes; raises what the server says if it refuses all."""
        _check(replies)
        if len(self._hashes) == 1:
            (of_hash,) = self._hashes
            return dict(zip(of_hash.names, of_hash.decode(replies), strict=True))
        found: dict[str, ViewRead | None] = {}
        start = 0
        for of_hash in self._hashes:
            end = start + len(lookup[of_hash.asked])
            found.update(zip(of_hash.names, of_hash.decode(replies[start:end]), strict=True))
            start = end
        return found

    def commands(self, lookup: Lookup) -> list[Command]:
        """Return what is asked for keys: a command for each in each of its hashes."""
        return [of_hash.command(key) for of_hash in self._hashes for key in lookup[of_hash.asked]]

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


class HashPlan:
    """The hash of one entity, and what is asked of it for all its views."""

    def __init__(self, asked: JoinKeys, stored: JoinKeys, kinds: tuple[str, ...], project: str) -> None:
        """Start without views.

        Args:
            asked: Names of the keys in a request.
            stored: The store's names of them, in the same order.
            kinds: Fields of ``Value`` that they are written in.
            project: Feast's project.
        """
        self.asked = asked
        """Names of the keys in a request."""
        self.names: list[str] = []
        """Of the views in the hash."""
        self._views: list[ViewDecoder] = []
        order = sorted(range(len(stored)), key=lambda i: stored[i])
        self._values = [(i, _ENCODINGS[kinds[i]]) for i in order]
        self._prefix: bytes = serialize_entity_key_prefix(list(stored), entity_key_serialization_version=_KEY_VERSION)
        self._project = project.encode()
        self._fields: list[bytes] = []
        self._fields_stored = 0
        self._head, self._tail = b"", b""
        self._decoder = HashDecoder([])
        self._broken: Reply = ()
        self.reads_whole = False
        """Whether the hash is asked for as a whole, and sorted out here."""

    def add(self, view: ViewPlan, table: Table, stored_name: str) -> None:
        """Ask for a view, too."""
        decoder = ViewDecoder(view, {field.name: str(field.dtype) for field in table.view.features}, len(self._fields))
        self._fields += [_mmh3(f"{stored_name}:{name}") for name in decoder.names]
        self._fields.append(f"_ts:{stored_name}".encode())
        self.names.append(view.name)
        self._views.append(decoder)
        self._fields_stored = max(self._fields_stored, table.hash_fields)

    @property
    def is_better_read_whole(self) -> bool:
        """Whether ``HGETALL`` was measured to be faster than ``HMGET``, from end to end."""
        wanted, stored = len(self._fields), self._fields_stored
        return wanted >= _LEAST_READ_WHOLE and stored <= min(wanted / _LEAST_SHARE, _LARGEST_LISTPACK)

    def compile(self, *, reads_whole: bool = False) -> None:
        """Fix what is asked for."""
        self.reads_whole = reads_whole
        self._head, self._tail = (b"*2\r\n$7\r\nHGETALL\r\n$", b"\r\n") if reads_whole else pack(self._fields)
        self._decoder = HashDecoder(self._views)
        self._broken = (BROKEN,) * len(self._fields)

    def command(self, key: Key) -> Command:
        """Return the command for one entity."""
        values = key or _NO_ENTITY
        if len(values) == 1:
            stored = self._prefix + self._values[0][1](values[0]) + self._project
        else:
            stored = b"".join([self._prefix, *[encode(values[i]) for i, encode in self._values], self._project])
        return Command(stored, b"%b%d\r\n%b%b" % (self._head, len(stored), stored, self._tail))

    def decode(self, replies: Replies) -> list[ViewRead]:
        """Decode every view of some replies; an error in place of one is a STORE_ERROR of its row."""
        if self.reads_whole:
            replies = [reply if isinstance(reply, Exception) else self._picked(reply) for reply in replies]
        broken = self._broken
        return self._decoder.decode([broken if isinstance(reply, Exception) else reply for reply in replies])

    def _picked(self, reply: Any) -> list[bytes | None]:
        """Return the fields that are wanted of all that are there."""
        if not isinstance(reply, dict):  # as which the third version of Redis' protocol has it
            names_and_values = iter(reply)
            reply = dict(zip(names_and_values, names_and_values, strict=True))
        return list(map(reply.get, self._fields))


def _kinds(table: Table) -> tuple[str, ...]:
    probe = table.probe or _NO_ENTITY
    return tuple(str(write(part).WhichOneof("val")) for write, part in zip(table.key_values, probe, strict=True))


def _stored_name(store: FeatureStore, table: Table) -> str:
    name: str = compute_versioned_name(table.view, store.config.registry.enable_online_feature_view_versioning)
    return name


def _check(replies: Replies) -> None:
    """Raise what a server says if it refuses all; a key that is refused or cannot be had alone is a STORE_ERROR."""
    if replies and isinstance(replies[0], ResponseError) and all(isinstance(reply, ResponseError) for reply in replies):
        raise replies[0]


async def _decode_bit_by_bit(of_hash: HashPlan, replies: Replies) -> list[ViewRead]:
    parts: list[list[ViewRead]] = []
    for start in range(0, len(replies), _REPLIES_PER_TURN):
        parts.append(of_hash.decode(replies[start : start + _REPLIES_PER_TURN]))
        await asyncio.sleep(0)
    return [ViewRead.joined(of_view) for of_view in zip(*parts, strict=True)]
