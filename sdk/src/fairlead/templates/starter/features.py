"""Register the feature repository and fill its online store: SQLite, or Redis where FAIRLEAD_REDIS=host:port is set."""

import importlib.util
import os
import warnings
from datetime import timedelta
from pathlib import Path

import data
from feast import FeatureStore

REPO = Path(__file__).parent / "feature_repo"


def open_store() -> FeatureStore:
    """Return the feature store."""
    settings = "feature_store.redis.yaml" if os.environ.get("FAIRLEAD_REDIS") else "feature_store.yaml"
    return FeatureStore(repo_path=str(REPO), fs_yaml_file=REPO / settings)


def build() -> FeatureStore:
    """Make the data, register the definitions, and write each customer's newest row into the online store."""
    warnings.simplefilter("ignore")  # Feast says at every read that on-demand views are young
    data.make()
    store = open_store()
    store.apply(_definitions())
    end = data.today() + timedelta(days=1)
    store.materialize(end - timedelta(weeks=data.WEEKS), end)
    return store


def _definitions() -> list[object]:
    spec = importlib.util.spec_from_file_location("definitions", REPO / "definitions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OBJECTS


if __name__ == "__main__":
    build()
