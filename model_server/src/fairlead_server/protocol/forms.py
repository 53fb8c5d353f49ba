"""Forms of requests that came before: the same bytes, but for the numbers in them.

A client sends one document over and over with other numbers. What its form means is decided by the strict decoder
and by nothing else: when a form comes for the second time, it is decoded once more with numbers that are known, and
if these arrive where they should, later requests of the form need their numbers read and nothing else. How the
answer looks is taken in the same way from what the strict encoder makes of numbers that are known.

Graphs with one numeric input of fixed width, without a contract, are read this way, and by ``columns`` contracts of
numeric columns; whatever is not recognised is left to the strict decoder, which answers or refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final

import numpy as np
import orjson

from fairlead_server.errors import RequestError
from fairlead_server.predict.joint import Joint, Layout, Packed, Part, RowLayout
from fairlead_server.predict.request import PredictResponse
from fairlead_server.predict.signature import ANY, NUMPY_OF, TensorSpec
from fairlead_server.protocol import v1, v2
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.numbers import KINDS, Read, reader, rows_reader
from fairlead_server.protocol.schema import Schema

_WRITTEN: Final = frozenset(NUMPY_OF[name] for name in KINDS)
"""Types of outputs that are written by rows."""
_MOST_SIDES: Final = 2
_MOST_FORMS: Final = 256
_LONGEST_FORM: Final = 2048
_MOST_TEMPLATES: Final = 64
_MOST_NUMBERS: Final = 8192
"""Numbers of one request beyond which reading the rest of it costs nothing by comparison."""
_DATA: Final = (b'"data":[', b'"data": [')
_TRIED: Final = (77, 91, 113)
"""Numbers that answers are tried with; one is enough if no name has its digits."""


@dataclass(frozen=True, slots=True)
class Template:
    """How a request is answered but for the outputs' values."""

    body: bytes
    """Format of what is JSON."""
    places: tuple[tuple[str, int | None], ...]
    """Output, and row of the request if each row has a place of its own, for each blank in ``body``."""
    names: tuple[str, ...]
    """Outputs of these, as they follow each other."""
    tails: tuple[str, ...]
    """Outputs that follow the JSON as bytes."""

    def filled(self, part: Part) -> tuple[bytes, int | None]:
        """Return the body, and the length of its JSON if bytes follow it."""
        if part.stop - part.start == 1 and not self.tails:
            # All rows of the run at once: most of them are requests of one row and one form.
            return part.joint.bodies(self.body, self.names)[part.start], None
        texts = [
            part.text(name) if row is None else part.joint.texts(name)[part.start + row] for name, row in self.places
        ]
        head = self.body % tuple(texts)
        if not self.tails:
            return head, None
        return b"".join([head, *map(part.raw, self.tails)]), len(head)


@dataclass(frozen=True, slots=True)
class Form:
    """What requests of one form have in common."""

    layout: Layout | RowLayout
    read: Read
    """Reads the numbers: all of a V2 request, rows of a V1 request."""
    row_bytes: int
    """Of one row."""
    rows: int
    """Of a V2 request; 0 for V1, where each has its own."""
    size_bytes: int
    """Of a V2 request's rows."""
    encode: Callable[[PredictResponse], tuple[bytes, int | None]]
    """The strict encoder of such a request's answer."""
    outputs: tuple[tuple[str, bool], ...]
    """Outputs to answer, in order, and whether each is answered as bytes."""
    is_v1: bool
    templates: dict[tuple[int, tuple[tuple[int, ...], ...]], Template | None] = field(default_factory=dict)
    """By rows, and dimensions of the outputs; None where there is none."""

    def answer(self, part: Part) -> tuple[bytes, int | None]:
        """Return the answer's body, and the length of its JSON if bytes follow it."""
        rows = part.stop - part.start
        key = (rows, part.joint.tails)
        try:
            template = self.templates[key]
        except KeyError:
            if len(self.templates) >= _MOST_TEMPLATES:
                self.templates.clear()
            template = self.templates[key] = _template(self, part.joint, rows)
        if template is None:
            return self.encode(PredictResponse(part, None, degraded=False))
        return template.filled(part)


Reading = tuple[Form, Packed, int]
"""A request that was recognised: its form, its rows, and their number."""


class Forms:
    """Forms of the requests of one model; on the event loop's thread alone."""

    def __init__(self, schema: Schema) -> None:
        """Know none yet."""
        self._schema = schema
        self._spec = _readable(schema)
        self._known: dict[tuple[bytes, bytes, int], Form] = {}
        self._seen: dict[tuple[bytes, bytes, int], None] = {}

    def read_v1(self, body: bytes) -> Reading | None:
        """Return a V1 request's rows if its form is known."""
        start, end = body.find(b"["), body.rfind(b"]")
        form = self._known.get((body[:start], body[end:], 1))
        if form is None:
            return None
        raw = form.read(body, start, end + 1)
        return None if raw is None else (form, Packed(form.layout, raw), len(raw) // form.row_bytes)

    def read_v2(self, body: bytes) -> Reading | None:
        """Return a V2 request's rows if it is all JSON and its form is known."""
        start = body.find(b'"data":[') + 7
        if start < 7:  # noqa: PLR2004 -- not found
            start = body.find(b'"data": [') + 8
        end = body.find(b"]", start)
        form = self._known.get((body[:start], body[end:], 2))
        if form is None:
            return None
        raw = form.read(body, start, end + 1)
        return None if raw is None else (form, Packed(form.layout, raw), form.rows)

    def read_binary(self, body: bytes, json_length: bytes) -> Reading | None:
        """Return a V2 request's rows if bytes follow its JSON and its form is known."""
        if not json_length.isdigit() or len(json_length) > 9:  # noqa: PLR2004 -- no huge int
            return None
        length = int(json_length)
        form = self._known.get((body[:length], b"", 3))
        if form is None or len(body) - length != form.size_bytes:
            return None
        return form, Packed(form.layout, body[length:]), form.rows

    def learn(self, body: bytes, json_length: bytes | None, call: InferCall | None) -> None:
        """Take note of a request that the strict decoder has read, and the model takes.

        Args:
            body: Of the request.
            json_length: How long its JSON is, if bytes follow it.
            call: What it means; None for V1.
        """
        if self._spec is None:
            return
        if call is None:
            self._learn_v1(body)
        elif json_length is None:
            self._learn_v2(body, call)
        else:
            self._learn_binary(body, json_length, call)

    def _learn_v1(self, body: bytes) -> None:
        start, end = body.find(b"["), body.rfind(b"]")
        key = (body[:start], body[end:], 1)
        if self._spec is None or start < 0 or not self._worthwhile(key):
            return
        width, schema = prod(self._spec.shape[1:]), self._schema
        rows = np.arange(2 * width, dtype=self._spec.dtype).reshape(2, *self._spec.shape[1:])
        try:
            tried = v1.decode(key[0] + orjson.dumps(rows.tolist())[:-1] + key[1], self._schema)
        except RequestError:
            return
        if tried.report_states or not _is_array(tried.inputs.get(self._spec.name), rows):
            return
        self._keep(
            key,
            Form(
                layout=Layout(self._spec.name, self._spec.dtype, self._spec.shape[1:]),
                read=rows_reader(self._spec.datatype, width, schema.rows_limit),
                row_bytes=width * self._spec.dtype.itemsize,
                rows=0,
                size_bytes=0,
                encode=lambda response: (v1.encode(response, schema), None),
                outputs=tuple((name, False) for name in self._schema.outputs),
                is_v1=True,
            ),
        )

    def _learn_v2(self, body: bytes, call: InferCall) -> None:
        for mark in _DATA:
            start = body.find(mark) + len(mark) - 1
            end = body.find(b"]", start)
            if start >= len(mark) - 1 and end >= 0:
                break
        else:
            return
        key = (body[:start], body[end:], 2)
        if self._spec is None or not self._worthwhile(key):
            return
        given = call.request.inputs[self._spec.name]
        if given.size > _MOST_NUMBERS:
            return
        numbers = (np.arange(given.size) % 100).astype(self._spec.dtype)
        try:
            tried = v2.decode(key[0] + orjson.dumps(numbers.tolist())[:-1] + key[1], None, self._schema)
        except RequestError:
            return
        if _is_array(tried.request.inputs.get(self._spec.name), numbers.reshape(given.shape)):
            self._keep(key, self._form_v2(tried))

    def _learn_binary(self, body: bytes, json_length: bytes, call: InferCall) -> None:
        length = int(json_length)
        key = (body[:length], b"", 3)
        if self._spec is None or not self._worthwhile(key):
            return
        (tensor,) = orjson.loads(key[0])["inputs"]
        if "data" not in tensor and tensor["datatype"] == self._spec.datatype:
            self._keep(key, self._form_v2(call))

    def _form_v2(self, call: InferCall) -> Form:
        spec, schema = self._spec, self._schema
        if spec is None:  # pragma: no cover -- nobody learns then
            raise AssertionError("the model's requests are not read by form")
        given = call.request.inputs[spec.name]
        answered = replace(call, request=replace(call.request, inputs={}))
        return Form(
            layout=Layout(spec.name, spec.dtype, spec.shape[1:]),
            read=reader(spec.datatype, given.size),
            row_bytes=given.nbytes // max(1, call.request.rows),
            rows=call.request.rows,
            size_bytes=given.nbytes,
            encode=lambda response: v2.encode(answered, response, schema),
            outputs=call.outputs,
            is_v1=False,
        )

    def _worthwhile(self, key: tuple[bytes, bytes, int]) -> bool:
        """Return whether a form came before, so that it is worth learning; remembers that it came."""
        if len(key[0]) + len(key[1]) > _LONGEST_FORM:
            return False
        if key in self._seen:
            del self._seen[key]
            return True
        self._seen[key] = None
        if len(self._seen) > _MOST_FORMS:
            del self._seen[next(iter(self._seen))]
        return False

    def _keep(self, key: tuple[bytes, bytes, int], form: Form) -> None:
        layouts = [known.layout for known in self._known.values()]
        shared = next((layout for layout in layouts if layout == form.layout), form.layout)
        self._known[key] = replace(form, layout=shared)
        if len(self._known) > _MOST_FORMS:
            del self._known[next(iter(self._known))]


def _readable(schema: Schema) -> TensorSpec | None:
    """Return the model's input if its requests can be read by form; None if not."""
    if not schema.batched or len(schema.inputs) != 1:
        return None
    (spec,) = schema.inputs.values()
    if spec.column or spec.datatype not in KINDS or len(spec.shape) != _MOST_SIDES or spec.shape[1] in (ANY, 0):
        return None
    return spec


def _is_array(found: object, wanted: np.ndarray[Any, Any]) -> bool:
    return isinstance(found, np.ndarray) and found.dtype == wanted.dtype and np.array_equal(found, wanted)


def _template(form: Form, joint: Joint, rows: int) -> Template | None:
    """Return how answers of ``rows`` rows are written; None if only the strict encoder can tell."""
    arrays = {name: joint.arrays[name] for name, _ in form.outputs}
    if any(array.ndim > _MOST_SIDES or array.dtype not in _WRITTEN or not array.size for array in arrays.values()):
        return None
    for number in _TRIED:
        tried = {
            name: np.full((rows, *array.shape[1:]), number + place, array.dtype)
            for place, (name, array) in enumerate(arrays.items())
        }
        try:
            found = _blanks(form, Joint(tried, rows), rows)
        except OverflowError:  # small integers have no such number
            continue
        if found is not None:
            return found
    return None


def _blanks(form: Form, tried: Joint, rows: int) -> Template | None:
    """Find where the tried numbers are in an answer; None if that is not plain."""
    part = Part(tried, 0, rows)
    body, json_length = form.encode(PredictResponse(part, None, degraded=False))
    head = body[:json_length]
    tails = tuple(name for name, is_binary in form.outputs if is_binary)
    if b"%" in head or (json_length is None) != (not tails):
        return None
    written = [name for name, is_binary in form.outputs if not is_binary]
    places = list(_in_order(form, written, rows))
    pieces: list[bytes] = []
    for name, row in places:
        text = part.text(name) if row is None else tried.texts(name)[row]
        before, found, head = head.partition(text)
        if not found:
            return None
        pieces.append(before)
    pieces.append(head)
    template = Template(b"%b".join(pieces), tuple(places), tuple(name for name, _ in places), tails)
    digits = {text for name in written for text in tried.texts(name)[0].split(b",")}
    if any(text in piece for piece in pieces for text in digits) or template.filled(part) != (body, json_length):
        return None
    return template


def _in_order(form: Form, names: Sequence[str], rows: int) -> Iterator[tuple[str, int | None]]:
    if not form.is_v1:
        yield from ((name, None) for name in names)
        return
    for row in range(rows):
        yield from ((name, row) for name in names)
