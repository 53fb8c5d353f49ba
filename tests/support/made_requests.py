"""HTTP requests for predictions as no one client writes them all: valid, odd and broken, from a seed.

Half of them are free: any JSON, with things taken out, added and changed. The other half come from a few skeletons with
other values in them each time, written as text: a server that remembers the forms and heads of requests meets them
again and again, with whatever a number may look like. Their lengths are rounded up, so that heads are the same too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any, Final

from support.odd_values import BROKEN_HEADERS, HEADERS, ODD, ODD_NUMBERS, ODD_TEXTS, ODD_TRUTHS, RARE_HEADERS

_FLOATS: Final = ("FP16", "FP32", "FP64")
_FORMATS: Final = {"FP16": "e", "FP32": "f", "FP64": "d", "INT8": "b", "INT32": "i", "INT64": "q", "UINT64": "Q"}
_ODD_VALUE: Final = 40
"""One value in so many is written oddly."""
_LENGTHS: Final = 64
"""Bodies are so many bytes long, or a multiple."""
_SKELETONS: Final = 12


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a model, as requests bring it."""

    name: str
    datatype: str
    sides: tuple[int, ...] = ()
    """Dimensions after the first."""
    texts: tuple[str, ...] = ("a", "é", "")
    """Values, for text."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a model."""

    model: bytes
    ways: Sequence[Sequence[Input]]
    """What a request may bring: any of these."""
    outputs: Sequence[str]
    is_plain: bool = True
    """Whether the model has no contract."""
    experiments: Sequence[tuple[bytes, ...]] = ((),)
    """Headers that name experiments."""


@dataclass(frozen=True, slots=True)
class _Skeleton:
    kind: str
    inputs: Sequence[Input]
    rows: int
    rest: dict[str, Any]
    separators: tuple[str, str]
    headers: tuple[bytes, ...]


class Requests:
    """Makes requests for one model; the same for the same seed."""

    def __init__(self, asked: Asked, seed: int) -> None:
        self._asked = asked
        self._is_http = False
        self._draw = Random(seed)  # noqa: S311 -- made-up requests, the same each time
        self._skeletons = [self._skeleton() for _ in range(_SKELETONS)]

    def one(self, *, is_http: bool = False) -> bytes:
        """Return a request; if ``is_http``, with nothing wrong but what is asked."""
        self._is_http = is_http
        return self._free() if self._draw.random() < 0.4 else self._formed()

    def pieces(self) -> list[int]:
        """Return where the next request is cut on its way."""
        count = self._draw.choice((0, 0, 0, 1, 2))
        return [self._draw.randint(1, 600) for _ in range(count)]

    def together(self) -> list[bytes]:
        """Return a few requests that may follow each other on a connection."""
        return [self.one(is_http=True) for _ in range(self._draw.randint(2, 6))]

    def cut(self, size: int) -> int:
        """Return a place in so many bytes."""
        return self._draw.randint(0, size)

    # Skeletons with values in them.

    def _skeleton(self) -> _Skeleton:
        draw = self._draw
        kind = draw.choice(("v1", "v2", "v2", "nested", "binary"))
        inputs = list(draw.choice(self._asked.ways))
        if draw.randint(0, 2) == 0:
            draw.shuffle(inputs)
        rest: dict[str, Any] = {}
        if kind != "v1":
            rest = self._rest()
        elif draw.randint(0, 3) == 0:
            rest["parameters"] = {"report_states": True}
        separators = draw.choice(((",", ":"), (", ", ": "), (",\n ", ":")))
        headers = (*draw.choice(HEADERS), *draw.choice(self._asked.experiments))
        return _Skeleton(kind, inputs, draw.choice((1, 1, 1, 2, 3, 17)), rest, separators, headers)

    def _rest(self) -> dict[str, Any]:
        draw = self._draw
        rest: dict[str, Any] = {}
        if draw.randint(0, 2) == 0:
            rest["id"] = draw.choice(("7", "a-b", 'quo"te', "é", "%b %", ""))
        if draw.randint(0, 3) == 0:
            rest["outputs"] = [{"name": draw.choice(self._asked.outputs)}]
        if draw.randint(0, 3) == 0:
            rest["parameters"] = draw.choice(({"binary_data_output": True}, {"report_states": True}, {"other": 1}, {}))
        return rest

    def _formed(self) -> bytes:
        skeleton = self._draw.choice(self._skeletons)
        more: tuple[bytes, ...] = ()
        if skeleton.kind == "v1":
            body = self._v1(skeleton)
        elif skeleton.kind == "binary":
            body, more = self._binary(skeleton)
        else:
            body = self._v2(skeleton)
        return self._sent(skeleton.kind == "v1", body, (*skeleton.headers, *more))

    def _v1(self, skeleton: _Skeleton) -> bytes:
        comma, colon = skeleton.separators
        named = not (self._asked.is_plain and len(skeleton.inputs) == 1)
        rows = []
        for _ in range(skeleton.rows):
            cells = [self._cells(one, one.sides) for one in skeleton.inputs]
            names = [json.dumps(one.name) for one in skeleton.inputs]
            pairs = comma.join(f"{name}{colon}{cell}" for name, cell in zip(names, cells, strict=True))
            rows.append(f"{{{pairs}}}" if named else cells[0])
        rest = "".join(f"{comma}{json.dumps(name)}{colon}{json.dumps(v)}" for name, v in skeleton.rest.items())
        return _padded(f'{{"instances"{colon}[{comma.join(rows)}', f"]{rest}}}")

    def _v2(self, skeleton: _Skeleton) -> bytes:
        comma, colon = skeleton.separators
        tensors = []
        for one in skeleton.inputs:
            shape = (skeleton.rows, *one.sides)
            data = self._cells(one, shape if skeleton.kind == "nested" else (prod(shape),))
            head = json.dumps(
                {"name": one.name, "shape": shape, "datatype": one.datatype}, separators=skeleton.separators
            )
            tensors.append(f'{head[:-1]}{comma}"data"{colon}{data}}}')
        rest = "".join(f"{comma}{json.dumps(name)}{colon}{json.dumps(v)}" for name, v in skeleton.rest.items())
        joined = comma.join(tensors)
        return _padded(f'{{"inputs"{colon}[{joined[:-2]}', f"{joined[-2:]}]{rest}}}")

    def _binary(self, skeleton: _Skeleton) -> tuple[bytes, tuple[bytes, ...]]:
        draw = self._draw
        tensors: list[dict[str, Any]] = []
        tail = b""
        for one in skeleton.inputs:
            shape = [skeleton.rows, *one.sides]
            raw = b"".join(self._raw(one) for _ in range(prod(shape)))
            tail += raw
            size = {"binary_data_size": len(raw)}
            tensors.append({"name": one.name, "shape": shape, "datatype": one.datatype, "parameters": size})
        head = json.dumps({"inputs": tensors, **skeleton.rest}, separators=skeleton.separators).encode()
        length = len(head) + draw.choice((0,) * 18 + (1, -1))
        text = draw.choice((b"%d",) * 20 + (b"0%d", b"+%d", b"%d ", b"%d.0", b"-%d")) % length
        tail = tail[: len(tail) - draw.choice((0,) * 18 + (1,))] + b"x" * draw.choice((0,) * 18 + (1,))
        return head + tail, (b"Inference-Header-Content-Length: " + text,)

    def _raw(self, one: Input) -> bytes:
        draw = self._draw
        if one.datatype == "BYTES":
            text = draw.choice(one.texts).encode() if draw.randint(0, _ODD_VALUE) else b"\xff"
            return struct.pack("<I", len(text)) + text
        if one.datatype == "BOOL":
            return bytes([draw.randint(0, 1) if draw.randint(0, _ODD_VALUE) else 2])
        code = _FORMATS[one.datatype]
        if draw.randint(0, _ODD_VALUE) == 0:
            return draw.randbytes(struct.calcsize(code))
        if one.datatype in _FLOATS:
            return struct.pack(f"<{code}", draw.choice((draw.uniform(-9, 9), 0.5, -0.0)))
        return struct.pack(f"<{code}", draw.randint(0, 100))

    def _cells(self, one: Input, shape: Sequence[int]) -> str:
        """Return values as text, nested as the shape says."""
        if not shape:
            return self._value(one)
        comma = self._draw.choice((",",) * 40 + (", ", " ,", "\n,") * 3 + (",,", ";", " "))
        return f"[{comma.join(self._cells(one, shape[1:]) for _ in range(shape[0]))}]"

    def _value(self, one: Input) -> str:
        draw = self._draw
        is_odd = draw.randint(0, _ODD_VALUE) == 0
        if one.datatype == "BYTES":
            return draw.choice(ODD_TEXTS) if is_odd else json.dumps(draw.choice(one.texts), ensure_ascii=False)
        if one.datatype == "BOOL":
            return draw.choice(ODD_TRUTHS) if is_odd else draw.choice(("true", "false"))
        if is_odd:
            return draw.choice(ODD_NUMBERS)
        if one.datatype not in _FLOATS:
            return str(draw.randint(0, 100))
        return draw.choice((str(draw.randint(-9, 9)), repr(draw.gauss(0, 9)), f"{draw.uniform(-9, 9):.3f}"))

    # Free ones.

    def _free(self) -> bytes:
        draw = self._draw
        inputs = list(draw.choice(self._asked.ways))
        if draw.randint(0, 9) == 0:
            inputs = list({one.name: one for way in self._asked.ways for one in way}.values())
        rows = draw.randint(1, 3)
        is_v1 = draw.random() < 0.3
        values = {one.name: [self._json(one) for _ in range(rows * prod(one.sides))] for one in inputs}
        if is_v1:
            return self._sent(True, self._broken({"instances": self._instances(inputs, values, rows)}), ())
        tensors = [
            {"name": one.name, "shape": [rows, *one.sides], "datatype": one.datatype, "data": values[one.name]}
            for one in inputs
        ]
        return self._sent(False, self._broken({"inputs": tensors, **self._rest()}), ())

    def _json(self, one: Input) -> Any:
        draw = self._draw
        if one.datatype == "BYTES":
            return draw.choice(one.texts)
        if one.datatype == "BOOL":
            return draw.random() < 0.5
        if one.datatype in _FLOATS:
            return draw.choice((draw.randint(-9, 9), draw.gauss(0, 9), draw.choice((1e38, 3.4028236e38, 1e300, 0.1))))
        return draw.randint(0, 100)

    def _instances(self, inputs: Sequence[Input], values: dict[str, list[Any]], rows: int) -> list[Any]:
        parts = {
            one.name: [_nested(values[one.name], row, one.sides) for row in range(rows)]
            if one.sides
            else values[one.name]
            for one in inputs
        }
        if self._asked.is_plain and len(inputs) == 1:
            (found,) = parts.values()
            return found
        return [{name: found[row] for name, found in parts.items()} for row in range(rows)]

    def _broken(self, content: Any) -> bytes:
        draw = self._draw
        for _ in range(draw.choice((0, 1, 1, 2))):
            self._change(content)
        separators = draw.choice(((",", ":"), (", ", ": "), (" ,", " : ")))
        text = json.dumps(content, separators=separators, ensure_ascii=draw.random() < 0.5).encode()
        if draw.randint(0, 5) == 0:
            at = draw.randint(0, len(text) - 1)
            text = (
                text[:at] + draw.choice((b"", b" ", b"}", b'"', b",", b"\\", b"1", b"null", b"\xff")) + text[at + 1 :]
            )
        return text

    def _change(self, content: Any) -> None:
        """Change, take out or add something, somewhere."""
        draw = self._draw
        while isinstance(content, (dict, list)) and content:
            key: Any = draw.choice(sorted(content)) if isinstance(content, dict) else draw.randint(0, len(content) - 1)
            inner = content[key]
            if isinstance(inner, (dict, list)) and inner and draw.randint(0, 2):
                content = inner
                continue
            match draw.randint(0, 2):
                case 0:
                    del content[key]
                case 1:
                    content[key] = deepcopy(draw.choice(ODD))
                case _ if isinstance(content, dict):
                    content[draw.choice(("extra", "parameters", "data", "name"))] = deepcopy(draw.choice(ODD))
                case _:
                    content.append(deepcopy(draw.choice(ODD)))
            return

    # HTTP around them.

    def _sent(self, is_v1: bool, body: bytes, needed: tuple[bytes, ...]) -> bytes:
        draw, model = self._draw, self._asked.model
        path = b"/v1/models/%b:predict" % model if is_v1 else b"/v2/models/%b/infer" % model
        method, target, version = b"POST", path, b"HTTP/1.1"
        headers = [*needed]
        if draw.randint(0, 7) == 0:
            headers += draw.choice(RARE_HEADERS)
        if draw.randint(0, 19) == 0:
            method = draw.choice((b"GET", b"HEAD", b"PUT"))
        if draw.randint(0, 19) == 0:
            version = b"HTTP/1.0"
        if draw.randint(0, 39) == 0 and not self._is_http:
            method, version = draw.choice(((b"POST", b"HTTP/2.0"), (b"POST", b"HTTP/1.2"), (b"post", b"HTTP/1.1")))
        if draw.randint(0, 39) == 0 and not self._is_http:
            headers += draw.choice(BROKEN_HEADERS)
        if draw.randint(0, 9) == 0:
            target = draw.choice(self._targets(path))
        body += b" " * draw.choice((0,) * 30 + (5000,))
        if draw.randint(0, 14) == 0:
            headers.append(b"Transfer-Encoding: chunked")
            half = len(body) // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        else:
            missing = 0 if self._is_http else draw.choice((0,) * 100 + (1,))
            headers.append(b"Content-Length: %d" % (len(body) + missing))
        return b"\r\n".join([b"%b %b %b" % (method, target, version), b"Host: h", *headers, b"", body])

    def _targets(self, path: bytes) -> list[bytes]:
        model = self._asked.model
        more = [path + b"?a=b", path.replace(b"m", b"%6d"), path + b"/", b"http://h" + path, path + b"#a"]
        versions = [b"/v2/models/%b/versions/%d/infer" % (model, version) for version in (1, 9)]
        others = [b"/v2/models/other/infer", path.replace(b"/v", b"/V"), b"/v1/models/%b:explain" % model]
        return [*more, *versions, *others, *([] if self._is_http else [b"/" + path])]


def _padded(start: str, end: str) -> bytes:
    """Return a document with spaces in a place where none matters, so that many are of the same length."""
    before, after = start.encode(errors="surrogatepass"), end.encode()
    return before + b" " * (-(len(before) + len(after)) % _LENGTHS) + after


def _nested(values: list[Any], row: int, sides: Sequence[int]) -> list[Any]:
    size = prod(sides)
    flat = values[row * size : (row + 1) * size]
    for side in reversed(sides[1:]):
        flat = [flat[at : at + side] for at in range(0, len(flat), side)]
    return flat
