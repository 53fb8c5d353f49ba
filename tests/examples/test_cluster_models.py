"""Model files over HTTP: what a pod fetches is what was trained, and nothing else can be had."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fairlead.contract import sha256
from fairlead_server.errors import FetchRefused
from fairlead_server.fetch.download import Fetch, FetchLimits, source_of
from fairlead_server.fetch.uri import parse_uri
from flights.cluster.serve_models import model_server

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "late.onnx").write_bytes(CONTENT)
    (folder / "notes.txt").write_text("not a model")
    (tmp_path / "secret.onnx").write_bytes(b"outside")
    server = model_server(folder, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(url: str, digest: str, folder: Path) -> bytes:
    folder.mkdir()
    limits = FetchLimits(attempts=1)
    uri = parse_uri(f"fairlead+{url}/late.onnx@{digest}")
    return Fetch(uri, source_of(uri, limits, {}), limits).into(folder).path.read_bytes()


def test_a_storage_initializer_fetches_the_very_bytes(url: str, tmp_path: Path) -> None:
    assert fetched(url, sha256(CONTENT), tmp_path / "mnt") == CONTENT


def test_another_file_than_the_digest_names_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="digest"):
        fetched(url, sha256(b"another"), tmp_path / "mnt")


def test_head_and_probe_answer_without_a_body(url: str) -> None:
    head = httpx.head(f"{url}/late.onnx")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(CONTENT)), b"")
    assert httpx.get(f"{url}/healthz").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/notes.txt", "/missing.onnx", "/../secret.onnx", "/%2e%2e/secret.onnx", "/late"]
)
def test_nothing_but_model_files_of_the_folder_is_given(url: str, path: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", "models")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 404
    answer.read()
    connection.close()
