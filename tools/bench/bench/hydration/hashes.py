"""``HMGET`` beside ``HGETALL`` on hashes like Feast's, from end to end: sent, answered, sorted out."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import redis
import uvloop
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench.hydration.server import redis_server
from bench.paths import BUILD
from bench.side_by_side import progress
from fairlead_server.hydrate.redis_line import Line
from fairlead_server.hydrate.redis_single import pack

PATH = BUILD / "hashes.json"
_WANTED = (1, 10, 30, 100)
_TIMES = (1, 2, 10)
_HASHES = 1000
_CALLS, _ROUNDS = 1000, 5
_CELL = b"\x29" + bytes(8)
"""As long as a double's."""

Ask = Callable[[int], Awaitable[Any]]


@dataclass(slots=True)
class _Way:
    """One way to read a hash, and what it showed."""

    ask: Ask
    command: str
    waits_us: list[float]
    cpu_us: list[float]
    server_us: list[float]

    def told(self) -> Mapping[str, float]:
        return {
            "p50_us": round(statistics.median(self.waits_us), 1),
            "cpu_us": round(statistics.median(self.cpu_us), 1),
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
    table = Table("fields", "wanted", "server us: HMGET, HGETALL", "CPU us here", "p50 us")
    for row in rows:
        pairs = (f"{row['hmget'][of]:.1f}, {row['hgetall'][of]:.1f}" for of in ("server_us", "cpu_us", "p50_us"))
        table.add_row(str(row["fields"]), str(row["wanted"]), *pairs)
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
    asked = [b"%b6\r\n%06d%b" % (head, place, tail) for place in range(_HASHES)]
    whole = [b"*2\r\n$7\r\nHGETALL\r\n$6\r\n%06d\r\n" % place for place in range(_HASHES)]

    async def by_name(i: int) -> Any:
        return (await line.exchange(asked[i % _HASHES], 1))[0]

    pick = itemgetter(*chosen)  # the fastest there is; it would not bear a field that is not there

    async def all_fields(i: int) -> Any:
        (reply,) = await line.exchange(whole[i % _HASHES], 1)
        return pick(dict(zip(reply[::2], reply[1::2], strict=True)))

    return _Way(by_name, "hmget", [], [], []), _Way(all_fields, "hgetall", [], [], [])


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
