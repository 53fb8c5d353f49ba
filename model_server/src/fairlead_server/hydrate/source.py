"""What a Feast feature store adds to a plan: the table behind each view, and the on-demand functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feast import FeatureStore
from feast.protos.feast.types.Value_pb2 import Value

from fairlead.contract import Contract, DType, Scalar
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


@dataclass(frozen=True, slots=True)
class OnDemandFunction:
    """A python-mode on-demand view's function."""

    call: Callable[[dict[str, Any]], Mapping[str, Any]]
    inputs: tuple[str, ...]
    """Request features that it declares."""
    by_row: bool
    """Called once per row with scalars (Feast's ``singleton``), else once with lists."""


@dataclass(frozen=True, slots=True)
class Source:
    """Tables and functions by the view's name in the feature service."""

    tables: Mapping[str, Table]
    functions: Mapping[str, OnDemandFunction]


def source_of(store: FeatureStore, contract: Contract) -> Source:
    """Look up the contract's views in the registry.

    Raises:
        ContractMismatch: An on-demand view is of a mode that cannot be called directly.
    """
    types = {entity.join_key: entity.dtype for entity in contract.entities}
    tables: dict[str, Table] = {}
    functions: dict[str, OnDemandFunction] = {}
    wanted = {feature.view for feature in contract.features}
    for projection in store.get_feature_service(contract.feature_service).feature_view_projections:
        name = projection.name_to_use()
        view = store.registry.get_any_feature_view(projection.name, store.project)
        if name not in wanted:
            continue
        if hasattr(view, "source_request_sources"):
            functions[name] = _function(view)
        else:
            tables[name] = _table(store, projection, view, types)
    return Source(tables, functions)


def _table(store: FeatureStore, projection: Any, view: Any, types: Mapping[str, DType]) -> Table:
    own = tuple(store.get_entity(name).join_key for name in view.entities if name != "__dummy")
    if not own:
        return Table(view, (_NO_ENTITY_KEY,), (_KEY_VALUES["string"],), ())
    asked = [projection.join_key_map.get(key, key) for key in own]
    for key in asked:
        if types[key] not in _KEY_VALUES:
            known = ", ".join(_KEY_VALUES)
            raise ContractMismatch(f"join key {key} is {types[key]}; a key is one of: {known}")
    probe = tuple("" if types[key] == "string" else 0 for key in asked)
    return Table(view, own, tuple(_KEY_VALUES[types[key]] for key in asked), probe)


def _function(view: Any) -> OnDemandFunction:
    if view.mode != "python":
        raise ContractMismatch(
            f"on-demand view {view.name} is written in mode {view.mode}, which is not served; write it in mode python"
        )
    inputs = tuple(field.name for source in view.source_request_sources.values() for field in source.schema)
    return OnDemandFunction(view.feature_transformation.udf, inputs, bool(view.singleton))
