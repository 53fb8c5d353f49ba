"""One server process for all tests that only ask it questions."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.server_process import ROUTE_KEY, Material, ServerProcess, make_material, server_process


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def server(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A ready server of variant ``logistic`` that knows ``ROUTE_KEY`` and reads bodies of up to 1 MiB for 2 s."""
    folder = tmp_path_factory.mktemp("server")
    keys = {"keys": [{"id": ROUTE_KEY.id, "secret": ROUTE_KEY.secret.hex()}]}
    (folder / "route-keys.json").write_text(json.dumps(keys))
    identity = ["--variant", "logistic", "--revision", "logistic-1", "--model-digest", material.digest]
    limits = ["--max-body-bytes", str(2**20), "--body-deadline", "2", "--serving-dir", str(folder)]
    with server_process(folder, [*material.arguments, *identity, *limits]) as started:
        started.wait_ready()
        yield started
        assert started.stop() == 0, started.log
