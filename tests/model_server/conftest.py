"""One server process for all tests that only ask it questions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.server_process import Material, ServerProcess, make_material, server_process


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def server(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A ready server of the material's model: variant ``logistic``, bodies up to 1 MiB."""
    folder = tmp_path_factory.mktemp("server")
    identity = ["--variant", "logistic", "--revision", "logistic-1", "--model-digest", material.digest]
    with server_process(folder, [*material.arguments, *identity, "--max-body-bytes", str(2**20)]) as started:
        started.wait_ready()
        yield started
        assert started.stop() == 0, started.log
