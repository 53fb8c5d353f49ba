"""Where a server's memory goes, request by request: ``python tools/soak/memory.py [requests] [units]``.

A server's parts in this process answer predictions of an experiment (lane, tally, tokens, reports that a stand-in for
the ledger takes), on a clock by which twenty requests take a second. ``tracemalloc`` says after each tenth what is
allocated, and at the end which lines hold what was added since the third tenth: memory that has a bound stands still
once it is reached, a leak does not. Writes ``build/soak/memory.json``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import linecache
import random
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper, save
from prometheus_client import CollectorRegistry

from fairlead.assignment import Layout, assign
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.route import EXPERIMENT_HEADER, ExperimentRoute, RouteKey
from fairlead_server.exposure.assemble import feedback_of
from fairlead_server.exposure.reporter import Pace
from fairlead_server.exposure.sink import Delivery, Reception
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import load
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.protocol.http import HttpConnections
from fairlead_server.protocol.lane import Lane, LaneProtocol
from fairlead_server.protocol.rest import Limits, RestApplication
from fairlead_server.protocol.service import Served, Service

ROOT = Path(__file__).resolve().parents[2]
_REQUESTS, _UNITS = 100_000, 2_000
_REQUEST_US = 50_000
_TENTHS = 10
_SETTLED = 3
"""Tenths after which everything that has a bound should have met it, or have stopped growing."""
_KEY = RouteKey("k1", bytes(16))
_LAYOUT = Layout.of("control", {"treatment": 5000})
_ROUTE = ExperimentRoute("soak/memory/e1", 0, "r", "control", _LAYOUT, "header:x-unit-id")


class _Clock:
    """Moves on with every request."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.us


class _Takes:
    """A ledger that takes every report."""

    async def send(self, feedback: Feedback, body: bytes, deadline_s: float) -> Delivery:
        del feedback, body, deadline_s
        return Delivery(Reception.TAKEN)

    async def close(self) -> None:
        """Nothing is open."""


class _Wire(asyncio.Transport):
    """A connection whose client counts its answers and forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data[:15]) != b"HTTP/1.1 200 OK":
            raise SystemExit(f"refused: {bytes(data)!r}")
        self.answers += 1

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """There is nothing to pause."""

    resume_reading = close = abort = pause_reading


async def main(requests: int, units: int) -> int:
    """Ask, print and write what was found; return the exit code."""
    chance = random.Random(1)  # noqa: S311 -- made-up units
    ours = [f"N{n}" for n in range(10 * units) if assign(f"N{n}", _ROUTE.salt, _LAYOUT) == _ROUTE.variant][:units]
    header = f"{EXPERIMENT_HEADER}: {_ROUTE.sign(_KEY)}\r\n".encode()
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        connections, reporter = await _served(Path(folder), clock)
        protocol = connections.open()
        wire = _Wire()
        protocol.connection_made(wire)
        tracemalloc.start()
        sizes, settled = [], tracemalloc.take_snapshot()
        for tenth in range(_TENTHS):
            for n in range(requests // _TENTHS):
                clock.us += _REQUEST_US
                body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%f,1,2,3]}]}' % chance.random()
                unit = b"x-unit-id: " + chance.choice(ours).encode()
                head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\n" + header + unit
                protocol.data_received(head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                wanted = tenth * (requests // _TENTHS) + n + 1
                while wire.answers < wanted:  # noqa: ASYNC110 -- it sets no event
                    await asyncio.sleep(0)
                if n % 1000 == 0:
                    await reporter._gather()  # noqa: SLF001 -- by the moved clock, not by the event loop's
                    await _sent(reporter)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
            print(f"{(tenth + 1) * requests // _TENTHS:>9,} requests {sizes[-1] / 2**20:8.2f} MiB")
            if tenth + 1 == _SETTLED:
                settled = tracemalloc.take_snapshot()
        grown = tracemalloc.take_snapshot().compare_to(settled, "lineno")[:12]
    asked = requests - _SETTLED * requests // _TENTHS
    per_request = (sizes[-1] - sizes[_SETTLED - 1]) / asked
    print(f"{per_request:.1f} bytes a request after the third tenth; by line:")
    for one in grown:
        frame = one.traceback[0]
        line = linecache.getline(frame.filename, frame.lineno).strip()
        print(f"  {one.size_diff / 1024:8.1f} KiB {Path(frame.filename).name}:{frame.lineno}  {line[:90]}")
    told = {"requests": requests, "units": units, "bytes": sizes, "bytes_per_request": round(per_request, 2)}
    build = ROOT / "build/soak"
    build.mkdir(parents=True, exist_ok=True)
    (build / "memory.json").write_text(json.dumps(told, indent=1) + "\n")
    return 0


async def _served(folder: Path, clock: _Clock) -> tuple[HttpConnections, Any]:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negation", tensors[:1], tensors[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx")
    (folder / "route-keys.json").write_text(json.dumps({"keys": [{"id": _KEY.id, "secret": _KEY.secret.hex()}]}))
    ring = KeyRing((SigningKey("k1", bytes(32)),), bytes(32))
    (folder / FEEDBACK_FILE).write_text(Feedback("http://127.0.0.1:1", ring).dumped())
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    predictor = await load(PredictorSettings(model=folder / "m.onnx", revision="r"), clock=clock, metrics=metrics)
    exposures, reporter = feedback_of(
        predictor, clock, serving_dir=folder, spool_dir=None, spool_bytes=2**23, pace=Pace(interval_s=2)
    )
    reporter._sink = _Takes()  # noqa: SLF001 -- no ledger is asked
    service = Service(None, "", metrics)
    service.serve(Served.of(predictor, exposures, lambda: reporter.report))
    limits = Limits(2**20, 30.0)
    application = RestApplication(service, registry, limits, _no_pages)
    return HttpConnections(application, partial(LaneProtocol, Lane(service, limits))), reporter


async def _sent(reporter: Any) -> None:
    while reporter.report.waiting:
        await reporter._send()  # noqa: SLF001 -- as above


async def _no_pages(*_: Any) -> None:
    raise SystemExit("KServe's pages were asked for")


def _numbers(arguments: Sequence[str]) -> tuple[int, int]:
    given = [int(one) for one in arguments]
    return (given[0] if given else _REQUESTS), (given[1] if len(given) > 1 else _UNITS)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*_numbers(sys.argv[1:]))))
