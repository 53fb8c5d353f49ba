"""A feature repository as pods get it: one ConfigMap of ``feature_store.yaml`` and ``registry.db``, values in Redis.

The repository is the small one of ``support.store``. Its registry is read from beside the yaml, so the ConfigMap is
mounted as the folder; Redis must listen where pods reach it.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from support.server_process import ROW
from support.store import FeatureRepo, make_repo

LARGEST_CONFIG_MAP_BYTES = 1 << 20


def make_cluster_repo(folder: Path, redis: str) -> FeatureRepo:
    """Make the repository in a folder of this machine.

    Args:
        folder: A new or empty folder.
        redis: ``host:port`` of the online store, as pods reach it.
    """
    return make_repo(folder, online_store={"type": "redis", "connection_string": redis})


def feature_store_config_map(repo: FeatureRepo, name: str, namespace: str) -> dict[str, Any]:
    """Return the ConfigMap that pods mount as their feature store.

    Raises:
        ValueError: The registry is larger than a ConfigMap may be.
    """
    registry = base64.b64encode((repo.path / "registry.db").read_bytes()).decode()
    if len(registry) > LARGEST_CONFIG_MAP_BYTES:
        raise ValueError(f"{repo.path / 'registry.db'}: {len(registry)} bytes encoded, too large for a ConfigMap")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"feature_store.yaml": repo.yaml.read_text()},
        "binaryData": {"registry.db": registry},
    }


def write_row(repo: FeatureRepo, now: datetime) -> None:
    """Store the features of ``support.server_process.ROW``, an hour old, but for ``tail_performance``."""
    at = now - timedelta(hours=1)
    pair = {"origin": ROW["origin"], "dest": ROW["dest"]}
    repo.write("origin_weather", {"origin": ROW["origin"]}, {"temp": 40.5, "wind": 3.0}, at)
    repo.write("plane", {"tailnum": ROW["tailnum"]}, {"seats": -3, "maker": "BOEING", "jet": True}, at)
    repo.write("pair_performance", pair, {"mean_delay": 0.5}, at)
