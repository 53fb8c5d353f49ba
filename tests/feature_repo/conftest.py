"""One copy of the built flights repository for the tests that only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flights.store import open_store
from support.flights import copied_repo

if TYPE_CHECKING:
    from feast import FeatureStore


@pytest.fixture(scope="session")
def flights_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_repo(tmp_path_factory.mktemp("flights") / "feature_repo")


@pytest.fixture(scope="session")
def flights_store(flights_repo: Path) -> Iterator[FeatureStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FAIRLEAD_REDIS", raising=False)
        yield open_store(flights_repo)
