"""The lane and the application answer alike: the same requests, valid and broken in every way, down both paths.

Each request is sent three times on a connection, for the lane reads it otherwise when it knows its form and its
head. Compared are status, headers, body, what becomes of the connection, and at the end everything that was counted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from fairlead.assignment import Layout, assign
from fairlead.contract import Feature
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.route import EXPERIMENT_HEADER, ExperimentRoute, RouteKey
from support.models import make_contract, write_model
from support.wires import Stand, Wire, stand_of, wide

KEY = RouteKey("k1", bytes(16))
SALT = "flights/arrival-delay/e1"
LAYOUT = Layout.of("logistic", {"boosted": 5000})
ROUTE = ExperimentRoute(SALT, 0, "boosted-1", "boosted", LAYOUT, "header:x-unit-id")
OURS, THEIRS = (
    next(f"N{n}" for n in range(100) if assign(f"N{n}", SALT, LAYOUT) == arm) for arm in ("boosted", "logistic")
)
COUNTED = ("fairlead_requests", "fairlead_exposures", "fairlead_prediction_tokens", "fairlead_exposed_failures")
TIMES = 3
REQUESTS = 250
CONVERSATIONS = 40

SPECIAL = [1e38, 3.4028235e38, 3.40282355e38, 3.4028236e38, -1e39, 1e300, 2**24 + 1, 2**63, 2**64, -0.0, 0.1, 1e-40]
ODD: list[Any] = [None, True, "1.5", "x", [], [1.0], {}, {"a": 1}, -1, 0, 1.5]
HEADERS: list[tuple[bytes, ...]] = [
    (),
    (b"Content-Type: application/json",),
    (b"Connection: keep-alive", b"X-Request-Id: 1"),
    (b"Connection: close",),
    (b"CONNECTION: Keep-Alive, x",),
    (b"Expect: 100-continue",),
    (b"Expect: something",),
    (b"Content-Encoding: gzip",),
    (b"content-encoding: Identity",),
    (b"x-envoy-expected-rq-timeout-ms: 60000",),
    (b"x-envoy-expected-rq-timeout-ms: soon",),
    (b"Upgrade: h2c", b"Connection: upgrade"),
    (b"inference-header-content-length: 4",),
    (b"inference-header-content-length: 99999",),
    (b"inference-header-content-length: +4",),
    (b"Inference-Header-Content-Length:",),
]


def _experiment(route: ExperimentRoute, *units: str) -> tuple[bytes, ...]:
    return (f"{EXPERIMENT_HEADER}: {route.sign(KEY)}".encode(), *(f"x-unit-id: {unit}".encode() for unit in units))


EXPERIMENTS: list[tuple[bytes, ...]] = [
    (),
    _experiment(ROUTE, OURS),
    _experiment(ROUTE, THEIRS),
    _experiment(ROUTE),
    _experiment(ROUTE, OURS, OURS),
    (b"x-fairlead-experiment: v1.k1.e30.AA", b"x-unit-id: u"),
    (*_experiment(ROUTE, OURS), b"x-fairlead-experiment: v1.k1.e30.AA"),
    _experiment(ExperimentRoute(SALT, 0, "other-1", "boosted", LAYOUT, "header:x-unit-id"), OURS),
]


@dataclass(frozen=True, slots=True)
class Model:
    """A served model, twice, and what its requests look like."""

    name: bytes
    lane: Stand
    plain: Stand
    inputs: dict[str, list[int]]
    """Sides after the first, by input."""


@pytest.fixture(scope="module")
def loop() -> Any:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module", params=["plain", "contract"])
def model(request: pytest.FixtureRequest, loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "route-keys.json").write_text(json.dumps({"keys": [{"id": KEY.id, "secret": KEY.secret.hex()}]}))
    ring = KeyRing((SigningKey("k1", bytes(32)),), bytes(32))
    (folder / FEEDBACK_FILE).write_text(Feedback("http://127.0.0.1:1", ring).dumped())
    path = folder / "m.onnx"
    if request.param == "plain":
        path.write_bytes(wide())
        name, inputs = b"m", {"x": [3]}
    else:
        contract = make_contract(_features())
        write_model(path, contract)
        name, inputs = contract.model.encode(), {feature.input: [] for feature in contract.features}

    async def stands() -> list[Stand]:
        return [await stand_of(path, lane=lane, serving_dir=folder, revision="boosted-1") for lane in (True, False)]

    lane, plain = loop.run(stands())
    return Model(name, lane, plain, inputs)


def _features() -> list[Feature]:
    return [
        Feature(view="a", name="f", dtype="float32"),
        Feature(view="a", name="i", dtype="int64", default=0),
        Feature(view="a", name="s", dtype="string", default="unknown"),
    ]


def bodies(draw: Random, inputs: dict[str, list[int]]) -> tuple[bytes, tuple[bytes, ...], bool]:
    """Return a body, headers that it needs, and whether it is V1."""
    rows = draw.randint(1, 3)
    kind = draw.choice(["v1", "v2", "v2", "binary"])
    values = {name: _values(draw, name, rows, sides) for name, sides in inputs.items()}
    if kind == "v1":
        content: Any = {"instances": _instances(values, inputs, rows)}
        return _written(draw, content), (), True
    tensors = []
    tail = b""
    for name, found in values.items():
        shape = [rows, *inputs[name]]
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": _datatype(name)}
        if kind == "binary" and not name.endswith("s"):
            raw = np.array(
                [v if type(v) in {int, float} and abs(v) < 1e38 else 1 for v in found], _numpy(name)
            ).tobytes()
            tail += raw
            tensor["parameters"] = {"binary_data_size": len(raw)}
        else:
            tensor["data"] = found
        tensors.append(tensor)
    content = {"inputs": tensors}
    if draw.random() < 0.5:
        content["id"] = draw.choice(["7", "a-b", 'quo"te', "é", "", 5, None])
    if draw.randint(0, 3) == 0:
        content["outputs"] = [{"name": draw.choice(["double", "place", "probability_late", "none"])}]
    if kind == "binary":
        content["parameters"] = {"binary_data_output": draw.random() < 0.5}
    head = _written(draw, content)
    if kind != "binary":
        return head, (), False
    length = len(head) + draw.choice([0, 0, 0, 0, 1, -1])
    return (
        head + tail[: len(tail) - draw.choice([0, 0, 0, 0, 1])],
        (b"Inference-Header-Content-Length: %d" % length,),
        False,
    )


def _values(draw: Random, name: str, rows: int, sides: Sequence[int]) -> list[Any]:
    size = rows * int(np.prod(sides))
    if name.endswith("__s"):
        return [draw.choice(["a", "é", ""]) for _ in range(size)]
    if name.endswith("__i"):
        return [draw.randint(-9, 9) for _ in range(size)]
    return [_number(draw) for _ in range(size)]


def _number(draw: Random) -> Any:
    match draw.randint(0, 9):
        case 0:
            return draw.choice(SPECIAL)
        case 1:
            return draw.uniform(-1e6, 1e6)
        case 2 | 3:
            return draw.randint(-1000, 1000)
    return float(np.float32(draw.gauss(0, 10)))


def _instances(values: dict[str, list[Any]], inputs: dict[str, list[int]], rows: int) -> list[Any]:
    if list(inputs) == ["x"]:
        (side,) = inputs["x"]
        return [values["x"][row * side : (row + 1) * side] for row in range(rows)]
    return [{name: found[row] for name, found in values.items()} for row in range(rows)]


def _datatype(name: str) -> str:
    return {"i": "INT64", "s": "BYTES"}.get(name[-1], "FP32")


def _numpy(name: str) -> str:
    return "<i8" if name.endswith("__i") else "<f4"


def _written(draw: Random, content: Any) -> bytes:
    """Return a document, now and then with something wrong in it."""
    separators = draw.choice([(",", ":"), (", ", ": "), (" ,", " : ")])
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        _break(draw, content)
    text = json.dumps(content, separators=separators, ensure_ascii=draw.random() < 0.5).encode()
    if draw.randint(0, 5) == 0:
        at = draw.randint(0, len(text) - 1)
        text = text[:at] + draw.choice([b"", b" ", b"}", b'"', b",", b"\\", b"1", b"null", b"\xff"]) + text[at + 1 :]
    return text


def _break(draw: Random, content: Any) -> None:
    """Change, take out or add something, somewhere."""
    while isinstance(content, (dict, list)) and content:
        key: Any = draw.choice(sorted(content)) if isinstance(content, dict) else _index(draw, content)
        inner = content[key]
        if isinstance(inner, (dict, list)) and inner and draw.randint(0, 2):
            content = inner
            continue
        match draw.randint(0, 2):
            case 0:
                del content[key]
            case 1:
                content[key] = draw.choice(ODD)
            case _ if isinstance(content, dict):
                content[draw.choice(["extra", "parameters", "data", "name"])] = draw.choice(ODD)
            case _:
                content.append(draw.choice(ODD))
        return


def _index(draw: Random, content: list[Any]) -> int:
    return draw.randint(0, len(content) - 1)


def requests(draw: Random, model: Model) -> bytes:
    """Return an HTTP request."""
    body, needed, is_v1 = bodies(draw, model.inputs)
    path = b"/v1/models/%b:predict" % model.name if is_v1 else b"/v2/models/%b/infer" % model.name
    target = draw.choice(
        [path] * 12
        + [path + b"?a=b", path.replace(b"m", b"%6d"), path + b"/", b"/v2/models/%b/versions/1/infer" % model.name]
        + [b"/v2/models/other/infer", b"/v2/models/%b/versions/9/infer" % model.name, b"http://h" + path]
    )
    method = draw.choice([b"POST"] * 12 + [b"GET", b"HEAD", b"PUT"])
    version = draw.choice([b"HTTP/1.1"] * 12 + [b"HTTP/1.0"])
    headers = [*draw.choice(EXPERIMENTS), *needed]
    if draw.randint(0, 3) == 0:
        headers += draw.choice(HEADERS)
    body = body + b" " * draw.choice([0] * 20 + [5000])
    if draw.randint(0, 9) == 0:
        headers.append(b"Transfer-Encoding: chunked")
        half = len(body) // 2
        parts = [body[:half], body[half:]]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"
    else:
        headers.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([b"%b %b %b" % (method, target, version), b"Host: h", *headers, b"", body])


async def answered(stand: Stand, request: bytes, pieces: Sequence[int]) -> list[Any]:
    """Send a request a few times, each time on the same connection while it lives, in these pieces."""
    wire = stand.connect()
    seen: list[Any] = []
    for _ in range(TIMES):
        if wire.is_closed:
            wire = stand.connect()
        cuts = sorted({min(at, len(request)) for at in pieces})
        bounds = [0, *cuts, len(request)]
        found = await stand.ask(wire, *(request[a:b] for a, b in pairwise(bounds) if a < b))
        seen.append((found, wire.is_closed))
        if not found:  # it waits for more, on both sides
            break
    await _end(wire)
    return seen


async def _end(wire: Wire) -> None:
    wire.close()
    for _ in range(5):
        await asyncio.sleep(0)


async def conversation(stand: Stand, sent: bytes, cut: int, answers: int) -> list[Any]:
    """Send pipelined requests in two pieces."""
    wire = stand.connect()
    found = await stand.ask(wire, sent[:cut], sent[cut:], answers=answers)
    await _end(wire)
    return found


def test_the_lane_answers_what_the_application_answers(model: Model, loop: asyncio.Runner) -> None:
    draw = Random(20260101)  # noqa: S311 -- made-up requests, the same each time
    for _ in range(REQUESTS):
        request = requests(draw, model)
        pieces = [draw.randint(1, 600) for _ in range(draw.randint(0, 2))]
        lane = loop.run(answered(model.lane, request, pieces))
        plain = loop.run(answered(model.plain, request, pieces))
        assert lane == plain, request
    assert model.lane.counts(*COUNTED) == model.plain.counts(*COUNTED)


def test_pipelined_requests_are_answered_alike(model: Model, loop: asyncio.Runner) -> None:
    draw = Random(20260102)  # noqa: S311 -- made-up requests, the same each time
    for _ in range(CONVERSATIONS):
        sent = [requests(draw, model) for _ in range(draw.randint(2, 5))]
        joined = b"".join(sent)
        cut = draw.randint(0, len(joined))
        lane = loop.run(conversation(model.lane, joined, cut, len(sent)))
        plain = loop.run(conversation(model.plain, joined, cut, len(sent)))
        shorter = min(len(lane), len(plain))  # after a last answer, what else had arrived is nobody's promise
        assert lane[:shorter] == plain[:shorter], joined
        assert bool(lane) == bool(plain), joined
