"""Thirty features of a user whose values say whose they are, so that every answer can be checked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64

from fairlead.contract import Contract, Feature, Output, Training, sha256
from fairlead.features.service import describe

USERS = 200
DEFAULT = -1.0
"""What a model sees of a feature that the store did not give."""
_VIEWS = ("a", "b", "c")
_FEATURES = 10
_SERVICE = "thirty"


def make(folder: Path, online_store: Mapping[str, str]) -> FeatureStore:
    """Make and apply a repository, and write every user as a materialization would."""
    folder.mkdir(parents=True)
    config = {
        "project": "sick",
        "provider": "local",
        "registry": {"path": "registry.db", "cache_ttl_seconds": 0},
        "online_store": dict(online_store),
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = FeatureStore(repo_path=str(folder))
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
    views = [
        FeatureView(
            name=view,
            entities=[user],
            schema=[
                Field(name="user", dtype=Int64),
                *(Field(name=f"{view}{i}", dtype=Float64) for i in range(_FEATURES)),
            ],
            source=FileSource(name=f"{view}_source", path=str(folder / f"{view}.parquet"), timestamp_field="at"),
        )
        for view in _VIEWS
    ]
    store.apply([user, *views, FeatureService(name=_SERVICE, features=views)])
    at = datetime.now(UTC)
    for first, view in enumerate(views):
        rows = [
            (
                EntityKey(join_keys=["user"], entity_values=[Value(int64_val=user_id)]),
                {
                    f"{view.name}{i}": Value(double_val=value)
                    for i, value in enumerate(values_of(user_id)[first * _FEATURES : (first + 1) * _FEATURES])
                },
                at,
                at,
            )
            for user_id in range(USERS)
        ]
        store.provider.online_write_batch(store.config, view, rows, None)
    return store


def values_of(user: int) -> list[float]:
    """Return a user's values, in the service's order."""
    return [user * 100.0 + i for i in range(len(_VIEWS) * _FEATURES)]


def contract_of(store: FeatureStore) -> Contract:
    """Return the contract of a model of these features."""
    described = describe(store, _SERVICE)
    return Contract(
        model="sick",
        version="1",
        project=described.project,
        feature_service=described.name,
        fingerprint=described.fingerprint,
        entities=described.entities,
        request_features=described.request_features,
        features=tuple(
            Feature(view=f.view, name=f.name, dtype=f.dtype, join_keys=f.join_keys, ttl_s=f.ttl_s, default=DEFAULT)
            for f in described.features
        ),
        outputs=(Output(name="p", dtype="float32", meaning="probability"),),
        training=Training(start="2013-01-01T00:00Z", end="2013-02-01T00:00Z", rows=1, data_digest=sha256(b"rows")),
        packages={},
    )
