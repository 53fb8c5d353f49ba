"""The flights feature store: opened, and put into the state that its definitions describe."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.features import light_feast
from flights.paths import FEATURE_REPO

if TYPE_CHECKING:
    from feast import FeatureStore

REDIS_SETTING = "FAIRLEAD_REDIS"
"""Environment variable: ``host:port`` of a Redis to use online; unset or empty means SQLite."""


def settings_file(repo: Path = FEATURE_REPO) -> Path:
    """Return the ``feature_store.yaml`` in use: SQLite online, or Redis where ``FAIRLEAD_REDIS`` is set."""
    return repo / ("feature_store.redis.yaml" if os.environ.get(REDIS_SETTING) else "feature_store.yaml")


def open_store(repo: Path = FEATURE_REPO) -> FeatureStore:
    """Return the feature store of a repository; its online store is chosen by :func:`settings_file`."""
    light_feast.install()
    from feast import FeatureStore  # noqa: PLC0415 -- feast takes 2 s to import

    return FeatureStore(repo_path=str(repo), fs_yaml_file=settings_file(repo))


def apply(store: FeatureStore) -> None:
    """Register what ``definitions.py`` of the store's repository defines, and nothing else."""
    with quiet():
        store.apply(_definitions(Path(store.repo_path)))


def materialize(store: FeatureStore, view: str, start: datetime, end: datetime) -> None:
    """Write the last row of each key of ``view`` with ``start <= event time <= end`` into the online store."""
    with quiet():
        store.materialize(start, end, [view])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's prints and its dependencies' deprecation warnings from the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _definitions(repo: Path) -> list[Any]:
    from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView  # noqa: PLC0415 -- see above

    spec = importlib.util.spec_from_file_location("definitions", repo / "definitions.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(repo / "definitions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kinds = (Entity, FeatureView, OnDemandFeatureView, FeatureService)
    return [value for value in vars(module).values() if isinstance(value, kinds)]
