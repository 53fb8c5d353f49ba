"""ModelInfer messages of a form that was seen before: the same bytes but for one tensor's raw contents.

A client's messages differ in their numbers alone. What stands before them is read by the strict codec once; a message
that begins alike and is as long means the same, with other numbers. Answers are written likewise. Whatever is not of
a known form goes to the codec, and so does whatever the codec would refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from fairlead_server.errors import RequestError
from fairlead_server.predict.joint import Layout, Part
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.schema import Schema

_MOST: Final = 64
_LONGEST_BYTES: Final = 4096
_RAW_INPUT: Final = b"\x3a"
_RAW_OUTPUT: Final = b"\x32"


@dataclass(frozen=True, slots=True)
class InferForm:
    """What messages of one form have in common."""

    before: bytes
    """All of the message but the contents."""
    layout: Layout
    rows: int
    outputs: tuple[str, ...]
    """Those that are answered, in order."""
    encode: Callable[[PredictResponse], bytes]
    """The strict codec."""
    answers: dict[tuple[tuple[int, ...], ...], tuple[bytes, ...] | None] = field(default_factory=dict)
    """By dimensions of the outputs: what stands before each one's contents; None where only the codec can tell."""

    def answer(self, part: Part) -> bytes:
        """Return the ``ModelInferResponse``."""
        tails = part.joint.tails
        try:
            before = self.answers[tails]
        except KeyError:
            if len(self.answers) >= _MOST:
                self.answers.clear()
            before = self.answers[tails] = self._before(part)
        if before is None:
            return self.encode(PredictResponse(part, None, degraded=False))
        pieces: list[bytes] = []
        for name, piece in zip(self.outputs, before, strict=True):
            pieces += (piece, part.raw(name))
        return b"".join(pieces)

    def _before(self, part: Part) -> tuple[bytes, ...] | None:
        """Find the contents in an answer of the codec's, whatever their bytes are."""
        if any(part[name].dtype.kind not in "fiu" for name in self.outputs):
            return None
        encoded = self.encode(PredictResponse(part, None, degraded=False))
        before = [_RAW_OUTPUT + _varint(len(part.raw(name))) for name in self.outputs]
        end = b"".join([piece + part.raw(name) for name, piece in zip(self.outputs, before, strict=True)])
        if not encoded.endswith(end):
            return None
        before[0] = encoded[: len(encoded) - len(end)] + before[0]
        return tuple(before)


class InferForms:
    """Learns the forms of one model's messages."""

    __slots__ = ("_left", "_schema")

    def __init__(self, schema: Schema) -> None:
        """Know no form."""
        self._schema = schema
        self._left = _MOST

    def learnt(self, raw: bytes, call: InferCall) -> InferForm | None:
        """Return the form of a message that the codec has read, if it is one whose numbers are its last bytes."""
        schema, request = self._schema, call.request
        if self._left <= 0 or len(request.inputs) != 1 or call.id or request.report_states or not schema.batched:
            return None
        ((name, array),) = request.inputs.items()
        spec = schema.inputs.get(name)
        if spec is None or spec.column or array.dtype.kind not in "fiu" or not array.nbytes or not call.outputs:
            return None
        before = raw[: len(raw) - array.nbytes]
        tail = _RAW_INPUT + _varint(array.nbytes)
        if len(before) > _LONGEST_BYTES or not before.endswith(tail) or not call.outputs[0][1]:
            return None
        if not all(self._holds(before, array, byte) for byte in (b"\x00", b"\x01")):
            return None
        self._left -= 1
        return InferForm(
            before=before,
            layout=Layout(name, array.dtype, array.shape[1:]),
            rows=request.rows,
            outputs=tuple(output for output, _ in call.outputs),
            encode=lambda response: codec.encode(call, response, schema),
        )

    def _holds(self, before: bytes, array: NDArray[Any], byte: bytes) -> bool:
        """Whether the last bytes are the tensor's, whatever they are: the codec is asked about others."""
        contents = byte * array.nbytes
        try:
            found = codec.decode(before + contents, self._schema).request.inputs
        except RequestError:
            return False
        ((other),) = found.values()
        same = other.dtype == array.dtype and other.shape == array.shape
        return same and other.tobytes() == contents


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004 -- seven bits a byte
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
