"""What an answered request should have been answered: read by other means, and run by ONNX Runtime directly."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fuzz.rig import Heard, Unforeseen

Arrays = dict[str, NDArray[Any]]
_NUMPY: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def rest(body: bytes, json_length: int | None) -> Arrays:
    """Return the tensors of a V2 body, or of V2's answer to one, in the types that it names."""
    document = json.loads(body[:json_length])
    tail = b"" if json_length is None else body[json_length:]
    key = "inputs" if "inputs" in document else "outputs"
    found: Arrays = {}
    for tensor in document[key]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            found[tensor["name"]] = _listed(tensor["data"], tensor["datatype"], tensor["shape"])
        else:
            found[tensor["name"]] = raw(tail[:size], tensor["datatype"], tensor["shape"])
            tail = tail[size:]
    return found


def raw(content: bytes, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return the tensor whose little-endian bytes are ``content``."""
    if datatype != "BYTES":
        return np.frombuffer(content, _NUMPY[datatype]).reshape(shape)
    texts: list[str] = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        texts.append(content[4 : 4 + length].decode())
        content = content[4 + length :]
    return np.array(texts, object).reshape(shape)


def listed(values: Sequence[Any], datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return the tensor whose values, flat, are ``values``."""
    return _listed(list(values), datatype, shape)


def require(session: ort.InferenceSession, given: Arrays, answered: Arrays) -> None:
    """Check answered outputs against those of a run of our own.

    Raises:
        Unforeseen: One differs.
    """
    kinds = {one.name: one.type for one in session.get_inputs()}
    feeds = {name: _as(array, kinds[name]) for name, array in given.items()}
    names = list(answered)
    for name, wanted in zip(names, session.run(names, feeds), strict=True):
        got = answered[name]
        if tuple(got.shape) != tuple(wanted.shape) or not _same(got, np.asarray(wanted)):
            raise Unforeseen(f"{name} is answered {got.tolist()!r}, ONNX Runtime gives {np.asarray(wanted).tolist()!r}")


def json_length_of(heard: Heard) -> int | None:
    """Return how long the JSON of an answer is, if bytes follow it."""
    length = heard.headers.get(b"inference-header-content-length")
    return None if length is None else int(length)


def _listed(values: list[Any], datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    if datatype == "BYTES":
        made = np.empty(len(_flat(values)), object)
        made[:] = _flat(values)
        return made.reshape(shape)
    dtype = np.dtype(_NUMPY[datatype])
    if dtype.kind in "iu":
        return np.array([int(value) for value in _flat(values)], dtype).reshape(shape)
    return np.array(_flat(values), dtype).reshape(shape)


def _flat(values: Any) -> list[Any]:
    return [inner for value in values for inner in _flat(value)] if isinstance(values, list) else [values]


def _as(array: NDArray[Any], kind: str) -> NDArray[Any]:
    wanted = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2", "tensor(bool)": "?"}
    if array.dtype == object:
        return array
    inside = kind.removeprefix("tensor(").removesuffix(")")
    return array.astype(wanted.get(kind, inside))


def _same(got: NDArray[Any], wanted: NDArray[Any]) -> bool:
    if object in {wanted.dtype, got.dtype}:
        return bool(np.array_equal(got, wanted))
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(got.astype(wanted.dtype), wanted))
    # JSON has neither infinity nor NaN: both are null there.
    finite = np.isfinite(got) if not np.isinf(got).any() else ~np.isnan(got)
    return bool(np.array_equal(got[finite], wanted[finite]) and not np.isfinite(wanted[~finite]).any())
