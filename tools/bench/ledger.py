"""CPU per outcome of the ledger, answers checked first: ``python tools/bench/ledger.py [--postgresql] [--kafka]``.

Batches of outcomes with an actual go through HTTP, or from a real Kafka broker, to one ledger process; every answer
and, once all is folded, every sum is compared with the truth. The CPU is the ledger's own, and with PostgreSQL also
that of the server's processes; the broker's is not in it.
Writes ``build/bench/ledger.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from fairlead.feedback.kafka import EXPOSURES_TOPIC, OUTCOMES_TOPIC  # noqa: E402
from fairlead_ledger.store import versions  # noqa: E402
from fairlead_ledger.store.database import Database  # noqa: E402
from support.kafka import KafkaBroker, kafka_broker  # noqa: E402
from support.ledger_truth import Told, kept, truth  # noqa: E402 -- the tests' own builders
from support.ledgers import HOUR_US, NOON_US, LedgerProcess, design, ledger_process, outcomes  # noqa: E402
from support.postgresql import postgresql_server  # noqa: E402

UNITS = 5000
CONNECTIONS = 4
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a number of outcomes cost."""

    database: str
    carrier: str
    """HTTP, or Kafka with a message for each batch."""
    batch: int
    outcomes: int
    intake_us: float
    """CPU of the ledger per outcome, until it is accepted."""
    database_us: float
    """CPU of PostgreSQL's processes per outcome, fold included; 0 for SQLite, which is in the ledger's."""
    fold_us: float
    """CPU of the ledger per outcome, until it is in its unit's sums."""
    per_second: float
    """Outcomes per second of CPU, from the request to the unit's sum."""
    wall_per_second: float
    """As it was on this machine, beside whatever else ran."""


def main() -> int:
    """Measure, print and write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL too")
    parser.add_argument("--kafka", action="store_true", help="from Kafka too")
    parser.add_argument("--outcomes", type=int, default=40_000)
    given = parser.parse_args()
    costs = []
    for kind in ("SQLite", "PostgreSQL")[: 1 + given.postgresql]:
        for carrier, batch in product(("HTTP", "Kafka")[: 1 + given.kafka], (100, 500)):
            costs.append(_measured(kind, carrier, batch, given.outcomes))
            print(costs[-1])
    result = ROOT / "build/bench/ledger.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps([asdict(cost) for cost in costs], indent=2))
    return 0


def _measured(kind: str, carrier: str, batch: int, count: int) -> Cost:
    # Of the spread of a float32, so that tokens carry what the truth is computed from.
    told = [
        Told(f"u{number * 7919 % UNITS}", NOON_US + number, number, number % 64 / 64, number % 2)
        for number in range(count)
    ]
    bodies = [json.dumps(outcomes(*(one.outcome for one in part))).encode() for part in _batches(told, batch)]
    with _post_over(carrier) as (arguments, post), _ledger(kind, arguments) as (ledger, url, others):
        with ledger.client() as client:
            client.put(f"/v1/experiments/{design().salt}", content=design().model_dump_json()).raise_for_status()
        before, others_before, began = _cpu_s([ledger.pid]), _cpu_s(others()), time.perf_counter()
        post(ledger.url, bodies)
        taken, wall_s = _cpu_s([ledger.pid]), time.perf_counter() - began
        if (accepted := _accepted(ledger)) != count:
            raise SystemExit(f"{accepted} of {count} outcomes were accepted")
        ledger.set_us(NOON_US + 2 * HOUR_US)
        _wait_folded(url, told)
        folded, others_after = _cpu_s([ledger.pid]), _cpu_s(others())
    intake_us, fold_us, other_us = (
        spent / count * 1e6 for spent in (taken - before, folded - taken, others_after - others_before)
    )
    per_second = 1e6 / (intake_us + fold_us + other_us)
    return Cost(kind, carrier, batch, count, intake_us, other_us, fold_us, per_second, count / wall_s)


@contextmanager
def _ledger(kind: str, arguments: Sequence[str]) -> Iterator[tuple[LedgerProcess, str, Callable[[], Sequence[int]]]]:
    """Run a ledger; with the address of its database, and what tells the database's processes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        if kind == "SQLite":
            url = f"sqlite:///{folder / 'ledger.db'}"
            yield stack.enter_context(ledger_process(folder, url, ("--open", *arguments))), url, list
            return
        server = stack.enter_context(postgresql_server(durable=True))
        url = server.new_database()
        versions.upgrade(Database(url))
        yield stack.enter_context(ledger_process(folder, url, ("--open", *arguments))), url, server.processes


@contextmanager
def _post_over(carrier: str) -> Iterator[tuple[Sequence[str], Callable[[str, Sequence[bytes]], None]]]:
    """Return the ledger's arguments, and what brings it bodies and returns once all are taken."""
    if carrier == "HTTP":
        yield (), lambda url, bodies: asyncio.run(_post(url, bodies))
        return
    with kafka_broker() as broker:
        broker.make(OUTCOMES_TOPIC, EXPOSURES_TOPIC)
        yield ("--kafka-bootstrap-servers", broker.address), lambda _, bodies: _produce(broker, bodies)


async def _post(url: str, bodies: Sequence[bytes]) -> None:
    """Post every body over a few connections."""
    left = iter(bodies)
    headers = {"content-type": "application/json"}

    async def post(client: httpx.AsyncClient) -> None:
        for body in left:
            answer = await client.post("/v1/outcomes", content=body, headers=headers)
            answer.raise_for_status()

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(post(client) for _ in range(CONNECTIONS)))


def _produce(broker: KafkaBroker, bodies: Sequence[bytes], timeout_s: float = 300) -> None:
    """Send every body and wait until the ledger's group has committed all of them."""
    producer, end = broker.producer(), time.monotonic() + timeout_s
    for body in bodies:
        producer.produce(OUTCOMES_TOPIC, body)
    producer.flush()
    while broker.committed("fairlead-ledger", OUTCOMES_TOPIC) < len(bodies):
        if time.monotonic() > end:
            raise SystemExit("the messages were not read in time")
        threading.Event().wait(0.2)


def _accepted(ledger: LedgerProcess) -> int:
    with ledger.client() as client:
        told = client.get("/metrics").text
    (line,) = (line for line in told.splitlines() if line.startswith('fairlead_ledger_outcomes_total{fate="Accepted"}'))
    return int(float(line.split()[-1]))


def _wait_folded(url: str, told: Sequence[Told], timeout_s: float = 300) -> None:
    database, wanted = Database(url), truth(told, most=design().requests_per_unit)
    end = time.monotonic() + timeout_s
    while kept(database) != wanted:
        if time.monotonic() > end:
            raise SystemExit("the sums differ from the truth")
        threading.Event().wait(0.5)
    database.close()


def _batches(told: Sequence[Told], size: int) -> Iterator[list[Told]]:
    rest = iter(told)
    while part := list(islice(rest, size)):
        yield part


def _cpu_s(processes: Sequence[int]) -> float:
    """Return the CPU seconds of processes so far; what has ended is left out."""
    ticks = 0
    for process in processes:
        with suppress(FileNotFoundError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


if __name__ == "__main__":
    sys.exit(main())
