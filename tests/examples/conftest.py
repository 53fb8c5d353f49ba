"""The flights models, trained once per checkout with the demo's own cached steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from flights.manifest import deployed
from flights.runs import SERVICES
from flights.training import MANIFEST, RUNS, train_all
from support.flights import built_repo


@pytest.fixture(scope="session")
def flights_repo() -> Path:
    """The checkout's feature repository, built; for reading only."""
    return built_repo()


@pytest.fixture(scope="session")
def flights_models(flights_repo: Path) -> dict[str, Path]:
    """The checkout's trained models by name."""
    assert flights_repo.exists()
    train_all(list(SERVICES), manifest=MANIFEST, runs=RUNS, console=Console(quiet=True))
    return {name: deployed(MANIFEST, name).path for name in SERVICES}
