"""``HMGET`` beside ``HGETALL`` on hashes like Feast's, from end to end: sent, answered, sorted out."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import uvloop
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench.hydration.page import HEADS, cells
from bench.hydration.server import redis_server
from bench.paths import BUILD
from bench.side_by_side import progress
from fairlead_server.hydrate.redis_line import Line
from fairlead_server.hydrate.redis_single import pack

PATH = BUILD / "hashes.json"
_WANTED = (1, 10, 30, 60, 100)
_TIMES = (1, 2, 10)
_HASHES, _BATCH = 1000, 100
_CALLS, _ROUNDS = 1000, 5
_CELL = b"\x29" + bytes(8)
"""As long as a double's."""

Ask = Callable[[int], Awaitable[Any]]


@dataclass(slots=True)
class _Way:
    """One way to read a hash, and what it showed."""

    ask: Ask
    ask_batch: Ask
    """Asks for a hundred hashes at once."""
    command: str
    waits_us: list[float] = field(default_factory=list)
    batches_us: list[float] = field(default_factory=list)
    """By hash."""
    cpu_us: list[float] = field(default_factory=list)
    server_us: list[float] = field(default_factory=list)

    def told(self) -> Mapping[str, float]:
        return {
            "p50_us": round(statistics.median(self.waits_us), 1),
            "cpu_us": round(statistics.median(self.cpu_us), 1),
            "batch_us": round(statistics.median(self.batches_us), 1),
            "server_us": round(statistics.median(self.server_us), 2),
        }


def measure(console: Console, *, quick: bool) -> None:
    """Measure, print and write ``build/bench/hashes.json``.

    Raises:
        NoRedis: There is no redis-server.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder)) as port,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rows = runner.run(_measure(port, console, 1 if quick else _ROUNDS))
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(*HEADS)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)


async def _measure(port: int, console: Console, rounds: int) -> list[dict[str, Any]]:
    admin = redis.Redis(port=port)
    client = Redis(port=port)
    line = Line(await client.connection_pool.get_connection())  # type: ignore[no-untyped-call]
    sizes = [(wanted, wanted * times) for wanted in _WANTED for times in _TIMES]
    rows = []
    with progress(console) as bar:
        task = bar.add_task("", total=len(sizes))
        for wanted, fields in sizes:
            bar.update(task, description=f"{wanted} of {fields} fields")
            names = _fill(admin, fields)
            ways = _ways(line, names, wanted)
            for _ in range(rounds):
                for way in random.sample(ways, len(ways)):
                    await _round(way, admin)
            bar.advance(task)
            rows.append({"fields": fields, "wanted": wanted} | {way.command: way.told() for way in ways})
    await line.connection.disconnect(nowait=True)
    await client.aclose()
    admin.close()
    return rows


def _fill(admin: Any, fields: int) -> list[bytes]:
    """Write hashes of so many fields, with names as long as Feast's."""
    names = [place.to_bytes(4, "little") for place in random.Random(fields).sample(range(2**32), fields)]  # noqa: S311 -- names
    admin.flushall()
    pipeline = admin.pipeline(transaction=False)
    for place in range(_HASHES):
        pipeline.hset(b"%06d" % place, mapping=dict.fromkeys(names, _CELL))
    pipeline.execute()
    return names


def _ways(line: Line, names: Sequence[bytes], wanted: int) -> Sequence[_Way]:
    chosen = random.Random(1).sample(list(names), wanted)  # noqa: S311 -- a choice
    head, tail = pack(chosen)
    by_name = [b"%b6\r\n%06d%b" % (head, place, tail) for place in range(_HASHES)]
    whole = [b"*2\r\n$7\r\nHGETALL\r\n$6\r\n%06d\r\n" % place for place in range(_HASHES)]

    def picked(reply: list[bytes]) -> list[bytes | None]:
        return list(map(dict(zip(reply[::2], reply[1::2], strict=True)).get, chosen))

    def asks(commands: Sequence[bytes], rows: int) -> Ask:
        async def ask(i: int) -> Any:
            first = i * rows % _HASHES
            replies = await line.exchange(b"".join(commands[first : first + rows]), rows)
            return [picked(reply) for reply in replies] if commands is whole else replies

        return ask

    return (
        _Way(asks(by_name, 1), asks(by_name, _BATCH), "hmget"),
        _Way(asks(whole, 1), asks(whole, _BATCH), "hgetall"),
    )


async def _round(way: _Way, admin: Any) -> None:
    for i in range(20):
        await way.ask(i)
    admin.config_resetstat()
    cpu_s = time.process_time()
    for i in range(_CALLS):
        start_ns = time.perf_counter_ns()
        await way.ask(i)
        way.waits_us.append((time.perf_counter_ns() - start_ns) / 1000)
    way.cpu_us.append((time.process_time() - cpu_s) / _CALLS * 1e6)
    way.server_us.append(admin.info("commandstats")[f"cmdstat_{way.command}"]["usec_per_call"])
    for i in range(_CALLS // _BATCH):
        start_ns = time.perf_counter_ns()
        await way.ask_batch(i)
        way.batches_us.append((time.perf_counter_ns() - start_ns) / 1000 / _BATCH)
