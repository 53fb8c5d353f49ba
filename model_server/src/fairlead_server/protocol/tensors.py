"""Arrays from the wire and back: JSON numbers, little-endian bytes, lossless conversion.

The datatype names are those of the Open Inference Protocol (``FP32``, ``INT64``, ``BYTES`` …). Text is UTF-8 and
lives in ``object`` arrays of ``str``. Every refusal names the field, and the row where one is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.signature import BYTES, NUMPY_OF, TensorSpec

Array = NDArray[np.generic]

_LENGTH_BYTES = 4
_MOST_SIDE = 2**31 - 1
_finfo: Callable[[np.dtype[Any]], Any] = ml_dtypes.finfo  # of numpy's floats and BF16
_EXACT_INTEGERS = MappingProxyType({"FP16": 2**11, "BF16": 2**8, "FP32": 2**24, "FP64": 2**53})
"""Every whole number up to here, either sign, has its own float."""
_BOUNDS: MappingProxyType[str, tuple[int, int]] = MappingProxyType(
    {
        name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        for name, dtype in NUMPY_OF.items()
        if dtype.kind in "iu"
    }
)
"""Least and greatest value of each integer datatype."""
_LARGEST = MappingProxyType({name: float(_finfo(NUMPY_OF[name]).max) for name in _EXACT_INTEGERS})
"""Greatest finite value of each float datatype."""
_HALVES = frozenset({NUMPY_OF["FP16"], NUMPY_OF["BF16"]})
"""Floats that JSON writes as the FP32 they are: the shortest number that is read as that one."""
_NUMBERS = frozenset(_BOUNDS) | frozenset(_LARGEST)
_NAMES: MappingProxyType[np.dtype[Any], str] = MappingProxyType({dtype: name for name, dtype in NUMPY_OF.items()})
_JSON_FLOATS: frozenset[type] = frozenset({float, int, type(None)})
_JSON_WHOLE: frozenset[type] = frozenset({float, int})
_JSON_INTEGERS: frozenset[type] = frozenset({int})
_JSON_BOOLEANS: frozenset[type] = frozenset({bool})
_JSON_TEXT: frozenset[type] = frozenset({str})


def datatype_named(name: object, field: str) -> str:
    """Return ``name`` if it is a datatype.

    Raises:
        InvalidRequest: It is not.
    """
    if type(name) is not str or name not in NUMPY_OF:
        raise InvalidRequest(f"{field}: datatype {name!r} is not one of {', '.join(NUMPY_OF)}", field=field)
    return name


def rows_of(shape: Sequence[Any], field: str) -> int:
    """Return n for the shapes [n] and [n, 1].

    Raises:
        InvalidRequest: The shape is another one, or n is less than 1.
    """
    known = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)  # noqa: PLR2004 -- [n, 1]
    if not known or any(type(side) is not int for side in shape) or shape[0] < 1:
        raise InvalidRequest(f"{field}: shape {list(shape)} is not [n] or [n, 1] with n of 1 or more", field=field)
    rows: int = shape[0]
    return rows


def shape_of(sides: Sequence[Any], field: str) -> tuple[int, ...]:
    """Return a tensor's dimensions.

    Raises:
        InvalidRequest: One is no integer from 0 to 2**31 - 1.
    """
    for side in sides:
        if type(side) is not int or not 0 <= side <= _MOST_SIDE:
            raise InvalidRequest(f"{field}: shape {list(sides)[:8]} is not made of whole numbers from 0", field=field)
    return tuple(sides)


def flattened(values: list[Any], shape: Sequence[int], field: str) -> list[Any]:
    """Return the scalars of JSON data that is flat, or nested as ``shape`` says, row by row.

    Raises:
        InvalidRequest: There are fewer or more of them, or the nesting is another one.
    """
    count = math.prod(shape)
    if not values or type(values[0]) is not list:
        if len(values) != count:
            raise InvalidRequest(f"{field}: {len(values)} values, but the shape says {count}", field=field)
        return values
    if not shape:
        raise InvalidRequest(f"{field}: data must be one value in a list, as the shape is []", field=field)
    if len(values) != shape[0]:
        raise InvalidRequest(f"{field}: {len(values)} values, but the shape says {shape[0]}", field=field)
    for side in shape[1:]:
        if any(type(inner) is not list or len(inner) != side for inner in values):
            raise InvalidRequest(f"{field}: nested data is not of shape {list(shape)}", field=field)
        values = list(chain.from_iterable(values))
    return values


def from_json(values: list[Any], datatype: str, field: str, *, may_be_null: bool = True) -> Array:
    """Return JSON scalars as an array of ``datatype``, shape [len(values)].

    Decimal numbers are rounded to the float type; null is a missing float (NaN). A float with a whole value counts
    as an integer. Nothing else is converted.

    Args:
        values: The scalars.
        datatype: What they are to be.
        field: Name for messages.
        may_be_null: Whether a float may be null.

    Raises:
        InvalidRequest: A value is of another kind, or out of range.
    """
    dtype = NUMPY_OF[datatype]
    kinds: set[type] = set(map(type, values))
    if datatype in _LARGEST:
        taken = _JSON_FLOATS if may_be_null else _JSON_WHOLE
        _expect(kinds <= taken, values, taken, datatype, field)
        numbers = values if type(None) not in kinds else [value for value in values if value is not None]
        _expect_range(numbers, _LARGEST[datatype], field)
        if datatype == "BF16":
            return np.array(values, np.float64).astype(dtype)
        return np.array(values, dtype)
    if not values:
        return np.empty(0, dtype)
    if dtype.kind in "iu":
        if kinds == _JSON_INTEGERS:
            whole = values
        else:
            _expect(kinds <= _JSON_WHOLE, values, _JSON_WHOLE, datatype, field)
            whole = [_whole(value, row, datatype, field) for row, value in enumerate(values)]
        least, greatest = _BOUNDS[datatype]
        if min(whole) < least or max(whole) > greatest:
            raise _out_of_range(datatype, field)
        return np.array(whole, dtype)
    kind = _JSON_BOOLEANS if dtype.kind == "b" else _JSON_TEXT
    _expect(kinds <= kind, values, kind, datatype, field)
    return np.array(values, dtype)


def from_bytes(raw: bytes, datatype: str, count: int, field: str) -> Array:
    """Return a tensor's little-endian bytes as an array, shape [count].

    Raises:
        InvalidRequest: The length differs from what shape and datatype need, or text is not UTF-8.
    """
    if datatype == BYTES:
        return texts_from(_split(raw, count, field), field)
    dtype = NUMPY_OF[datatype]
    needed = count * dtype.itemsize
    if len(raw) != needed:
        raise InvalidRequest(
            f"{field}: {len(raw)} bytes of data, but {count} values of {datatype} are {needed} bytes", field=field
        )
    if datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
        raise InvalidRequest(f"{field}: a BOOL is the byte 0 or 1", field=field)
    return np.frombuffer(raw, dtype)


def texts_from(values: Sequence[bytes], field: str) -> Array:
    """Return UTF-8 values as an ``object`` array of ``str``, shape [len(values)].

    Raises:
        InvalidRequest: A value is not UTF-8.
    """
    try:
        return np.array([value.decode() for value in values], dtype=object)
    except UnicodeDecodeError:
        raise InvalidRequest(f"{field}: text must be UTF-8", field=field) from None


def converted(array: Array, spec: TensorSpec) -> Array:
    """Return ``array`` in the type of ``spec``, if no value changes by it.

    Raises:
        InvalidRequest: The kinds differ (number, boolean, text), or a value would change.
    """
    datatype, field = spec.datatype, spec.name
    target = NUMPY_OF[datatype]
    if array.dtype == target:
        return array
    given = datatype_of(array)
    if given not in _NUMBERS or datatype not in _NUMBERS:
        raise InvalidRequest(f"{field}: is {given}, must be {datatype}", field=field)
    if array.size and not _fits(array, given, target, datatype):
        raise InvalidRequest(
            f"{field}: is {given} with values that {datatype} cannot hold; send {datatype}", field=field
        )
    return array.astype(target)


def datatype_of(array: Array) -> str:
    """Return the datatype of an array's elements; everything that is not a number is BYTES."""
    if array.dtype.kind in "OUS":
        return BYTES
    found = _NAMES.get(array.dtype)
    return _NAMES[array.dtype.newbyteorder("<")] if found is None else found


def to_json(array: Array) -> Any:
    """Return what orjson writes as the flat list of the array's values; what is not finite becomes null."""
    if array.dtype.kind in "OUS":
        return array.reshape(-1).tolist()
    return np.ascontiguousarray(as_json_number(array)).reshape(-1)


def as_json_number(array: Array) -> Array:
    """Return an array that orjson can write: FP16 and BF16 as FP32."""
    return array.astype(np.float32) if array.dtype in _HALVES else array


def to_bytes(array: Array) -> bytes:
    """Return the array's values as little-endian bytes; text with its length before it (4 bytes)."""
    if array.dtype.kind in "OUS":
        texts = (str(value).encode() for value in array.reshape(-1).tolist())
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)
    if array.dtype in _NAMES:
        return array.tobytes()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _split(raw: bytes, count: int, field: str) -> list[bytes]:
    values: list[bytes] = []
    start = 0
    while start < len(raw):
        if len(values) == count:
            raise InvalidRequest(f"{field}: at least {count + 1} values, but the shape says {count}", field=field)
        length = int.from_bytes(raw[start : start + _LENGTH_BYTES], "little")
        start += _LENGTH_BYTES
        if start + length > len(raw):
            raise InvalidRequest(f"{field}: value {len(values)} is cut off", field=field)
        values.append(raw[start : start + length])
        start += length
    if len(values) != count:
        raise InvalidRequest(f"{field}: {len(values)} values, but the shape says {count}", field=field)
    return values


def _fits(array: Array, given: str, target: np.dtype[Any], datatype: str) -> bool:
    numbers: NDArray[Any] = array
    is_float = given in _LARGEST
    if is_float:  # FP64 holds every value of every other, and BF16 does not compare with FP16
        numbers = numbers.astype(np.float64)
    if is_float and datatype in _LARGEST:
        with np.errstate(over="ignore", under="ignore"):
            cast: NDArray[Any] = numbers.astype(target)
        return bool(np.array_equal(cast.astype(np.float64), numbers, equal_nan=True))
    if datatype in _LARGEST:
        limit = _EXACT_INTEGERS[datatype]
        return -limit <= int(numbers.min()) and int(numbers.max()) <= limit
    if is_float and not bool((np.isfinite(numbers) & (np.trunc(numbers) == numbers)).all()):
        return False
    least, greatest = _BOUNDS[datatype]
    return least <= int(numbers.min()) and int(numbers.max()) <= greatest


def _expect(ok: bool, values: list[Any], kinds: frozenset[type], datatype: str, field: str) -> None:
    if ok:
        return
    row, value = next((row, value) for row, value in enumerate(values) if type(value) not in kinds)
    raise InvalidRequest(f"{field}, row {row}: {_json_kind(value)} where {datatype} is needed", field=field)


def _expect_range(numbers: list[Any], limit: float, field: str) -> None:
    if numbers and not (-limit <= min(numbers) and max(numbers) <= limit):
        raise InvalidRequest(f"{field}: a number is beyond ±{limit:.5g}", field=field)


def _whole(value: float, row: int, datatype: str, field: str) -> int:
    if value != value // 1:
        raise InvalidRequest(f"{field}, row {row}: {value} is no whole number ({datatype} is needed)", field=field)
    # The JSON parser makes floats of whole numbers beyond 64 bits, which may be others than those that were sent.
    if not -_EXACT_INTEGERS["FP64"] <= value <= _EXACT_INTEGERS["FP64"]:
        raise _out_of_range(datatype, field)
    return int(value)


def _out_of_range(datatype: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: a number is out of the range of {datatype}", field=field)


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "a boolean", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
