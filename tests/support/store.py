"""A small Feast repository in a folder: real registry, real online store, four views and an on-demand view.

================== ============= ====== =====================================================
view               join keys     ttl    features
================== ============= ====== =====================================================
origin_weather     origin        3 h    temp Float32, wind Float64
tail_performance   tailnum       12 h   mean_delay Float32, flights Int64
plane              tailnum       never  seats Int64, maker String, jet Bool
pair_performance   origin, dest  6 h    mean_delay Float64
departure          (on demand)   -      evening Int64, distance_km Float64; of hour, weekday, distance
================== ============= ====== =====================================================

Feature service ``small`` has them all, in this order. The repository works from another process too: the folder
holds ``feature_store.yaml`` and ``registry.db``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Bool, Float32, Float64, Int64, String

from fairlead.features.service import ServiceDescription, describe

SERVICE = "small"
WAL_STORE = "fairlead.features.sqlite.WalSqliteOnlineStore"

_VALUE_FIELDS = {
    Float32: "float_val",
    Float64: "double_val",
    Int64: "int64_val",
    Bool: "bool_val",
    String: "string_val",
}


@dataclass(frozen=True, slots=True)
class FeatureRepo:
    """An applied feature repository."""

    path: Path
    """Folder of ``feature_store.yaml``."""
    store: FeatureStore

    @property
    def yaml(self) -> Path:
        return self.path / "feature_store.yaml"

    @property
    def online_path(self) -> Path:
        """The SQLite file (of a repository with that store)."""
        return self.path / "online_store.db"

    def describe(self, service: str = SERVICE) -> ServiceDescription:
        return describe(self.store, service)

    def write(self, view: str, key: Mapping[str, Any], values: Mapping[str, Any], at: datetime) -> None:
        """Write one row to the online store as a materialization would.

        Args:
            view: Name of the feature view.
            key: Values by join key.
            values: Values by feature; None writes a null, an absent feature is never written.
            at: Event time.
        """
        table = self.store.get_feature_view(view)
        types = {field.name: field.dtype for field in table.features}
        row = {name: _value(types[name], value) for name, value in values.items()}
        entity_key = EntityKey(join_keys=list(key), entity_values=[Value(string_val=v) for v in key.values()])
        self.store.provider.online_write_batch(self.store.config, table, [(entity_key, row, at, at)], None)


def make_repo(path: Path, *, online_store: Mapping[str, Any] | None = None, apply: bool = True) -> FeatureRepo:
    """Make the repository in ``path`` (a new or empty folder).

    Args:
        path: Where ``feature_store.yaml`` goes.
        online_store: The yaml's block, for instance ``{"type": "redis", "connection_string": "127.0.0.1:6379"}``;
            None for Fairlead's SQLite store.
        apply: Whether to register the definitions (``feast apply``).
    """
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "project": "small",
        "provider": "local",
        "registry": {"path": "registry.db", "cache_ttl_seconds": 0},
        "online_store": dict(online_store or {"type": WAL_STORE, "path": "online_store.db"}),
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    (path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = FeatureStore(repo_path=str(path))
    if apply:
        store.apply(definitions(path))
    return FeatureRepo(path, store)


def definitions(path: Path) -> list[Any]:
    """Return the Feast objects of the repository; see this module."""
    origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
    dest = Entity(name="dest", join_keys=["dest"], value_type=ValueType.STRING)
    tailnum = Entity(name="tailnum", join_keys=["tailnum"], value_type=ValueType.STRING)

    def view(name: str, entities: Sequence[Entity], ttl: timedelta | None, **features: Any) -> FeatureView:
        schema = [Field(name=e.join_key, dtype=String) for e in entities]
        return FeatureView(
            name=name,
            entities=list(entities),
            ttl=ttl,
            schema=schema + [Field(name=feature, dtype=dtype) for feature, dtype in features.items()],
            source=FileSource(name=f"{name}_source", path=str(path / f"{name}.parquet"), timestamp_field="at"),
        )

    weather = view("origin_weather", [origin], timedelta(hours=3), temp=Float32, wind=Float64)
    tail = view("tail_performance", [tailnum], timedelta(hours=12), mean_delay=Float32, flights=Int64)
    plane = view("plane", [tailnum], None, seats=Int64, maker=String, jet=Bool)
    pair = view("pair_performance", [origin, dest], timedelta(hours=6), mean_delay=Float64)
    asked = RequestSource(
        name="asked",
        schema=[
            Field(name="hour", dtype=Int64),
            Field(name="weekday", dtype=Int64),
            Field(name="distance", dtype=Float64),
        ],
    )

    @on_demand_feature_view(
        sources=[asked],
        schema=[Field(name="evening", dtype=Int64), Field(name="distance_km", dtype=Float64)],
        mode="python",
    )
    def departure(inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            "evening": [1 if hour >= 17 else 0 for hour in inputs["hour"]],
            "distance_km": [miles * 1.609344 for miles in inputs["distance"]],
        }

    views = [weather, tail, plane, pair, departure]
    return [origin, dest, tailnum, *views, FeatureService(name=SERVICE, features=views)]


def _value(dtype: Any, value: Any) -> Value:
    return Value() if value is None else Value(**{_VALUE_FIELDS[dtype]: value})
