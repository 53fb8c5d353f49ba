"""What is decoded of Redis' bytes is what Feast's own parser makes of them, and keys are Feast's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from feast.infra.online_stores.helpers import _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import DoubleList, Value
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.contract import DType, Feature, Scalar
from fairlead.policy import FeatureState, Hydration
from fairlead_server.hydrate.found import Key
from fairlead_server.hydrate.hashes import HashDecoder
from fairlead_server.hydrate.plan import ViewPlan, compile_plan
from fairlead_server.hydrate.redis import HashPlan
from fairlead_server.hydrate.redis_client import parse
from fairlead_server.hydrate.states import FILLER, value_of
from fairlead_server.hydrate.wire import ViewDecoder
from support.models import make_contract

DTYPES: tuple[DType, ...] = ("float32", "float64", "int64", "int32", "bool", "string")
FEAST_TYPES = {"float32": "Float32", "float64": "Float64", "int64": "Int64", "int32": "Int32", "bool": "Bool"}

int64s = st.integers(-(2**63), 2**63 - 1)
int32s = st.integers(-(2**31), 2**31 - 1)
values = st.one_of(
    st.builds(lambda x: Value(float_val=x), st.floats(width=32)),
    st.builds(lambda x: Value(double_val=x), st.floats()),
    st.builds(lambda x: Value(int64_val=x), int64s),
    st.builds(lambda x: Value(int32_val=x), int32s),
    st.builds(lambda x: Value(bool_val=x), st.booleans()),
    st.builds(lambda x: Value(string_val=x), st.text(max_size=300)),
    st.builds(lambda x: Value(bytes_val=x), st.binary(max_size=9)),
    st.builds(lambda x: Value(unix_timestamp_val=x), int64s),
    st.builds(lambda x: Value(double_list_val=DoubleList(val=x)), st.lists(st.floats(), max_size=3)),
    st.just(Value()),
).map(lambda value: value.SerializeToString())
cells = st.one_of(values, values, st.none(), st.binary(max_size=12))
FULL: dict[str, st.SearchStrategy[Value]] = {
    "float32": st.builds(lambda x: Value(float_val=x), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "float64": st.builds(lambda x: Value(double_val=x), st.floats(allow_nan=False, allow_infinity=False)),
    "int64": st.builds(lambda x: Value(int64_val=x), int64s),
    "int32": st.builds(lambda x: Value(int32_val=x), int32s),
    "bool": st.builds(lambda x: Value(bool_val=x), st.booleans()),
    "string": st.builds(lambda x: Value(string_val=x), st.text(max_size=20)),
}
NOW = Timestamp(seconds=1_383_000_000, nanos=123_456_789).SerializeToString()
NOW_US = 1_383_000_000_123_456


def view_of(dtypes: list[DType]) -> ViewPlan:
    default: dict[DType, Scalar] = {"int64": 0, "int32": 0, "bool": False, "string": ""}
    features = [Feature(view="v", name=f"f{i}", dtype=d, default=default.get(d)) for i, d in enumerate(dtypes)]
    return compile_plan(make_contract(features, echo=False), Hydration()).views[0]


def decoder_of(view: ViewPlan, types: dict[str, str] | None = None) -> ViewDecoder:
    registered = {f.name: FEAST_TYPES.get(f.dtype, "String") for f in view.features}
    return ViewDecoder(view, types or registered, 0)


def parsed(feature: Any, raw: bytes | None) -> Scalar | FeatureState:
    """Tell of a cell what Feast's parser makes of it."""
    try:
        return value_of(feature, None if raw is None else Value.FromString(raw))
    except DecodeError:
        return FeatureState.STORE_ERROR


def same(ours: Any, wanted: Scalar, dtype: DType) -> bool:
    with np.errstate(over="ignore"):
        narrowed = np.dtype(dtype).type(wanted).item() if dtype in ("float32", "float64") else wanted
    return bool(ours == narrowed)


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_cells_of_all_kinds_are_decoded_as_by_feasts_parser(data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=6))
    view = view_of(dtypes)
    decoder = decoder_of(view)
    width = len(dtypes)
    times = st.sampled_from([NOW, NOW, NOW, None])
    replies = data.draw(st.lists(st.tuples(*[cells] * width, times), min_size=1, max_size=5))
    read = decoder.decode([list(reply) for reply in replies])
    odd = {(feature, key): state for feature, key, state in read.odd}
    by_name = {feature.name: i for i, feature in enumerate(view.features)}
    for key, reply in enumerate(replies):
        assert read.event_us[key] == (NOW_US if reply[-1] else 0)
        for place, name in enumerate(decoder.names if reply[-1] else ()):
            i = by_name[name]
            wanted = parsed(view.features[i], reply[place])
            if isinstance(wanted, FeatureState):
                assert odd.pop((i, key)) is wanted
            else:
                assert same(
                    read.columns[i][key].item() if dtypes[i] != "string" else read.columns[i][key], wanted, dtypes[i]
                )
    assert not odd


@settings(max_examples=10, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 4), min_size=1, max_size=8))
def test_blocks_of_doubles_and_floats_are_read_as_they_are(rows: list[tuple[float, ...]]) -> None:
    view = view_of(["float32", "float64", "float64", "float32"])
    decoder = decoder_of(view, {"f0": "Float64", "f1": "Float64", "f2": "Float32", "f3": "Float64"})
    by_name = {feature.name: i for i, feature in enumerate(view.features)}
    with np.errstate(over="ignore"):
        shorts = [np.float32(row[2]).item() for row in rows]
    replies = [
        [
            (Value(float_val=short) if name == "f2" else Value(double_val=row[by_name[name]])).SerializeToString()
            for name in decoder.names
        ]
        + [NOW]
        for row, short in zip(rows, shorts, strict=True)
    ]
    read = decoder.decode(replies)
    assert not read.odd
    with np.errstate(over="ignore"):
        assert read.columns[0].tolist() == np.array([row[0] for row in rows]).astype(np.float32).tolist()
    assert read.columns[1].tolist() == [row[1] for row in rows]
    assert read.columns[2].tolist() == shorts
    assert all(column.flags.writeable and column.shape == (len(rows),) for column in read.columns)


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_all_views_of_a_hash_at_once_are_as_each_by_itself(data: st.DataObject) -> None:
    of_views = data.draw(st.lists(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4), min_size=1, max_size=3))
    views, start = [], 0
    for dtypes in of_views:
        view = view_of(dtypes)
        registered = {f.name: FEAST_TYPES.get(f.dtype, "String") for f in view.features}
        views.append((view, ViewDecoder(view, registered, start)))
        start += len(dtypes) + 1
    whole = st.tuples(
        *(cell for view, decoder in views for cell in (*(_full(view, n) for n in decoder.names), st.just(NOW)))
    )
    odd = st.tuples(
        *(cell for view, decoder in views for cell in (*(cells for _ in decoder.names), st.sampled_from([NOW, None])))
    )
    replies = data.draw(st.lists(st.one_of(whole, whole, whole, odd), min_size=1, max_size=3))
    together = HashDecoder([decoder for _, decoder in views]).decode(replies)
    for found, (_, decoder) in zip(together, views, strict=True):
        wanted = decoder.decode(replies)
        assert found.event_us == wanted.event_us
        assert list(found.odd) == list(wanted.odd)
        assert [(c.dtype, c.tolist()) for c in found.columns] == [(c.dtype, c.tolist()) for c in wanted.columns]


def _full(view: ViewPlan, name: str) -> st.SearchStrategy[bytes]:
    """Draw a cell as a feature's values are usually stored."""
    (dtype,) = [feature.dtype for feature in view.features if feature.name == name]
    return FULL[dtype].map(lambda value: value.SerializeToString())


@pytest.mark.parametrize("raw", [b"\xff", b"\x08", b"no time"])
def test_an_event_time_that_is_none_is_a_store_error_of_that_key_alone(raw: bytes) -> None:
    decoder = decoder_of(view_of(["float64"]))
    cell = Value(double_val=1.5).SerializeToString()
    read = decoder.decode([[cell, NOW], [cell, raw], [cell, None]])
    assert [(key, state) for _, key, state in read.odd] == [(1, FeatureState.STORE_ERROR)]
    assert read.columns[0][0] == 1.5
    assert read.event_us[2] == 0


def test_missing_values_are_told_apart() -> None:
    decoder = decoder_of(view_of(["float64"]))
    nan = Value(double_val=math.nan).SerializeToString()
    text = Value(string_val="1").SerializeToString()
    read = decoder.decode([[None, NOW], [b"", NOW], [nan, NOW], [text, NOW], [None, None]])
    states = [FeatureState.NEVER_WRITTEN, FeatureState.NULL, FeatureState.NULL, FeatureState.STORE_ERROR]
    assert [(key, state) for _, key, state in read.odd] == list(enumerate(states))
    assert read.columns[0].tolist() == [FILLER["float64"]] * 5


key_values: dict[str, st.SearchStrategy[Any]] = {
    "string_val": st.text(max_size=20),
    "int64_val": int64s,
    "int32_val": int32s,
}


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_keys_are_those_that_feast_writes(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
    kinds = data.draw(st.lists(st.sampled_from(sorted(key_values)), min_size=len(names), max_size=len(names)))
    key: Key = tuple(data.draw(key_values[kind]) for kind in kinds)
    plan = HashPlan(tuple(names), tuple(names), tuple(kinds), "prj\u00e9")
    plan.compile()
    make_value: Any = Value
    parts = [make_value(**{kind: part}) for kind, part in zip(kinds, key, strict=True)]
    entity = EntityKey(join_keys=names, entity_values=parts)
    command = plan.command(key)
    assert command.key == _redis_key("prj\u00e9", entity, entity_key_serialization_version=3)
    assert b"\r\n$%d\r\n%b\r\n" % (len(command.key), command.key) in command.packed + b"\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "localhost:6379",
        "redis-1:6379,redis-2:6380,ssl=true,db=3",
        "h:1,password=a=b,username=reader,socket_timeout=0.05",
        "h:1,password=12345,ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_connection_strings_are_read_as_feast_reads_them(text: str) -> None:
    nodes, settings_of_feast = RedisOnlineStore._parse_connection_string(text)
    servers, ours = parse(text)
    assert [{"host": host, "port": str(port)} for host, port in servers] == nodes
    assert ours == settings_of_feast
