"""The lane and the application answer alike: the same requests, valid and broken in every way, down both paths.

Each request is sent three times on a connection, for the lane reads it otherwise when it knows its form and its
head. Compared are status, headers, body, what becomes of the connection, and at the end everything that was counted.

``FAIRLEAD_DIFFERENTIAL_REQUESTS=100000`` compares so many requests, ``FAIRLEAD_DIFFERENTIAL_SEED`` others.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest

from fairlead.assignment import Layout, assign
from fairlead.clock import ReplayClock, ReplayClockWriter, to_us
from fairlead.contract import Feature
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.route import EXPERIMENT_HEADER, ExperimentRoute, RouteKey
from support.made_requests import Asked, Input, Requests
from support.models import contract_of, make_contract, write_model
from support.plain_models import identity, sums
from support.predictors import NOON
from support.store import make_repo
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
SEED = int(os.environ.get("FAIRLEAD_DIFFERENTIAL_SEED", "20260101"))
REQUESTS = int(os.environ.get("FAIRLEAD_DIFFERENTIAL_REQUESTS", "4000"))
CONVERSATION, GROUP = 3.5, 4
"""Requests of a conversation, and of a group that is sent in one turn, on average."""
LEAST_ANSWERED = 0.25
"""Share of requests that must have been answered with predictions, else they show little."""


def _experiment(route: ExperimentRoute, *units: str) -> tuple[bytes, ...]:
    return (f"{EXPERIMENT_HEADER}: {route.sign(KEY)}".encode(), *(f"x-unit-id: {unit}".encode() for unit in units))


EXPERIMENTS: list[tuple[bytes, ...]] = [
    (),
    (),
    _experiment(ROUTE, OURS),
    _experiment(ROUTE, THEIRS),
    _experiment(ROUTE),
    _experiment(ROUTE, OURS, OURS),
    (b"x-fairlead-experiment: v1.k1.e30.AA", b"x-unit-id: u"),
    (*_experiment(ROUTE, OURS), b"x-fairlead-experiment: v1.k1.e30.AA"),
    _experiment(ExperimentRoute(SALT, 0, "other-1", "boosted", LAYOUT, "header:x-unit-id"), OURS),
]

_DTYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "string": "BYTES"}
_KEYS = (
    Input("origin", "BYTES", texts=("EWR", "EWR", "LGA", "nowhere")),
    Input("dest", "BYTES", texts=("IAH", "nowhere")),
    Input("tailnum", "BYTES", texts=("N14228", "N14228", "N2", "nobody")),
    Input("hour", "INT64"),
    Input("weekday", "INT64"),
    Input("distance", "FP64"),
)


@dataclass(frozen=True, slots=True)
class Model:
    """A model's file, and how it is asked."""

    path: Path
    asked: Asked
    feature_store: Path | None = None


def _plain(folder: Path, content: bytes, inputs: Sequence[Input], outputs: Sequence[str]) -> Model:
    path = folder / "m.onnx"
    path.write_bytes(content)
    return Model(path, Asked(b"m", [inputs], [*outputs, "none"], experiments=EXPERIMENTS))


def _of_one(datatype: str, *sides: int, folder: Path) -> Model:
    return _plain(folder, identity(datatype, ("n", *sides)), [Input("x", datatype, sides)], ["y"])


def _of_two(folder: Path) -> Model:
    return _plain(folder, sums(), [Input("a", "FP32", (2,)), Input("b", "FP32", (2,))], ["sum", "difference"])


def _contract(folder: Path, **dtypes: Any) -> Model:
    features = [
        Feature(view="a", name=name, dtype=dtype, default={"string": "unknown", "float32": None}.get(dtype, 0))
        for name, dtype in dtypes.items()
    ]
    contract = make_contract(features)
    path = folder / "m.onnx"
    write_model(path, contract)
    full = [Input(feature.input, _DTYPES[feature.dtype]) for feature in features]
    outputs = ["probability_late", "seen_a__f", "none"]
    return Model(path, Asked(contract.model.encode(), [full], outputs, is_plain=False, experiments=EXPERIMENTS))


def _hydrated(folder: Path) -> Model:
    repo = make_repo(folder / "repo")
    for origin, temp in (("EWR", 12.5), ("LGA", None)):
        repo.write("origin_weather", {"origin": origin}, {"temp": temp, "wind": 3.0}, NOON)
    repo.write("tail_performance", {"tailnum": "N14228"}, {"mean_delay": 4.25, "flights": 7}, NOON)
    repo.write("plane", {"tailnum": "N14228"}, {"seats": 149, "maker": "BOEING", "jet": True}, NOON)
    repo.write("pair_performance", {"origin": "EWR", "dest": "IAH"}, {"mean_delay": -2.0}, NOON)
    contract = contract_of(repo.describe())
    path = folder / "m.onnx"
    write_model(path, contract)
    full = [Input(feature.input, _DTYPES[feature.dtype]) for feature in contract.features]
    outputs = ["probability_late", "seen_plane__maker", "none"]
    asked = Asked(contract.model.encode(), [_KEYS, _KEYS, full], outputs, is_plain=False, experiments=EXPERIMENTS)
    return Model(path, asked, repo.path)


MODELS: Final[Mapping[str, tuple[Callable[..., Model], float]]] = MappingProxyType(
    {
        "wide": (lambda folder: _plain(folder, wide(), [Input("x", "FP32", (3,))], ["double", "place"]), 0.2),
        "FP64": (partial(_of_one, "FP64", 2), 0.05),
        "FP16": (partial(_of_one, "FP16", 2), 0.05),
        "INT8": (partial(_of_one, "INT8", 2), 0.05),
        "INT64": (partial(_of_one, "INT64", 2), 0.05),
        "UINT64": (partial(_of_one, "UINT64", 1), 0.05),
        "BOOL": (partial(_of_one, "BOOL", 2), 0.05),
        "BYTES": (partial(_of_one, "BYTES", 2), 0.05),
        "column": (partial(_of_one, "FP32"), 0.05),
        "deep": (partial(_of_one, "FP32", 2, 2), 0.05),
        "two inputs": (_of_two, 0.05),
        "contract": (partial(_contract, f="float32", i="int64", s="string"), 0.1),
        "numbers": (partial(_contract, f="float32", g="float32", h="float32"), 0.1),
        "hydrated": (_hydrated, 0.1),
    }
)
"""How a model is made, and its share of all requests."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A served model, twice, and requests for it."""

    lane: Stand
    plain: Stand
    requests: Requests
    count: int


@pytest.fixture(scope="module")
def loop() -> Any:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("model")
    (folder / "route-keys.json").write_text(json.dumps({"keys": [{"id": KEY.id, "secret": KEY.secret.hex()}]}))
    ring = KeyRing((SigningKey("k1", bytes(32)),), bytes(32))
    (folder / FEEDBACK_FILE).write_text(Feedback("http://127.0.0.1:1", ring).dumped())
    ReplayClockWriter(folder / "clock", to_us(NOON))
    make, share = MODELS[request.param]
    model = make(folder=folder)

    async def stands() -> list[Stand]:
        return [
            await stand_of(
                model.path,
                lane=lane,
                serving_dir=folder,
                revision="boosted-1",
                feature_store=model.feature_store,
                clock=ReplayClock(folder / "clock"),
            )
            for lane in (True, False)
        ]

    lane, plain = loop.run(stands())
    yield Pair(lane, plain, Requests(model.asked, SEED), max(1, round(share * REQUESTS)))
    for stand in (lane, plain):
        loop.run(stand.service.close())


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


def counted(pair: Pair, before: Sequence[Mapping[Any, float]] = ({}, {})) -> list[dict[Any, float]]:
    """Return what has been counted on both sides since it was ``before``."""
    found = [stand.counts(*COUNTED) for stand in (pair.lane, pair.plain)]
    return [
        {key: value - then.get(key, 0) for key, value in now.items() if value != then.get(key, 0)}
        for now, then in zip(found, before, strict=True)
    ]


def test_the_lane_answers_what_the_application_answers(pair: Pair, loop: asyncio.Runner) -> None:
    before = counted(pair)
    statuses: list[int] = []

    async def compare() -> None:
        for _ in range(pair.count):
            request, pieces = pair.requests.one(), pair.requests.pieces()
            lane = await answered(pair.lane, request, pieces)
            plain = await answered(pair.plain, request, pieces)
            assert lane == plain, request
            statuses.extend(answer[0] for answers, _ in lane for answer in answers)

    loop.run(compare())
    lane_counts, plain_counts = counted(pair, before)
    assert lane_counts == plain_counts
    assert not [status for status in statuses if status >= 500]  # nothing a client sends gives a 5xx
    assert statuses.count(200) >= LEAST_ANSWERED * len(statuses)


def test_pipelined_requests_are_answered_alike(pair: Pair, loop: asyncio.Runner) -> None:
    async def compare() -> None:
        for _ in range(1 + int(pair.count / 10 / CONVERSATION)):
            sent = pair.requests.together()
            joined = b"".join(sent)
            cut = pair.requests.cut(len(joined))
            lane = await conversation(pair.lane, joined, cut, len(sent))
            plain = await conversation(pair.plain, joined, cut, len(sent))
            shorter = min(len(lane), len(plain))  # after a last answer, what else had arrived is nobody's promise
            assert lane[:shorter] == plain[:shorter], joined
            assert bool(lane) == bool(plain), joined

    loop.run(compare())


def test_requests_of_one_turn_are_answered_alike(pair: Pair, loop: asyncio.Runner) -> None:
    before = counted(pair)

    async def compare() -> None:
        for _ in range(1 + int(pair.count / 2 / GROUP)):
            sent = pair.requests.together()
            assert await pair.lane.ask_together(*sent) == await pair.plain.ask_together(*sent), sent

    loop.run(compare())
    lane_counts, plain_counts = counted(pair, before)
    assert lane_counts == plain_counts
