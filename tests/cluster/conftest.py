"""What tests in a real cluster share. They run by ``make test-cluster`` only, inside the cluster's network namespace.

Asked for by path without a cluster, they are skipped by name; in a plain run of all tests they are left out.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, read, wait_for
from support.cluster_scene import Scene, scene_of
from support.cluster_settled import features, settled, shared
from support.s3 import S3Server, s3_server
from support.servers import RedisServer

__all__ = ["features", "settled", "shared"]

HERE = Path(__file__).parent
FACTS = "FAIRLEAD_CLUSTER"
"""Variable with the file that describes the cluster."""
ABSENT = "FAIRLEAD_CLUSTER_ABSENT"
"""Variable with the reason why there can be none here."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out unless it is asked for."""
    if FACTS in os.environ or ABSENT in os.environ:
        return None
    asked = [Path(str(config.invocation_params.dir), word.split("::")[0]).resolve() for word in config.args]
    return None if any(path.is_relative_to(HERE) for path in asked) else collection_path.is_relative_to(HERE) or None


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster."""
    facts = os.environ.get(FACTS, "")
    if not facts:
        pytest.skip(f"no cluster: {os.environ.get(ABSENT, 'run `make test-cluster`')}")
    return read(Path(facts))


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own that admits only restricted pods."""
    name = f"t{secrets.token_hex(3)}"
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
    )
    # Pods are refused until their service account is there.
    wait_for(lambda: bool(cluster.get("serviceaccounts", namespace=name)["items"]))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def s3(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3-compatible server that pods reach."""
    with s3_server(cluster.programs["versitygw"], tmp_path_factory.mktemp("s3"), cluster.node_ip) as server:
        yield server


@pytest.fixture(scope="session")
def redis(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that pods reach."""
    with RedisServer(tmp_path_factory.mktemp("redis"), host=cluster.node_ip) as server:
        yield server


@pytest.fixture(scope="session")
def shared_scene(cluster: Cluster, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One operator and one deployment of three variants, whose pods serve many tests."""
    with scene_of(cluster, redis, tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture
def scene(shared_scene: Scene) -> Iterator[Scene]:
    """The shared scene; nothing that was ever written may have been dangerous for the gateway."""
    yield shared_scene
    shared_scene.writes.assert_safe()
