"""Makes Arrow batches of sampled requests, in the form of ``fairlead.prediction_log``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import is_not

import numpy as np
import pyarrow as pa

from fairlead import prediction_log as form
from fairlead.contract import DType
from fairlead.policy import FeatureState
from fairlead_server.prediction_log.record import Columns, Record
from fairlead_server.prediction_log.settings import Logged

_TYPES: Mapping[DType, pa.DataType] = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
_TIME = pa.timestamp("us", tz="UTC")
_NAME = pa.dictionary(pa.int8(), pa.string())
_STATES = pa.array([state.value for state in FeatureState])
_CODES: Mapping[FeatureState, int] = {state: code for code, state in enumerate(FeatureState)}


class Encoder:
    """Encodes requests of one model."""

    def __init__(self, logged: Logged, *, with_keys: bool = True) -> None:
        """Compile the columns.

        Args:
            logged: Which model it is.
            with_keys: Whether join keys and request features are written.
        """
        contract = logged.contract
        stored = [feature for feature in contract.features if not feature.on_demand]
        self._names = {
            form.MODEL: logged.model,
            form.VERSION: logged.version,
            form.VARIANT: logged.variant,
            form.REVISION: logged.revision,
        }
        self._keys = contract.key_inputs if with_keys else {}
        self._features = contract.tensor_inputs
        self._states = [feature.input for feature in stored]
        self._views = list(dict.fromkeys(feature.view for feature in stored))
        self._outputs = {output.name: output.dtype for output in contract.outputs}
        self.schema = self._schema(logged)
        """Of every batch."""

    def batch(self, records: Sequence[Record]) -> pa.RecordBatch:
        """Encode requests, at least one."""
        rows = sum(record.rows for record in records)
        served_us = np.repeat([record.at_us for record in records], [record.rows for record in records])
        columns = [
            _times(served_us),
            *(_repeated(name, rows) for name in self._names.values()),
            *_arrays(self._keys, [record.keys for record in records]),
            *_arrays(self._features, [record.features for record in records]),
            *self._codes([record.states for record in records]),
            *(self._event_times(view, records, rows) for view in self._views),
            *_arrays(self._outputs, [record.outputs for record in records]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _schema(self, logged: Logged) -> pa.Schema:
        fields = [
            (form.SERVED_AT, _TIME),
            *((name, _NAME) for name in self._names),
            *((form.KEY + name, _TYPES[dtype]) for name, dtype in self._keys.items()),
            *((form.FEATURE + name, _TYPES[dtype]) for name, dtype in self._features.items()),
            *((form.STATE + name, _NAME) for name in self._states),
            *((form.EVENT_TIME + view, _TIME) for view in self._views),
            *((form.OUTPUT + name, _TYPES[dtype]) for name, dtype in self._outputs.items()),
        ]
        metadata = {
            form.FORMAT_KEY: form.FORMAT,
            form.CONTRACT_KEY: logged.contract.to_json(),
            form.HYDRATION_KEY: logged.hydration.model_dump_json(),
        }
        return pa.schema(fields, metadata)

    def _codes(self, states: Sequence[Mapping[str, Sequence[FeatureState]]]) -> Iterator[pa.Array]:
        """Encode states; features of a view that were found alike share theirs, which is known by their identity."""
        before: list[Sequence[FeatureState]] = []
        codes: pa.Array = None
        for name in self._states:
            of_feature = [of_record[name] for of_record in states]
            if not before or any(map(is_not, of_feature, before)):
                flat = bytes(map(_CODES.__getitem__, chain.from_iterable(of_feature)))
                codes = pa.DictionaryArray.from_arrays(np.frombuffer(flat, np.int8), _STATES)
                before = of_feature
            yield codes

    def _event_times(self, view: str, records: Sequence[Record], rows: int) -> pa.Array:
        event_us = np.empty(rows, np.int64)
        start = 0
        for record in records:
            event_us[start : start + record.rows] = record.event_us.get(view) or 0
            start += record.rows
        return _times(event_us, event_us == 0)


def _arrays(types: Mapping[str, DType], columns: Sequence[Columns]) -> Iterator[pa.Array]:
    for name, dtype in types.items():
        yield pa.array(np.concatenate([of_record[name] for of_record in columns]), _TYPES[dtype])


def _times(us: np.ndarray[tuple[int], np.dtype[np.int64]], missing: np.ndarray | None = None) -> pa.Array:
    return pa.array(us, pa.int64(), mask=missing).cast(_TIME)


def _repeated(name: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), pa.array([name]))
