"""One feature repository and one set of rows for all packaging tests: Feast takes a while to set up."""

from pathlib import Path

import pytest

from support.frames import Frames, make_frames
from support.store import FeatureRepo, make_repo


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> FeatureRepo:
    return make_repo(tmp_path_factory.mktemp("repo"))


@pytest.fixture(scope="session")
def frames() -> Frames:
    return make_frames()


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"
