"""A feature repository with an offline store of Parquet files that tests fill, and a prediction log of what is served.

============ ========= ======== ============================= ==================
view         join keys ttl      features                      dates creation
============ ========= ======== ============================= ==================
weather      origin    3 h      temp Float32, wind Float64    yes
planes       tailnum   never    seats Int64, maker String     no
pairs        origin,   12 h     delay Float32                 yes
             to
season       -         never    index Float32                 yes
asked        on demand -        late Int64; of hour           -
============ ========= ======== ============================= ==================

``weather`` is mapped: its source calls ``temp`` ``temperature``. ``pairs`` knows ``to`` as ``dest``: the service
renames the key. Online it is SQLite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float32, Float64, Int64, String

from fairlead.contract import Contract
from fairlead.features.service import describe
from support.models import contract_of

SERVICE = "skewed"
SOURCE_NAMES = {"temp": "temperature"}
COLUMNS: Mapping[str, Sequence[str]] = {
    "weather": ("origin", "temp", "wind"),
    "planes": ("tailnum", "seats", "maker"),
    "pairs": ("origin", "dest", "delay"),
    "season": ("index",),
}
UNDATED = {"planes"}
"""Views whose source does not say when a row was created."""


@dataclass(frozen=True, slots=True)
class SkewRepo:
    """An applied feature repository, and what its offline store has."""

    path: Path
    store: FeatureStore
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {view: [] for view in COLUMNS})

    @property
    def contract(self) -> Contract:
        return contract_of(describe(self.store, SERVICE))

    def write(self, view: str, at: datetime, *, created: datetime | None = None, **values: Any) -> None:
        """Have a row in the offline store; not before :meth:`save`."""
        self.rows[view].append({**values, "at": at, "created": created or at})

    def push(self, view: str, at: datetime, **values: Any) -> None:
        """Write a row online alone, as a push does."""
        if view != "season":
            self.store.write_to_online_store(view, pd.DataFrame([{**values, "at": at, "created": at}]))
            return
        # Feast pushes no view without entities: it would write it under a key without parts.
        key = EntityKey(join_keys=["__dummy_id"], entity_values=[Value(string_val="")])
        row = {name: Value(float_val=value) for name, value in values.items()}
        table = self.store.get_feature_view(view)
        self.store.provider.online_write_batch(self.store.config, table, [(key, row, at, at)], None)

    def both(self, view: str, at: datetime, **values: Any) -> None:
        """Write a row to both stores."""
        self.write(view, at, **values)
        self.push(view, at, **values)

    def save(self) -> None:
        """Write the offline store's files."""
        for view, rows in self.rows.items():
            if rows:
                frame = pd.DataFrame([_source_names(row) for row in rows])
                frame = frame.drop(columns="created") if view in UNDATED else frame
                frame.to_parquet(self.path / f"{view}.parquet", coerce_timestamps="us")


def make_skew_repo(path: Path, *, offline: str = "file", versions: bool = False) -> SkewRepo:
    """Make the repository in a new folder.

    Args:
        path: The folder.
        offline: Feast's name of the offline store: ``file`` or ``duckdb``.
        versions: Whether versions of a view are kept apart online.
    """
    path.mkdir(parents=True)
    config = {
        "project": "skewed",
        "provider": "local",
        "registry": {
            "path": "registry.db",
            "cache_ttl_seconds": 0,
            "enable_online_feature_view_versioning": versions,
        },
        "online_store": {"type": "fairlead.features.sqlite.WalSqliteOnlineStore", "path": "online_store.db"},
        "offline_store": {"type": offline},
        "entity_key_serialization_version": 3,
    }
    (path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    repo = SkewRepo(path, FeatureStore(repo_path=str(path)))
    repo.write("weather", datetime.fromisoformat("2000-01-01T00:00Z"), origin="-", temp=0.0, wind=0.0)
    repo.write("planes", datetime.fromisoformat("2000-01-01T00:00Z"), tailnum="-", seats=0, maker="-")
    repo.write("pairs", datetime.fromisoformat("2000-01-01T00:00Z"), origin="-", dest="-", delay=0.0)
    repo.write("season", datetime.fromisoformat("2000-01-01T00:00Z"), index=0.0)
    repo.save()
    repo.store.apply(definitions(path))
    return repo


def definitions(path: Path) -> list[Any]:
    """Return the Feast objects; see this module."""
    origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
    dest = Entity(name="dest", join_keys=["dest"], value_type=ValueType.STRING)
    tailnum = Entity(name="tailnum", join_keys=["tailnum"], value_type=ValueType.STRING)

    def view(name: str, entities: Sequence[Entity], ttl: timedelta | None, **features: Any) -> FeatureView:
        source = FileSource(
            name=f"{name}_source",
            path=str(path / f"{name}.parquet"),
            timestamp_field="at",
            created_timestamp_column="" if name in UNDATED else "created",
            field_mapping={v: k for k, v in SOURCE_NAMES.items()} if name == "weather" else None,
        )
        keys = [Field(name=entity.join_key, dtype=String) for entity in entities]
        fields = [Field(name=feature, dtype=dtype) for feature, dtype in features.items()]
        return FeatureView(name=name, entities=list(entities), ttl=ttl, schema=keys + fields, source=source)

    weather = view("weather", [origin], timedelta(hours=3), temp=Float32, wind=Float64)
    planes = view("planes", [tailnum], None, seats=Int64, maker=String)
    pairs = view("pairs", [origin, dest], timedelta(hours=12), delay=Float32)
    season = view("season", [], None, index=Float32)
    asked = RequestSource(name="asked", schema=[Field(name="hour", dtype=Int64)])

    @on_demand_feature_view(sources=[asked], schema=[Field(name="late", dtype=Int64)], mode="python")
    def request(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"late": [1 if hour >= 17 else 0 for hour in inputs["hour"]]}

    # Both keys are in the map: where it has only some of a view's keys, Feast's DuckDB store joins by those alone.
    renamed = pairs.with_join_key_map({"origin": "origin", "dest": "to"})
    views = [weather, planes, renamed, season, request]
    return [
        origin,
        dest,
        tailnum,
        weather,
        planes,
        pairs,
        season,
        request,
        FeatureService(name=SERVICE, features=views),
    ]


def _source_names(row: Mapping[str, Any]) -> dict[str, Any]:
    return {SOURCE_NAMES.get(name, name): value for name, value in row.items()}
