"""A client's mistake is refused with the right code, one shape and the field's name; never a 5xx, never a hang."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import httpx
import orjson
import pytest

from support.server_process import FULL_ROW, ROW, ServerProcess

V1 = "/v1/models/arrival-delay:predict"
V2 = "/v2/models/arrival-delay/infer"
DATATYPES = {str: "BYTES", int: "INT64", float: "FP64", bool: "BOOL"}


def v1(*rows: Any, **rest: Any) -> bytes:
    return orjson.dumps({"instances": list(rows), **rest})


def without(name: str, row: dict[str, Any] = ROW) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def tensor(name: str, value: Any, /, **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[type(value)], "shape": [1], "data": [value]} | fields


def v2(row: dict[str, Any] = ROW, /, *, change: dict[str, Any] | None = None, **rest: Any) -> bytes:
    """A V2 request of one row; ``change`` has fields of tensors by name."""
    inputs = [tensor(name, value, **(change or {}).get(name, {})) for name, value in row.items()]
    return orjson.dumps({"inputs": inputs, **rest})


V1_CASES: dict[str, tuple[bytes, int, str]] = {
    "empty body": (b"", 400, "empty"),
    "not JSON": (b"hello", 400, "JSON"),
    "cut off": (v1(ROW)[:-1], 400, "JSON"),
    "trailing text": (v1(ROW) + b"x", 400, "JSON"),
    "two documents": (v1(ROW) * 2, 400, "JSON"),
    "NaN literal": (v1(ROW).replace(b"1400.0", b"NaN"), 400, "JSON"),
    "Infinity literal": (v1(ROW).replace(b"1400.0", b"-Infinity"), 400, "JSON"),
    "number beyond doubles": (v1(ROW).replace(b"1400.0", b"1e999"), 400, "JSON"),
    "leading zero": (v1(ROW).replace(b"1400.0", b"01"), 400, "JSON"),
    "comment": (b"/* x */" + v1(ROW), 400, "JSON"),
    "UTF-16": (v1(ROW).decode().encode("utf-16"), 400, "JSON"),
    "Latin-1": (v1(ROW | {"origin": "é"}).decode().encode("latin-1"), 400, "JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + v1(ROW), 400, "JSON"),
    "lone surrogate": (v1(ROW).replace(b'"EWR"', b'"\\ud800"'), 400, "JSON"),
    "deep nesting": (b"[" * 100_000, 400, "JSON"),
    "deep objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "JSON"),
    "nested deeply inside": (b'{"instances":' + b"[" * 900 + b"]" * 900 + b"}", 400, "instances"),
    "a list": (b"[1, 2]", 400, "object"),
    "a number": (b"1", 400, "object"),
    "null": (b"null", 400, "object"),
    "no instances": (b"{}", 400, "instances"),
    "instances null": (b'{"instances": null}', 400, "instances"),
    "instances an object": (b'{"instances": {}}', 400, "instances"),
    "no rows": (v1(), 400, "instances"),
    "an empty row": (v1({}), 400, "instances[0]"),
    "a scalar row": (v1(1), 400, '{"origin": …'),
    "a list row": (v1([1, 2, 3]), 400, '{"origin": …'),
    "second row a list": (v1(ROW, [1]), 400, "instances[1]"),
    "ragged: missing": (v1(ROW, without("hour")), 400, "hour"),
    "ragged: more": (v1(without("hour"), ROW), 400, "hour"),
    "a name twice": (v1(ROW).replace(b'"hour":5', b'"hour":5,"hour":6'), 400, "'hour'"),
    "a name twice, colons in text": (
        v1(ROW | {"dest": "a:b"}).replace(b'"hour":5', b'"hour":5,"hour":6'),
        400,
        "'hour'",
    ),
    "instances twice": (v1(ROW)[:-1] + b',"instances":[]}', 400, "instances"),
    "missing key": (v1(without("tailnum")), 400, "tailnum"),
    "missing request feature": (v1(without("distance")), 400, "distance"),
    "missing feature of a full request": (v1(without("plane__seats", FULL_ROW)), 400, "plane__seats"),
    "unknown name": (v1(ROW | {"colour": "red"}), 400, "colour"),
    "unknown name with an object": (v1(ROW | {"colour": {"a": [1]}}), 400, "colour"),
    "mixed": (v1(ROW | FULL_ROW), 400, "plane__seats"),
    "text for a number": (v1(ROW | {"hour": "5"}), 400, "hour"),
    "number for text": (v1(ROW | {"origin": 5}), 400, "origin"),
    "boolean for a number": (v1(ROW | {"hour": True}), 400, "hour"),
    "number for a boolean": (v1(FULL_ROW | {"plane__jet": 1}), 400, "plane__jet"),
    "null for text": (v1(ROW | {"origin": None}), 400, "origin"),
    "null for an integer": (v1(ROW | {"hour": None}), 400, "hour"),
    "a list for a value": (v1(ROW | {"hour": [5]}), 400, "hour"),
    "an object for a value": (v1(ROW | {"hour": {"a": 1}}), 400, "hour"),
    "fraction for an integer": (v1(ROW | {"hour": 5.5}), 400, "hour"),
    "integer out of range": (v1(ROW | {"hour": 2**63}), 400, "hour"),
    "integer far out of range": (v1(ROW).replace(b'"hour":5', b'"hour":1' + b"0" * 400), 400, ""),
    "float out of float32": (v1(FULL_ROW | {"origin_weather__temp": 1e300}), 400, "origin_weather__temp"),
    "parameters a list": (v1(ROW, parameters=[]), 400, "parameters"),
    "report_states text": (v1(ROW, parameters={"report_states": "yes"}), 400, "report_states"),
}

ROWS_CASES: dict[str, bytes] = {
    "a row that is no object": orjson.dumps({"instances": [{"hour": 5}] * 10_000 + [7]}),
    "a value of another kind": orjson.dumps({"instances": [{"hour": 5}] * 10_000 + [{"hour": "five"}]}),
    "names twice": b'{"instances":[' + b'{"hour":5,"hour":5},' * 10_000 + b'{"hour":5}]}',
}
"""10,001 rows with a mistake that is not reported, because they are counted first."""

V2_CASES: dict[str, tuple[bytes, int, str]] = {
    "empty body": (b"", 400, "empty"),
    "trailing text": (v2() + b" x", 400, "JSON"),
    "V1 body": (v1(ROW), 400, "inputs"),
    "inputs null": (b'{"inputs": null}', 400, "inputs"),
    "no inputs": (b'{"inputs": []}', 400, "inputs"),
    "inputs an object": (b'{"inputs": {}}', 400, "inputs"),
    "input a number": (b'{"inputs": [1]}', 400, "inputs[0]"),
    "input without name": (b'{"inputs": [{}]}', 400, "inputs[0]"),
    "name a number": (v2(change={"hour": {"name": 5}}), 400, "inputs[3]"),
    "name empty": (v2(change={"hour": {"name": ""}}), 400, "inputs[3]"),
    "input twice": (v2(change={"hour": {"name": "weekday"}}), 400, "weekday"),
    "datatype missing": (v2(change={"hour": {"datatype": None}}), 400, "hour"),
    "datatype unknown": (v2(change={"hour": {"datatype": "INT128"}}), 400, "INT128"),
    "datatype lower case": (v2(change={"hour": {"datatype": "int64"}}), 400, "hour"),
    "datatype a list": (v2(change={"hour": {"datatype": []}}), 400, "hour"),
    "wrong datatype": (v2(change={"hour": {"datatype": "BYTES", "data": ["5"]}}), 400, "hour"),
    "bool for an integer": (v2(change={"hour": {"datatype": "BOOL", "data": [True]}}), 400, "hour"),
    "lossy datatype": (v2(change={"hour": {"datatype": "FP32", "data": [5.5]}}), 400, "hour"),
    "data of another kind": (v2(change={"hour": {"data": ["5"]}}), 400, "hour"),
    "unknown name with a null": (v2(ROW | {"colour": 1}, change={"colour": {"data": [None]}}), 400, "input colour is"),
    "unknown name with bytes": (v2(ROW | {"colour": 1}, change={"colour": {"data": ["x"]}}), 400, "input colour is"),
    "out of the datatype's range": (v2(change={"hour": {"datatype": "INT8", "data": [128]}}), 400, "hour"),
    "negative unsigned": (v2(change={"hour": {"datatype": "UINT8", "data": [-1]}}), 400, "hour"),
    "beyond FP16": (v2(change={"distance": {"datatype": "FP16", "data": [1e6]}}), 400, "distance"),
    "lossy FP64 for float32": (
        v2(FULL_ROW, change={"origin_weather__temp": {"datatype": "FP64", "data": [0.1]}}),
        400,
        "origin_weather__temp",
    ),
    "shape missing": (v2(change={"hour": {"shape": None}}), 400, "hour"),
    "shape a number": (v2(change={"hour": {"shape": 1}}), 400, "hour"),
    "shape empty": (v2(change={"hour": {"shape": []}}), 400, "hour"),
    "shape of 0 rows": (v2(change={"hour": {"shape": [0], "data": []}}), 400, "hour"),
    "shape negative": (v2(change={"hour": {"shape": [-1]}}), 400, "hour"),
    "shape of floats": (v2(change={"hour": {"shape": [1.0]}}), 400, "hour"),
    "shape of booleans": (v2(change={"hour": {"shape": [True]}}), 400, "hour"),
    "shape of two columns": (v2(change={"hour": {"shape": [1, 2], "data": [1, 2]}}), 400, "hour"),
    "shape with three sides": (v2(change={"hour": {"shape": [1, 1, 1]}}), 400, "hour"),
    "shape huge": (v2(change={"hour": {"shape": [2**62]}}), 413, "at most 10000"),
    "too many rows, data not looked at": (
        v2(change={"tailnum": {"shape": [10_001], "data": [1] * 10_001}}),
        413,
        "the request has 10001 rows; send at most 10000",
    ),
    "too many rows in bytes that are not there": (
        v2(change={"tailnum": {"shape": [10_001], "parameters": {"binary_data_size": 8}}}),
        413,
        "10001 rows",
    ),
    "shape and data disagree": (v2(change={"hour": {"shape": [2]}}), 400, "hour"),
    "rows disagree": (v2(change={"hour": {"shape": [2], "data": [5, 6]}}), 400, "hour"),
    "data missing": (v2(change={"hour": {"data": None}}), 400, "hour"),
    "data a number": (v2(change={"hour": {"data": 5}}), 400, "hour"),
    "data nested too deeply": (v2(change={"hour": {"data": [[[5]]]}}), 400, "hour"),
    "data ragged": (v2(change={"hour": {"shape": [2], "data": [[5], 6]}}), 400, "hour"),
    "data of two columns": (v2(change={"hour": {"data": [[5, 6]]}}), 400, "hour"),
    "data with objects": (v2(change={"hour": {"data": [{"a": 1}]}}), 400, "hour"),
    "a name twice": (v2().replace(b'"shape":', b'"shape":[1],"shape":', 1), 400, "'shape'"),
    "id a number": (v2(id=7), 400, "id"),
    "outputs an object": (v2(outputs={}), 400, "outputs"),
    "output a text": (v2(outputs=["probability_late"]), 400, "outputs[0]"),
    "output unknown": (v2(outputs=[{"name": "nothing"}]), 400, "probability_late"),
    "output twice": (v2(outputs=[{"name": "probability_late"}] * 2), 400, "twice"),
    "output classified": (
        v2(outputs=[{"name": "probability_late", "parameters": {"classification": 2}}]),
        400,
        "classification",
    ),
    "output in shared memory": (
        v2(outputs=[{"name": "probability_late", "parameters": {"shared_memory_region": "r"}}]),
        400,
        "shared memory",
    ),
    "binary_data text": (
        v2(outputs=[{"name": "probability_late", "parameters": {"binary_data": "1"}}]),
        400,
        "binary_data",
    ),
    "binary_data_output text": (v2(parameters={"binary_data_output": 1}), 400, "binary_data_output"),
    "parameters a list": (v2(parameters=[1]), 400, "parameters"),
    "tensor parameters a list": (v2(change={"hour": {"parameters": [1]}}), 400, "hour"),
    "input in shared memory": (
        v2(change={"hour": {"parameters": {"shared_memory_region": "r"}}}),
        400,
        "shared memory",
    ),
    "binary size without bytes": (v2(change={"hour": {"parameters": {"binary_data_size": 8}}}), 400, "hour"),
    "binary size negative": (v2(change={"hour": {"parameters": {"binary_data_size": -8}}}), 400, "hour"),
    "binary size text": (v2(change={"hour": {"parameters": {"binary_data_size": "8"}}}), 400, "hour"),
    "missing key": (v2(without("tailnum")), 400, "tailnum"),
    "unknown name": (v2(ROW | {"colour": "red"}), 400, "colour"),
    "mixed": (v2(ROW | FULL_ROW), 400, "plane__seats"),
}


def assert_refused(answer: httpx.Response, status: int, text: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]
    assert text in content["error"]


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Any:
    with httpx.Client(base_url=server.url, timeout=10) as opened:
        yield opened


@pytest.mark.parametrize(("body", "status", "text"), V1_CASES.values(), ids=list(V1_CASES))
def test_v1_refuses(client: httpx.Client, body: bytes, status: int, text: str) -> None:
    assert_refused(client.post(V1, content=body), status, text)


@pytest.mark.parametrize(("body", "status", "text"), V2_CASES.values(), ids=list(V2_CASES))
def test_v2_refuses(client: httpx.Client, body: bytes, status: int, text: str) -> None:
    assert_refused(client.post(V2, content=body), status, text)


@pytest.mark.parametrize("body", ROWS_CASES.values(), ids=list(ROWS_CASES))
def test_too_many_rows_are_refused_before_they_are_looked_at(client: httpx.Client, body: bytes) -> None:
    assert_refused(client.post(V1, content=body), 413, "the request has 10001 rows; send at most 10000")


HEAD, TAIL = (
    orjson.dumps({"inputs": [tensor("hour", 5, parameters={"binary_data_size": 8}) | {"shape": [1]}]}),
    bytes(8),
)
BINARY_HEAD = HEAD.replace(b',"data":[5]', b"")


@pytest.mark.parametrize(
    ("length", "body", "text"),
    [
        ("x", HEAD, "length"),
        ("-1", HEAD, "length"),
        ("1.5", HEAD, "length"),
        ("", HEAD, "length"),
        ("٣", HEAD, "length"),
        ("9" * 400, HEAD, "length"),
        (str(len(HEAD) + 1), HEAD, "length"),
        ("0", BINARY_HEAD + TAIL, "empty"),
        (str(len(BINARY_HEAD)), BINARY_HEAD + TAIL[:4], "hour"),
        (str(len(BINARY_HEAD)), BINARY_HEAD + TAIL + b"x", "1 bytes"),
        (str(len(HEAD)), HEAD + TAIL, "send one of them"),
        (str(len(v2())), v2() + TAIL, "belong to no tensor"),
        (str(len(BINARY_HEAD) - 1), BINARY_HEAD + TAIL, "JSON"),
    ],
)
def test_binary_requests_with_wrong_lengths_are_refused(
    client: httpx.Client, length: str, body: bytes, text: str
) -> None:
    answer = client.post(V2, content=body, headers={b"inference-header-content-length": length.encode()})
    assert_refused(answer, 400, text)


@pytest.mark.parametrize(
    ("raw", "datatype", "text"),
    [
        (bytes(4), "BYTES", "origin"),
        (b"\xff\xff\xff\xff", "BYTES", "cut off"),
        (b"\x03\x00\x00\x00EW", "BYTES", "cut off"),
        (b"\x01\x00", "BYTES", "cut off"),
        (b"\x01\x00\x00\x00\xff", "BYTES", "UTF-8"),
        (b"\x01\x00\x00\x00E" * 2, "BYTES", "2 values"),
        (bytes(8), "INT64", "origin"),
        (bytes(7), "INT64", "8 bytes"),
        (b"\x02", "BOOL", "BOOL"),
    ],
)
def test_binary_tensors_that_do_not_fit_are_refused(client: httpx.Client, raw: bytes, datatype: str, text: str) -> None:
    head = {"name": "origin", "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    inputs = [head, *(tensor(name, value) for name, value in without("origin").items())]
    body = orjson.dumps({"inputs": inputs})
    answer = client.post(V2, content=body + raw, headers={"inference-header-content-length": str(len(body))})
    assert_refused(answer, 400, text)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/v1/models/nobody:predict", 404, "nobody"),
        ("POST", "/v2/models/nobody/infer", 404, "nobody"),
        ("POST", "/v2/models/arrival-delay/versions/9/infer", 404, "version"),
        ("GET", "/v1/models/nobody", 404, "nobody"),
        ("GET", "/v2/models/nobody", 404, "nobody"),
        ("GET", "/v2/models/nobody/ready", 404, "nobody"),
        ("GET", "/v2/models/arrival-delay/versions/9", 404, "version"),
        ("GET", "/v2/models/arrival-delay/versions/9/ready", 404, "version"),
        ("GET", "/v2/models/%2e%2e%2f%00/ready", 404, "nothing is served"),
        ("POST", "/v1/models/a%2Fb:predict", 404, "'/v1/models/a/b:predict'"),
        ("POST", "/v2/models/a%2Fb/infer", 404, "'/v2/models/a/b/infer'"),
        ("GET", "/v2/models//ready", 404, "''"),
        ("GET", V1, 405, "POST"),
        ("PUT", V2, 405, "POST"),
        ("DELETE", "/v2/models/arrival-delay", 405, "GET"),
        ("POST", "/v2", 405, "GET"),
        ("POST", "/v2/health/ready", 405, "GET"),
        ("GET", "/v2/repository/index", 405, "POST"),
        ("OPTIONS", V2, 405, "POST"),
        ("POST", "/metrics", 405, "GET"),
        ("GET", "/nowhere", 404, "/nowhere"),
        ("POST", "/", 405, "GET"),
        ("GET", "/v2/models/nobody/stats", 404, "nobody"),
        ("POST", "/v2/models/arrival-delay/stats", 405, "GET"),
        ("POST", "/v1/models/arrival-delay:classify", 404, "classify"),
        ("POST", "/v1/models/arrival-delay:explain", 400, "explainer"),
        ("POST", "/v1/models/nobody:explain", 404, "nobody"),
        ("POST", "/v2/repository/models/arrival-delay/load", 400, "loaded"),
        ("POST", "/v2/repository/models/arrival-delay/unload", 400, "loaded"),
        ("POST", "/v2/repository/models/nobody/unload", 400, "loaded"),
    ],
)
def test_paths_and_methods_are_refused(client: httpx.Client, method: str, path: str, status: int, text: str) -> None:
    answer = client.request(method, path)
    assert_refused(answer, status, text)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("body", [b"x", b"[]", b'{"ready": 1}'])
def test_a_malformed_index_request_is_refused(client: httpx.Client, body: bytes) -> None:
    assert client.post("/v2/repository/index", content=body).status_code == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
def test_compressed_bodies_are_refused(client: httpx.Client, encoding: str) -> None:
    answer = client.post(V1, content=gzip.compress(v1(ROW)), headers={"content-encoding": encoding})
    assert_refused(answer, 415, encoding)


@pytest.mark.parametrize("kind", [None, "application/json", "text/plain", "application/octet-stream", "nonsense"])
def test_the_content_type_does_not_matter(client: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert client.post(V1, content=v1(ROW), headers=headers).status_code == 200
    assert client.post(V2, content=v2(), headers=headers).status_code == 200


@pytest.mark.parametrize("path", [V1, V2, "/v2/repository/index"])
def test_an_oversized_body_is_refused(client: httpx.Client, path: str) -> None:
    assert_refused(client.post(path, content=bytes(2**20 + 1)), 413, "1048576")


def test_an_oversized_chunked_body_is_refused_while_it_streams(client: httpx.Client) -> None:
    assert_refused(client.post(V1, content=(bytes(2**16) for _ in range(17))), 413, "1048576")


def test_a_body_of_the_limit_is_read(client: httpx.Client) -> None:
    body = v1(ROW)
    assert client.post(V1, content=body + b" " * (2**20 - len(body))).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"POST /v2 HTTP/9.9\r\n\r\n",
        b"POST /v2\x00 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST http://[::1 HTTP/1.1\r\nhost: a\r\n\r\n",
        bytes(range(256)),
    ],
)
def test_bytes_that_are_no_http_are_refused(server: ServerProcess, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=5) as connection:
        connection.sendall(raw)
        answer = connection.recv(4096)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 405")), answer
    assert list(json.loads(answer.partition(b"\r\n\r\n")[2])) == ["error"]


@pytest.mark.parametrize("sent", [b"", v1(ROW)[:20]], ids=["no body", "half a body"])
def test_a_client_that_goes_away_harms_nobody(server: ServerProcess, client: httpx.Client, sent: bytes) -> None:
    before = server.count("fairlead_requests_total", protocol="v1-rest", code="500")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=5) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n%s" % (V1.encode(), sent))
    assert client.post(V1, content=v1(ROW)).status_code == 200
    assert server.count("fairlead_requests_total", protocol="v1-rest", code="500") == before


def test_refusals_are_counted_by_code(server: ServerProcess, client: httpx.Client) -> None:
    def counted(code: int) -> float:
        return server.count("fairlead_requests_total", variant="logistic", protocol="v2-rest", code=str(code))

    before = {code: counted(code) for code in (200, 400, 404, 405, 413)}
    client.post(V2, content=v2())
    client.post(V2, content=b"x")
    client.post("/v2/models/nobody/infer", content=v2())
    client.get(V2)
    client.post(V2, content=bytes(2**20 + 1))
    assert {code: counted(code) - before[code] for code in before} == dict.fromkeys(before, 1.0)


def test_no_mistake_of_this_module_was_counted_as_ours(server: ServerProcess) -> None:
    for protocol in ("v1-rest", "v2-rest", "v2-grpc"):
        for code in ("500", "INTERNAL", "UNKNOWN"):
            assert server.count("fairlead_requests_total", protocol=protocol, code=code) == 0
    assert "request failed" not in server.log
