"""Predictions in the lane: their order, limits and deadlines, ends of connections, and whom the application answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead_server.protocol.rest import Limits
from support.wires import Stand, Wire, stand_of, wide

ROW = [1.5, -2.0, 0.25]
V2 = b"/v2/models/wide/infer"
V1 = b"/v1/models/wide:predict"


def body_of(*rows: list[float], **more: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 3], "data": [v for row in rows for v in row]}
    return json.dumps({"inputs": [tensor], **more}, separators=(",", ":")).encode()


def post(body: bytes, *headers: bytes, path: bytes = V2) -> bytes:
    head = [b"POST %b HTTP/1.1" % path, b"Host: h", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*head, b"", body])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "wide.onnx"
    path.write_bytes(wide())
    return path


@pytest.fixture
async def stand(model: Path) -> AsyncIterator[Stand]:
    stand = await stand_of(model, lane=True)
    yield stand
    await stand.connections.drain(0.0)


def doubled(answer: tuple[int, tuple[bytes, ...], bytes]) -> list[float]:
    status, _, body = answer
    assert status == 200, body
    (first, _) = json.loads(body)["outputs"]
    data: list[float] = first["data"]
    return data


async def test_a_prediction_is_written_at_once(stand: Stand) -> None:
    wire = stand.connect()
    for _ in range(4):  # strictly, learning its form, by its form, by its head
        (answer,) = await stand.ask(wire, post(body_of(ROW)))
        assert doubled(answer) == [3.0, -4.0, 0.5]
        assert answer[1] == (b"content-type: application/json", b"content-length: %d" % len(answer[2]))
    assert wire.writes == 4


async def test_forms_are_learnt_with_other_numbers_in_them(stand: Stand) -> None:
    wire = stand.connect()
    for n in range(6):
        (answer,) = await stand.ask(wire, post(body_of([n, n + 0.5, -n], [n, 1e-7 * n, n * 1e6])))
        wanted = np.array([n, n + 0.5, -n, n, 1e-7 * n, n * 1e6], np.float32) * 2
        assert np.array_equal(np.array(doubled(answer), np.float32), wanted)


async def test_connections_of_one_turn_share_a_run_and_each_gets_its_own_answer(stand: Stand) -> None:
    wires = [stand.connect() for _ in range(8)]
    for _ in range(3):
        for n, wire in enumerate(wires):
            wire.send(post(body_of([n, 0, 0])))
        await asyncio.gather(*(stand.ask(wire, answers=0) for wire in wires))
        for _ in range(3):
            await asyncio.sleep(0)
    assert [[doubled(answer)[0] for answer in wire.answers] for wire in wires] == [[2.0 * n] * 3 for n in range(8)]


async def test_a_request_may_come_in_any_pieces(stand: Stand) -> None:
    whole = post(body_of(ROW), b"Content-Type: application/json")
    wire = stand.connect()
    for at in range(1, len(whole)):
        (answer,) = await stand.ask(wire, whole[:at], whole[at:])
        assert doubled(answer) == [3.0, -4.0, 0.5]
    (answer,) = await stand.ask(wire, *(whole[at : at + 1] for at in range(len(whole))))
    assert doubled(answer) == [3.0, -4.0, 0.5]


@pytest.mark.parametrize("other", [b"GET /v2/health/live HTTP/1.1\r\n\r\n", post(b"{}"), post(body_of([7, 7, 7]))])
async def test_pipelined_requests_are_answered_in_their_order(stand: Stand, other: bytes) -> None:
    wire = stand.connect()
    requests = [post(body_of([1, 0, 0])), other, post(body_of([2, 0, 0])), other, post(body_of([3, 0, 0]))]
    answers = await stand.ask(wire, b"".join(requests), answers=5)
    assert [doubled(answer)[0] for answer in answers[::2]] == [2.0, 4.0, 6.0]
    assert len({answer[2] for answer in answers[1::2]}) == 1
    (again,) = await stand.ask(wire, post(body_of(ROW)))
    assert doubled(again) == [3.0, -4.0, 0.5]


async def test_a_request_that_arrives_before_the_answer_waits_for_it(stand: Stand) -> None:
    wire = stand.connect()
    wire.send(post(body_of([1, 0, 0])))
    wire.send(b"GET /v2 HTTP/1.1\r\n\r\n")
    assert wire.is_paused, "nobody can make the server keep more and more"
    first, second = await stand.ask(wire, answers=2)
    assert doubled(first)[0] == 2.0
    assert json.loads(second[2])["name"]


async def test_the_last_answer_says_so_and_ends_the_connection(stand: Stand) -> None:
    wire = stand.connect()
    wire.send(post(body_of(ROW)))
    wire.protocol.shutdown()
    (answer,) = await stand.ask(wire)
    assert b"connection: close" in answer[1]
    assert doubled(answer) == [3.0, -4.0, 0.5]
    assert wire.is_closed


async def test_an_idle_connection_is_ended_at_once(stand: Stand) -> None:
    wire = stand.connect()
    await stand.ask(wire, post(body_of(ROW)))
    wire.protocol.shutdown()
    assert wire.is_closed


async def test_who_is_being_read_when_the_server_stops_is_answered(stand: Stand) -> None:
    wire = stand.connect()
    whole = post(body_of(ROW))
    wire.send(whole[:-5])
    wire.protocol.shutdown()
    (answer,) = await stand.ask(wire, whole[-5:])
    assert doubled(answer) == [3.0, -4.0, 0.5]
    assert wire.is_closed


async def test_a_retiring_server_ends_connections_with_their_next_answer(stand: Stand) -> None:
    wire = stand.connect()
    await stand.ask(wire, post(body_of(ROW)))
    stand.connections.retire()
    (answer,) = await stand.ask(wire, post(body_of(ROW)))
    assert b"connection: close" in answer[1]
    assert wire.is_closed


async def test_a_client_that_leaves_before_its_body_is_whole_is_counted(stand: Stand) -> None:
    wire = stand.connect()
    wire.send(post(body_of(ROW))[:-1])
    wire.close()
    await asyncio.sleep(0)
    ((name, labels),) = stand.counts("fairlead_requests")
    assert (name, dict(labels)["code"]) == ("fairlead_requests_total", "499")


async def test_a_client_that_leaves_before_its_answer_harms_nobody(stand: Stand) -> None:
    leaving, staying = stand.connect(), stand.connect()
    leaving.send(post(body_of(ROW)))
    leaving.close()
    (answer,) = await stand.ask(staying, post(body_of(ROW)))
    assert doubled(answer) == [3.0, -4.0, 0.5]
    assert leaving.answers == []


async def test_a_body_that_does_not_come_in_time_is_refused_and_the_connection_goes_on(model: Path) -> None:
    stand = await stand_of(model, lane=True, limits=Limits(body_bytes=4096, body_deadline_s=0.01))
    wire = stand.connect()
    whole = post(body_of(ROW))
    wire.send(whole[:-5])
    await _until(lambda: bool(wire.answers))
    assert wire.answers[0][0] == 408
    wire.send(whole[-5:])
    (answer,) = await stand.ask(wire, whole)
    assert doubled(answer) == [3.0, -4.0, 0.5]
    await stand.connections.drain(0.0)


@pytest.mark.parametrize("size", [4, 20, -7])
async def test_a_head_that_does_not_come_in_time_ends_the_connection(model: Path, size: int) -> None:
    stand = await stand_of(model, lane=True, limits=Limits(4096, 60.0, head_deadline_s=0.01))
    slow, quick = stand.connect(), stand.connect()
    whole = post(body_of(ROW))
    head = whole[: whole.find(b"\r\n\r\n") + 4]
    for wire in (slow, quick):
        (answer,) = await stand.ask(wire, whole)
        assert doubled(answer) == [3.0, -4.0, 0.5]
    slow.send(head[:size])
    await _until(lambda: slow.is_closed)
    assert slow.answers[1][0] == 408
    assert b"connection: close" in slow.answers[1][1]
    (answer,) = await stand.ask(quick, whole[:10], whole[10:])
    assert doubled(answer) == [3.0, -4.0, 0.5]
    assert not quick.is_closed
    await stand.connections.drain(0.0)


@pytest.mark.parametrize("lane", [True, False])
async def test_a_deadline_that_the_client_sets_and_misses_is_408(model: Path, lane: bool) -> None:
    stand = await stand_of(model, lane=lane)
    loop = asyncio.get_running_loop()
    wire = stand.connect()
    wire.send(post(body_of(ROW), b"X-Envoy-Expected-Rq-Timeout-Ms: 1"))
    if not lane:
        await asyncio.sleep(0)  # the application has begun with it
    end_s = loop.time() + 0.003
    while loop.time() < end_s:  # nobody else has the event loop meanwhile
        pass
    ((status, _, body),) = await stand.ask(wire)
    assert (status, json.loads(body)["error"][:32]) == (408, "the request's deadline passed be")
    (answer,) = await stand.ask(wire, post(body_of(ROW)))
    assert doubled(answer) == [3.0, -4.0, 0.5]
    await stand.connections.drain(0.0)


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_body_over_the_limit_is_refused(stand: Stand, pieces: int) -> None:
    wire = stand.connect()
    whole = post(b" " * 5000)
    size = -(-len(whole) // pieces)
    (answer, *_) = await stand.ask(wire, *(whole[at : at + size] for at in range(0, len(whole), size)))
    assert answer[0] == 413


async def test_who_does_not_read_is_not_written_to(stand: Stand) -> None:
    wire = stand.connect()
    await stand.ask(wire, post(body_of(ROW)))
    wire.protocol.pause_writing()
    assert await stand.ask(wire, post(body_of(ROW))) == []
    wire.protocol.resume_writing()
    (answer,) = await stand.ask(wire)
    assert doubled(answer) == [3.0, -4.0, 0.5]


async def test_one_bad_request_of_a_turn_fails_alone(stand: Stand) -> None:
    good, bad, other = (stand.connect() for _ in range(3))
    for wire, body in ((good, body_of(ROW)), (bad, b'{"inputs": 1}'), (other, body_of(ROW))):
        wire.send(post(body))
    for wire in (good, bad, other):
        await stand.ask(wire, answers=0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert [wire.answers[0][0] for wire in (good, bad, other)] == [200, 400, 200]


async def test_connections_that_say_nothing_for_long_are_closed(stand: Stand) -> None:
    idle, slow, busy = (stand.connect() for _ in range(3))
    slow.send(b"POST /v2")
    whole = post(body_of(ROW))
    busy.send(whole[:-1])
    for _ in range(6):
        slow.send(b"x")
        for wire in (idle, slow, busy):
            _look(wire)
    assert [wire.is_closed for wire in (idle, slow, busy)] == [True, True, False]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- a condition of somebody else's
            await asyncio.sleep(0.005)


def _look(wire: Wire) -> None:
    """Let the time pass after which a connection is looked at."""
    timer = wire.protocol._watch
    if timer is not None:
        timer.cancel()
        wire.protocol._look()


async def test_v1_is_answered_by_rows(stand: Stand) -> None:
    wire = stand.connect()
    for rows in ([ROW], [ROW, ROW], [[0, 0, 1]], [ROW], [ROW, ROW]):
        (answer,) = await stand.ask(wire, post(json.dumps({"instances": rows}).encode(), path=V1))
        wanted = [{"double": [2 * v for v in row], "place": int(np.argmax(row))} for row in rows]
        assert json.loads(answer[2]) == {"predictions": wanted}


async def test_binary_tensors_are_answered_in_either_form(stand: Stand) -> None:
    wire = stand.connect()
    raw = np.array([ROW], "<f4").tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": len(raw)}}
    for wanted in (True, False):
        parameters = {"parameters": {"binary_data_output": wanted}}
        head = json.dumps({"inputs": [tensor], **parameters}).encode()
        for _ in range(4):
            length = b"Inference-Header-Content-Length: %d" % len(head)
            ((status, headers, body),) = await stand.ask(wire, post(head + raw, length))
            assert status == 200
            if wanted:
                assert body.endswith((np.array([ROW], "<f4") * 2).tobytes() + np.array([0], "<i8").tobytes())
                assert any(header.startswith(b"inference-header-content-length: ") for header in headers)
            else:
                assert doubled((status, headers, body)) == [3.0, -4.0, 0.5]
