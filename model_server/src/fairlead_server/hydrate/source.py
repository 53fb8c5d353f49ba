"""What a Feast feature store adds to a plan: the table behind each view, and the on-demand functions."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from feast import FeatureStore
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.protos.feast.types.Value_pb2 import Value

from fairlead.contract import Contract, DType, Scalar
from fairlead.features.late_package import run, run_named_by
from fairlead.features.service import view_of
from fairlead_server.errors import ContractMismatch

_KEY_VALUES: Mapping[DType, Callable[[Any], Value]] = {
    "string": lambda key: Value(string_val=key),
    "int64": lambda key: Value(int64_val=key),
    "int32": lambda key: Value(int32_val=key),
}
"""How a join key of a type is written."""

_NO_ENTITY_KEY = "__dummy_id"
"""What Feast calls the key of a view without entities; its value is empty."""


@dataclass(frozen=True, slots=True)
class Table:
    """A stored view as the online store knows it."""

    view: Any
    """Feast's feature view, first argument of ``online_read``."""
    join_keys: tuple[str, ...]
    """The store's names of the keys, in the order of the plan's."""
    key_values: tuple[Callable[[Any], Value], ...]
    """How each key is written."""
    probe: tuple[Scalar, ...]
    """A key to try a read with; nobody needs to have it."""
    stored_name: str
    """What the online store calls the view, with its version if it keeps versions apart."""
    hash_fields: int
    """Features and event times of all views of the same entities, which Redis keeps in one hash."""
    definition: bytes
    """The view as it is registered, without its times, states and sources: tells whether it has changed."""


@dataclass(frozen=True, slots=True)
class OnDemandFunction:
    """An on-demand view's function."""

    call: Callable[[dict[str, Any]], Mapping[str, Any]]
    inputs: tuple[str, ...]
    """Request features that it declares."""
    by_row: bool
    """Called once per row with scalars (Feast's ``singleton``), else once with lists."""
    text: str
    """Its source."""
    reader: str = "python"
    """Who calls it: python (we do, with the values as they are) or feast (its own transformation of a data frame)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Tables and functions by the view's name in the feature service."""

    tables: Mapping[str, Table]
    functions: Mapping[str, OnDemandFunction]

    def is_as(self, other: Source) -> bool:
        """Whether the same is registered."""
        return self._definitions() == other._definitions()

    def moved_from(self, other: Source) -> Iterator[str]:
        """Yield which views are kept elsewhere in the online store than in ``other``: their values are others."""
        for name, table in self.tables.items():
            before = other.tables[name].stored_name
            if table.stored_name != before:
                yield f"view {name} is read from {table.stored_name} in the online store, it was {before}"

    def _definitions(self) -> tuple[Any, ...]:
        tables = {
            name: (table.definition, table.stored_name, table.hash_fields, table.join_keys, table.probe)
            for name, table in self.tables.items()
        }
        return tables, {name: (f.text, f.inputs, f.by_row) for name, f in self.functions.items()}


def source_of(store: FeatureStore, contract: Contract) -> Source:
    """Look up the contract's views in the registry.

    Raises:
        ContractMismatch: An on-demand view is of a mode that cannot be called directly.
    """
    types = {entity.join_key: entity.dtype for entity in contract.entities}
    tables: dict[str, Table] = {}
    functions: dict[str, OnDemandFunction] = {}
    wanted = {feature.view for feature in contract.features}
    fields = _fields(store)
    for projection in store.get_feature_service(contract.feature_service).feature_view_projections:
        name = projection.name_to_use()
        view = view_of(store, projection)
        if name not in wanted:
            continue
        if hasattr(view, "source_request_sources"):
            functions[name] = _function(view)
        else:
            tables[name] = _table(store, projection, view, types, fields)
    return Source(tables, functions)


def _fields(store: FeatureStore) -> Mapping[frozenset[str], int]:
    """Return by entities how many features and event times their views have."""
    fields: Counter[frozenset[str]] = Counter()
    for view in store.list_all_feature_views(allow_cache=True):
        if hasattr(view, "entities") and not hasattr(view, "source_request_sources"):
            fields[frozenset(view.entities)] += len(view.features) + 1
    return fields


def _table(
    store: FeatureStore,
    projection: Any,
    view: Any,
    types: Mapping[str, DType],
    fields: Mapping[frozenset[str], int],
) -> Table:
    own = tuple(store.get_entity(name).join_key for name in view.entities if name != "__dummy")
    if not own:
        return Table(view, (_NO_ENTITY_KEY,), (_KEY_VALUES["string"],), (), *_stored(store, view, fields))
    asked = [projection.join_key_map.get(key, key) for key in own]
    for key in asked:
        if types[key] not in _KEY_VALUES:
            known = ", ".join(_KEY_VALUES)
            raise ContractMismatch(f"join key {key} is {types[key]}; a key is one of: {known}")
    probe = tuple("" if types[key] == "string" else 0 for key in asked)
    return Table(view, own, tuple(_KEY_VALUES[types[key]] for key in asked), probe, *_stored(store, view, fields))


def _stored(store: FeatureStore, view: Any, fields: Mapping[frozenset[str], int]) -> tuple[str, int, bytes]:
    """Return the view's name in the online store, the fields of its entities' hash, and its definition."""
    name: str = compute_versioned_name(view, store.config.registry.enable_online_feature_view_versioning)
    spec = view.to_proto().spec
    for source in ("batch_source", "stream_source"):  # which serving never reads, and which carry times
        spec.ClearField(source)
    definition: bytes = spec.SerializeToString(deterministic=True)
    return name, fields.get(frozenset(view.entities), 0), definition


def _function(view: Any) -> OnDemandFunction:
    if view.mode not in ("python", "pandas"):
        raise ContractMismatch(
            f"on-demand view {view.name} is written in mode {view.mode}, which is not served; write it in mode python"
        )
    inputs = tuple(field.name for source in view.source_request_sources.values() for field in source.schema)
    transformation = view.feature_transformation
    run_named_by(transformation.udf)
    if view.mode == "pandas":
        run(importlib.import_module("pandas"))
        return OnDemandFunction(
            _through_feast(view), inputs, by_row=False, text=transformation.udf_string, reader="feast"
        )
    return OnDemandFunction(transformation.udf, inputs, bool(view.singleton), transformation.udf_string)


def _through_feast(view: Any) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    def call(inputs: dict[str, Any]) -> Mapping[str, Any]:
        computed: Mapping[str, Any] = view.transform_arrow(pa.table(inputs)).to_pydict()
        return computed

    return call
