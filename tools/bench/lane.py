"""What a request costs in the lane, without sockets: ``python tools/bench/lane.py [--only CASE]``.

Sixteen connections in one process send whole requests, and the event loop turns until they are answered; CPU time of
the thread per request, the least and the median of rounds. What sockets cost is `make bench`'s to tell. The contract
model is the flights example's (`make train`).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from bench.model import FEATURES, NAME, Asked, make  # noqa: E402
from bench.ours import experiment_headers, write_serving  # noqa: E402
from bench.questions import Body, Headers, on_the_wire, v1_json, v2_binary, v2_json  # noqa: E402
from bench.systems import REVISION  # noqa: E402

from bench import contract  # noqa: E402
from fairlead_server.protocol.rest import Limits  # noqa: E402
from support.wires import Stand, Wire, stand_of  # noqa: E402 -- the tests' own connections

CONTRACT = ROOT / "build/flights/models/boosted.onnx"
STORE = ROOT / "feature_repo"
CONNECTIONS = 16
ROUNDS = 7
REQUESTS = 10_000
LIMITS = Limits(body_bytes=2**22, body_deadline_s=60.0)
_BODIES = 64
CASES: Mapping[str, str] = {
    "v2-json": "V2 JSON, one row, no experiment",
    "v2-json-gateway": "the same, with the headers that a gateway adds",
    "v2-json-experiment": "the same without them; token and exposure, 10,000 units in turn",
    "v1-json": "V1 JSON, one row, no experiment",
    "v2-binary": "V2 binary, one row, no experiment",
    "v2-json-64": "V2 JSON, 64 rows, no experiment",
    "contract": "V2 JSON, a contract model's tensors, no experiment",
}


class _Sink(Wire):
    """A connection that counts its answers and forgets them."""

    def write(self, _data: bytes | bytearray | memoryview) -> None:
        """Count an answer."""
        self.writes += 1


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, action="append", help="this case; again for more")
    wanted = parser.parse_args().only or list(CASES)
    table = Table("case", "what", "least us", "median us", title="CPU per request in the lane")
    for case in wanted:
        if case == "contract" and (lacking := contract.missing(CONTRACT, STORE)):
            Console().print(f"contract: {lacking}", highlight=False)
            continue
        rounds_us = uvloop.run(_measured(case))
        table.add_row(case, CASES[case], f"{min(rounds_us):.1f}", f"{statistics.median(rounds_us):.1f}")
    Console().print(table)
    return 0


async def _measured(case: str) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        stand = await _stand(case, Path(folder))
        requests = list(_requests(case))
        wires = [_connected(stand) for _ in range(CONNECTIONS)]
        following = cycle(requests)
        rounds_us: list[float] = []
        for _ in range(ROUNDS + 1):
            start_s = time.thread_time()
            for _ in range(REQUESTS // CONNECTIONS):
                answered = wires[-1].writes + 1
                for wire in wires:
                    wire.protocol.data_received(next(following))
                while any(wire.writes < answered for wire in wires):  # noqa: ASYNC110 -- a turn of the loop is the unit
                    await asyncio.sleep(0)
            rounds_us.append((time.thread_time() - start_s) / (REQUESTS // CONNECTIONS * CONNECTIONS) * 1e6)
            stand.service.served().exposures.tally.take()
        return rounds_us[1:]


async def _stand(case: str, folder: Path) -> Stand:
    if case == "contract":
        return await stand_of(CONTRACT, lane=True, limits=LIMITS, feature_store=STORE)
    model = folder / f"{NAME}.onnx"
    make(model)
    serving = folder / "serving"
    if case == "v2-json-experiment":
        write_serving(serving, "http://127.0.0.1:1")
    return await stand_of(model, lane=True, limits=LIMITS, serving_dir=serving, revision=REVISION)


def _connected(stand: Stand) -> _Sink:
    wire = _Sink()
    wire.protocol = stand.connections.open()
    wire.protocol.connection_made(wire)
    return wire


def _requests(case: str) -> Iterator[bytes]:
    if case == "contract":
        name = "arrival-delay"
        yield on_the_wire(f"/v2/models/{name}/infer", contract.full(CONTRACT)[0], {})
        return
    path = f"/v1/models/{NAME}:predict" if case == "v1-json" else f"/v2/models/{NAME}/infer"
    bodies = _bodies(case)
    for number, headers in enumerate(_headers(case)):
        yield on_the_wire(path, bodies[number % _BODIES], headers)


def _bodies(case: str) -> Sequence[Body]:
    written = {"v1-json": v1_json, "v2-binary": v2_binary}.get(case, v2_json)
    chance = np.random.default_rng(7)
    rows = 64 if case == "v2-json-64" else 1
    asked = (chance.normal(size=(rows, FEATURES)).astype(np.float32) for _ in range(_BODIES))
    return [written(Asked(one, np.empty(0, np.int64), np.empty(0, np.float32))) for one in asked]


def _headers(case: str) -> Sequence[Headers]:
    if case == "v2-json-experiment":
        return experiment_headers()
    if case != "v2-json-gateway":
        return [{}] * _BODIES
    return [
        {
            "user-agent": "python-httpx/0.28.1",
            "accept": "*/*",
            "x-forwarded-proto": "http",
            "x-request-id": str(uuid.uuid4()),
            "x-envoy-expected-rq-timeout-ms": "5000",
            "traceparent": f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01",
        }
        for _ in range(REQUESTS)
    ]


if __name__ == "__main__":
    sys.exit(main())
