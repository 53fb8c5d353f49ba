"""Clients of others against a running server of plain models, without a feature store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.plain_models import ELEMENT_TYPES, identity, written
from support.server_process import ServerProcess, server_process

_CHECKS = Path(__file__).parents[1] / "support" / "triton_plain_checks.py"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of one identity per datatype."""
    folder = tmp_path_factory.mktemp("plain")
    for datatype in ELEMENT_TYPES:
        version = folder / "models" / f"identity-{datatype}" / "1"
        version.mkdir(parents=True)
        written(version / "model.onnx", identity(datatype, ("n", 2)))
    with server_process(folder, ["--model-repository", str(folder / "models")]) as started:
        started.wait_ready()
        yield started
        assert started.stop() == 0, started.log


def test_tritons_clients_use_every_datatype_and_read_statistics(plain: ServerProcess) -> None:
    addresses = [plain.url.removeprefix("http://"), plain.grpc_address]
    done = subprocess.run(
        [sys.executable, str(_CHECKS), *addresses], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("v1/models/identity-FP32:predict", {"instances": [[1, 2.5]]}, 200, {"predictions": [[1.0, 2.5]]}),
        (
            "v1/models/identity-FP32:predict",
            {"instances": [[1]]},
            400,
            {"error": "x: has shape [1, 1]; the model takes [-1, 2] (-1 is any)"},
        ),
        ("v2/models/identity-FP32/versions/9/infer", {"inputs": []}, 404, None),
    ],
)
def test_rest_answers_and_refuses(plain: ServerProcess, path: str, body: object, status: int, said: object) -> None:
    answer = httpx.post(f"{plain.url}/{path}", content=json.dumps(body))
    assert answer.status_code == status
    assert said is None or answer.json() == said


def test_statistics_of_a_model_that_is_not_served_are_refused(plain: ServerProcess) -> None:
    assert httpx.get(f"{plain.url}/v2/models/nobody/stats").status_code == 404
    assert httpx.get(f"{plain.url}/v2/models/identity-FP32/versions/9/stats").status_code == 404
