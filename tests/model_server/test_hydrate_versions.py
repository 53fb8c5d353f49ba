"""Versions of a view side by side: what the service names is read, beside Feast's own answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from feast import FeatureService, FeatureStore, FeatureView, Field
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Int64

from fairlead.features.service import view_of
from support.models import contract_of
from support.predictors import NOON, running
from support.servers import redis_server
from support.store import FeatureRepo, definitions, make_repo
from support.waiting import until

REFRESH: dict[str, Any] = {"registry_refresh_s": 0.05, "registry_deadline_s": 5.0}


@pytest.fixture(params=["sqlite", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureRepo]:
    if request.param == "sqlite":
        yield versioned(make_repo(tmp_path / "repo", apply=False))
        return
    with redis_server(tmp_path) as server:
        yield versioned(make_repo(tmp_path / "repo", online_store=server.online_store, apply=False))


def versioned(repo: FeatureRepo) -> FeatureRepo:
    """Keep versions apart online, and register two versions of the planes."""
    config = yaml.safe_load(repo.yaml.read_text())
    config["registry"]["enable_online_feature_view_versioning"] = True
    repo.yaml.write_text(yaml.safe_dump(config))
    made = FeatureRepo(repo.path, FeatureStore(repo_path=str(repo.path)))
    made.store.apply(definitions(repo.path))
    register_with(made, "weight")
    return made


def register_with(repo: FeatureRepo, *more: str) -> None:
    """Register the planes with further features: another version."""
    objects = definitions(repo.path)
    entity, plane = objects[2], objects[5]
    schema = [*plane.schema, *(Field(name=name, dtype=Int64) for name in more)]
    repo.store.apply([FeatureView(name="plane", entities=[entity], schema=schema, source=plane.batch_source)])


def write(repo: FeatureRepo, projection: Any, **values: int) -> None:
    """Write a row of plane N3 to the version that a projection names."""
    key = EntityKey(join_keys=["tailnum"], entity_values=[Value(string_val="N3")])
    row = {name: Value(int64_val=value) for name, value in values.items()}
    repo.store.provider.online_write_batch(
        repo.store.config, view_of(repo.store, projection), [(key, row, NOON, NOON)], None
    )


def feasts(repo: FeatureRepo, service: str) -> dict[str, list[Any]]:
    registered = repo.store.get_feature_service(service)
    asked = [{"tailnum": "N3"}]
    answer: dict[str, list[Any]] = repo.store.get_online_features(registered, asked, full_feature_names=True).to_dict()
    return {name: value for name, value in answer.items() if name != "tailnum"}


async def test_versions_that_a_service_names_are_read_side_by_side(repo: FeatureRepo, tmp_path: Path) -> None:
    repo.store.apply([FeatureService(name="pinned", features=["plane@v0:seats", "plane@v1:seats", "plane@v1:weight"])])
    first, second, _ = repo.store.get_feature_service("pinned").feature_view_projections
    write(repo, first, seats=1)
    write(repo, second, seats=2, weight=3)
    async with running(repo.path, contract_of(repo.describe("pinned"), echo=False), tmp_path) as rig:
        hydrated = await rig.hydrator.hydrate({"tailnum": np.array(["N3"], np.object_)}, 1)
        columns = {name: column.tolist() for name, column in hydrated.columns.items()}
        assert columns == {"plane@v0__seats": [1], "plane@v1__seats": [2], "plane@v1__weight": [3]}
        assert columns == feasts(repo, "pinned")


async def test_a_new_version_of_a_served_view_is_told_and_left_to_a_restart(repo: FeatureRepo, tmp_path: Path) -> None:
    plane = repo.store.get_feature_view("plane")
    repo.store.apply([FeatureService(name="latest", features=[plane[["seats"]]])])
    (projection,) = repo.store.get_feature_service("latest").feature_view_projections
    write(repo, projection, seats=2)
    contract = contract_of(repo.describe("latest"))
    request = {"tailnum": np.array(["N3"], np.object_)}
    async with running(repo.path, contract, tmp_path, **REFRESH) as rig:
        assert (await rig.hydrator.hydrate(request, 1)).columns["plane__seats"].tolist() == [2]
        register_with(repo, "weight", "range")
        registry = rig.connection.registry
        await until(lambda: registry.report.fits is False)
        assert registry.report.differences == ("view plane is read from plane_v2 in the online store, it was plane_v1",)
        assert (await rig.hydrator.hydrate(request, 1)).columns["plane__seats"].tolist() == [2]
    write(repo, projection, seats=4)
    async with running(repo.path, contract, tmp_path) as rig:
        # Feast 0.67 writes version 2 and reads version 0: its copy of the view loses the number.
        assert (await rig.hydrator.hydrate(request, 1)).columns["plane__seats"].tolist() == [4]
