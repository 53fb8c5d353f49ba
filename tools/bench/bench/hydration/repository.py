"""The feature repository that is measured: thirty features in three views of one entity, really materialized.

View ``a`` has ten Float32, ``b`` and ``c`` ten Float64 each; ``blend`` and ``blend_row`` are on-demand views of one
request value (mode python, and the same as singleton). Services: ``thirty`` (the views), ``thirty_blend`` and
``thirty_blend_row`` (with one on-demand view each).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int64

USERS = 10_000
"""Users 0 to 9,999 are written; those of ``HOLEY`` have nulls."""
HOLEY = range(8)
VIEWS = ("a", "b", "c")
_FEATURES = 10
_SEED = 20
_TTL = timedelta(days=3650)
SQLITE = {"type": "fairlead.features.sqlite.WalSqliteOnlineStore", "path": "online_store.db"}
"""The block ``online_store`` for SQLite."""


def make(folder: Path, online_store: Mapping[str, str], log: Path) -> FeatureStore:
    """Make, apply and materialize the repository.

    Args:
        folder: A new folder.
        online_store: Block of feature_store.yaml.
        log: Where Feast's progress goes.
    """
    folder.mkdir(parents=True)
    config = {
        "project": "bench",
        "provider": "local",
        "registry": {"path": "registry.db", "cache_ttl_seconds": 0},
        "online_store": dict(online_store),
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    at = datetime.now(UTC) - timedelta(hours=1)
    _write_rows(folder, at)
    store = FeatureStore(repo_path=str(folder))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as told, contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        store.apply(_definitions(folder))
        store.materialize(at - timedelta(hours=1), at + timedelta(minutes=1))
    return store


def _write_rows(folder: Path, at: datetime) -> None:
    random = np.random.default_rng(_SEED)
    for view in VIEWS:
        values = random.normal(100, 30, (USERS, _FEATURES)).astype(np.float32 if view == "a" else np.float64)
        values[HOLEY.start : HOLEY.stop, ::3] = np.nan
        columns: dict[str, Any] = {f"{view}{i}": values[:, i] for i in range(_FEATURES)}
        frame = pd.DataFrame({"user": np.arange(USERS), "at": pd.Timestamp(at).as_unit("us"), **columns})
        frame.to_parquet(folder / f"{view}.parquet")


def _definitions(folder: Path) -> list[Any]:
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
    views = [_view(view, user, folder) for view in VIEWS]
    given = RequestSource(name="given", schema=[Field(name="amount", dtype=Float64)])
    outputs = [Field(name="half", dtype=Float64), Field(name="large", dtype=Int64)]

    @on_demand_feature_view(sources=[given], schema=outputs, mode="python")  # type: ignore[untyped-decorator]  # feast is untyped here
    def blend(inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            "half": [amount / 2 for amount in inputs["amount"]],
            "large": [int(amount > 100) for amount in inputs["amount"]],  # noqa: PLR2004 -- any number does
        }

    @on_demand_feature_view(sources=[given], schema=outputs, mode="python", singleton=True)  # type: ignore[untyped-decorator]
    def blend_row(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"half": inputs["amount"] / 2, "large": int(inputs["amount"] > 100)}  # noqa: PLR2004 -- as above

    return [
        user,
        *views,
        blend,
        blend_row,
        FeatureService(name="thirty", features=views),
        FeatureService(name="thirty_blend", features=[*views, blend]),
        FeatureService(name="thirty_blend_row", features=[*views, blend_row]),
    ]


def _view(name: str, user: Entity, folder: Path) -> FeatureView:
    dtype = Float32 if name == "a" else Float64
    return FeatureView(
        name=name,
        entities=[user],
        ttl=_TTL,
        schema=[Field(name="user", dtype=Int64), *(Field(name=f"{name}{i}", dtype=dtype) for i in range(_FEATURES))],
        source=FileSource(name=f"{name}_source", path=str(folder / f"{name}.parquet"), timestamp_field="at"),
    )
