"""V2 requests with a tensor per column, of a form that came before: a contract's features, thirty lists of numbers.

As ``forms`` does, the strict decoder says what a form means: when it comes for the second time, it is decoded with
numbers that are known, and later requests of the form need the numbers between its pieces read. That is done by the
native extension in one go; without it nothing is known here, and the strict decoder reads everything.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from fairlead_server.errors import RequestError
from fairlead_server.native import native
from fairlead_server.predict.joint import Packed, RowLayout
from fairlead_server.protocol import v2
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.forms import Form, Reading
from fairlead_server.protocol.numbers import KINDS
from fairlead_server.protocol.schema import Schema

_LIST: Final = re.compile(rb'"data": ?(\[[^\[\]{}":]*\])')
_FIRST: Final = (b'"data":[', b'"data": [')
_FIELDS: Final = frozenset({"name", "shape", "datatype", "data"})
_LONGEST: Final = 16_384
"""Bytes of a request beyond which its form is not remembered."""
_MOST_FORMS: Final = 64
_MOST_ALIKE: Final = 4
"""Forms that begin alike."""
_TRIALS: Final = ((1, 0), (37, 11))
"""Factor and first of the numbers that a form is tried with."""
_MOST_TRIED: Final = 100


class ColumnForms:
    """Forms of the requests of one model with a contract; on the event loop's thread alone."""

    def __init__(self, schema: Schema) -> None:
        """Know none yet."""
        self._schema = schema
        self._known: OrderedDict[bytes, list[Form]] = OrderedDict()
        """By what stands before the first list."""
        self._seen: dict[int, None] = {}

    def read_v1(self, _body: bytes) -> Reading | None:
        """Return None: rows of V1 are objects."""
        return None

    def read_v2(self, body: bytes) -> Reading | None:
        """Return a V2 request's rows if it is all JSON and its form is known."""
        for form in self._known.get(body[: _first(body)], ()):
            raw = form.read(body, 0, len(body))
            if raw is not None:
                return form, Packed(form.layout, raw), form.rows
        return None

    def read_binary(self, _body: bytes, _json_length: bytes) -> Reading | None:
        """Return None: the strict decoder reads bytes."""
        return None

    def learn(self, body: bytes, json_length: bytes | None, call: InferCall | None) -> None:
        """Take note of a request that the strict decoder has read, and the model takes; see ``Forms.learn``."""
        if native is None or call is None or json_length is not None or len(body) > _LONGEST:
            return
        names = _columns(body, call, self._schema)
        spans = [match.span(1) for match in _LIST.finditer(body)]
        if names is None or len(spans) != len(names):
            return
        pieces = [body[start:stop] for start, stop in _between(spans, len(body))]
        if not self._came_before(hash(tuple(pieces))):
            return
        if all(self._holds(pieces, names, call.request.rows, *trial) for trial in _TRIALS):
            self._keep(pieces, self._form(pieces, names, call))

    def _form(self, pieces: Sequence[bytes], names: Sequence[str], call: InferCall) -> Form:
        schema, rows = self._schema, call.request.rows
        specs = [schema.inputs[name] for name in names]
        read = native.Columns(pieces, [KINDS[spec.datatype] for spec in specs], rows).read
        layout = RowLayout(np.dtype([(spec.name, spec.dtype) for spec in specs]))
        answered = replace(call, request=replace(call.request, inputs={}))
        return Form(
            layout=layout,
            read=lambda body, _start, _end: read(body),
            row_bytes=layout.dtype.itemsize,
            rows=rows,
            size_bytes=0,
            encode=lambda response: v2.encode(answered, response, schema),
            outputs=call.outputs,
            is_v1=False,
        )

    def _holds(self, pieces: Sequence[bytes], names: Sequence[str], rows: int, factor: int, first: int) -> bool:
        """Return whether the strict decoder finds the numbers of each list in the column that it is taken for."""
        count = len(names) * rows
        numbers = ((np.arange(count) * factor + first) % _MOST_TRIED).reshape(len(names), rows)
        lists = [orjson.dumps(row.tolist()) for row in numbers]
        body = b"".join([part for pair in zip(pieces, [*lists, b""], strict=True) for part in pair])
        try:
            found = v2.decode(body, None, self._schema).request
        except RequestError:
            return False
        return found.rows == rows and all(
            _is_column(found.inputs.get(name), row.astype(self._schema.inputs[name].dtype))
            for name, row in zip(names, numbers, strict=True)
        )

    def _came_before(self, form: int) -> bool:
        if form in self._seen:
            del self._seen[form]
            return True
        self._seen[form] = None
        if len(self._seen) > _MOST_FORMS:
            del self._seen[next(iter(self._seen))]
        return False

    def _keep(self, pieces: Sequence[bytes], form: Form) -> None:
        known = [one for forms in self._known.values() for one in forms]
        layout = next((one.layout for one in known if one.layout == form.layout), form.layout)
        alike = self._known.setdefault(pieces[0], [])
        alike.insert(0, replace(form, layout=layout))
        del alike[_MOST_ALIKE:]
        if len(self._known) > _MOST_FORMS:
            self._known.popitem(last=False)


def _first(body: bytes) -> int:
    """Return where the first list of numbers starts; the body's length without one."""
    for mark in _FIRST:
        found = body.find(mark)
        if found >= 0:
            return found + len(mark) - 1
    return len(body)


def _between(spans: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """Return the spans around ``spans``, the first from 0 and the last to ``end``."""
    edges = [(0, 0), *spans, (end, end)]
    return [(before[1], after[0]) for before, after in pairwise(edges)]


def _columns(body: bytes, call: InferCall, schema: Schema) -> list[str] | None:
    """Return the inputs' names in the body's order; None unless all of them are numeric columns of the graph."""
    if call.request.report_states or call.request.inputs.keys() == set(schema.key_inputs):
        return None
    names: list[str] = []
    for tensor in orjson.loads(body)["inputs"]:
        spec = schema.inputs.get(tensor["name"])
        if spec is None or not spec.column or spec.datatype not in KINDS:
            return None
        if tensor.keys() != _FIELDS or tensor["datatype"] != spec.datatype:
            return None
        names.append(spec.name)
    return names


def _is_column(found: NDArray[Any] | None, wanted: NDArray[Any]) -> bool:
    return found is not None and found.dtype == wanted.dtype and np.array_equal(found, wanted)
