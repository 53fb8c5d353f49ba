"""Fetching a model file: from every kind of place, verified, in one step, with every wait and every retry bounded."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_server.errors import FetchError, FetchInterrupted, FetchRefused
from fairlead_server.fetch.download import Fetch, Fetched, FetchLimits, source_of
from fairlead_server.fetch.uri import parse_uri
from support.object_store import SECRET, ObjectStore, object_store

CONTENT = bytes(range(256)) * 4096 * 10  # 10 MiB: more than one read
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
OTHER = f"sha256:{'0' * 64}"
LIMITS: dict[str, Any] = {"attempts": 3, "read_deadline_s": 5.0, "deadline_s": 20.0}


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        running.objects["late/3.onnx"] = CONTENT
        yield running


@pytest.fixture(autouse=True)
def _emulated_google(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's library reads the process' own variables."""
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", store.url)


def fetch(
    place: str,
    folder: Path,
    environment: dict[str, str],
    *,
    digest: str = DIGEST,
    pauses: list[float] | None = None,
    **limits: Any,
) -> Fetched:
    """Fetch without waiting between tries; ``pauses`` learns how long they would have been."""
    uri, bounds = parse_uri(f"fairlead+{place}@{digest}"), FetchLimits(**LIMITS | limits)
    waited = [] if pauses is None else pauses
    return Fetch(uri, source_of(uri, bounds, environment), bounds, pause=waited.append).into(folder)


def failure(place: str, folder: Path, environment: dict[str, str], **rest: Any) -> FetchError:
    """Return why a fetch failed; it must have left nothing behind."""
    with pytest.raises(FetchError) as raised:
        fetch(place, folder, environment, **rest)
    assert not list(folder.glob("*")), "something was left behind"
    assert not list(folder.glob(".*")), "something was left behind"
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("scheme", ["s3", "gs", "http", "file"])
def test_a_file_comes_whole_and_readable_from_every_kind_of_place(
    scheme: str, store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(CONTENT)
    place = {
        "s3": "s3://models/late/3.onnx",
        "gs": "gs://models/late/3.onnx",
        "http": f"{store.url}/plain/late/3.onnx?signature=x",
        "file": f"file://{tmp_path}/model",
    }[scheme]
    fetched = fetch(place, tmp_path / "new" / "folder", store.environment)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in fetched.path.parent.iterdir()] == ["model.onnx"]


def test_a_file_that_is_there_and_right_is_not_fetched_again(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(CONTENT)
    assert fetch("s3://models/late/3.onnx", tmp_path, store.environment).was_there
    assert store.requests == []


def test_another_file_there_is_replaced_only_by_the_right_one(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"old")
    with pytest.raises(FetchRefused, match="no such object"):
        fetch("s3://models/late/4.onnx", tmp_path, store.environment)
    assert (tmp_path / "model.onnx").read_bytes() == b"old"
    fetch("s3://models/late/3.onnx", tmp_path, store.environment)
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_what_a_killed_fetch_left_is_removed(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / ".model.onnx.left").write_bytes(b"half")
    fetch("s3://models/late/3.onnx", tmp_path, store.environment)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("place", "changed", "said"),
    [
        ("s3://models/late/4.onnx", {}, "no such object (404): check model.uri"),
        ("s3://other/late/3.onnx", {}, "there is no bucket other (404)"),
        (
            "s3://models/late/3.onnx",
            {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"},
            "the key id AKIAIOSF… is not known to",
        ),
        (
            "s3://models/late/3.onnx",
            {"AWS_SECRET_ACCESS_KEY": "another"},
            "the secret is not the one of key id AKIAFAIR…",
        ),
        (
            "s3://models/late/3.onnx",
            {"AWS_SECRET_ACCESS_KEY": ""},
            "AWS_SECRET_ACCESS_KEY is not set: check the Secret",
        ),
        ("s3://models/late/3.onnx", {"AWS_ENDPOINT_URL": "minio:9000"}, "the endpoint is not http(s)://HOST[:PORT]"),
        ("gs://models/late/4.onnx", {}, "no such object (404)"),
        ("file:///no/such/file", {}, "No such file or directory: check the path"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_do_and_is_not_tried_again(
    place: str, changed: dict[str, str], said: str, store: ObjectStore, tmp_path: Path
) -> None:
    pauses: list[float] = []
    error = failure(place, tmp_path / "to", store.environment | changed, pauses=pauses)
    assert isinstance(error, FetchRefused)
    assert str(error).startswith(f"{place}: {said}")
    assert pauses == []


@pytest.mark.parametrize("answer", [(404, "InvalidAccessKeyId"), (404, "XAdminUserNotFound")])
def test_an_unknown_key_is_named_where_it_is_answered_with_404_too(
    answer: tuple[int, str], store: ObjectStore, tmp_path: Path
) -> None:
    store.unknown_key = answer
    environment = store.environment | {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}
    assert "the key id AKIAIOSF… is not known" in str(failure("s3://models/a.onnx", tmp_path / "to", environment))


def test_a_403_for_a_reason_of_the_store_s_own_is_a_refusal(store: ObjectStore, tmp_path: Path) -> None:
    store.unknown_key = (403, "QuotaOfMine")
    environment = store.environment | {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}
    error = failure("s3://models/a.onnx", tmp_path / "to", environment)
    assert isinstance(error, FetchRefused)
    assert "the key id AKIAIOSF… may not read it" in str(error)


def test_keys_may_end_with_a_line_break_as_those_from_files_do(store: ObjectStore, tmp_path: Path) -> None:
    environment = {name: value + "\n" * ("KEY" in name) for name, value in store.environment.items()}
    assert fetch("s3://models/late/3.onnx", tmp_path, environment).size_bytes == len(CONTENT)


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_web_server_s_refusal_shows_neither_user_nor_query(status: str, store: ObjectStore, tmp_path: Path) -> None:
    store.faults[:] = [status]
    place = f"{store.url.replace('//', '//user:pass-word@')}/plain/late/3.onnx?X-Signature=secret"
    error = failure(place, tmp_path / "to", {})
    assert str(error).startswith(f"{store.url}/plain/late/3.onnx: HTTP status {status}: check")
    assert "pass-word" not in str(error)
    assert "secret" not in str(error)


def test_a_wrong_digest_is_named_beside_the_right_one(store: ObjectStore, tmp_path: Path) -> None:
    error = failure("s3://models/late/3.onnx", tmp_path / "to", store.environment, digest=OTHER)
    assert isinstance(error, FetchRefused)
    assert DIGEST in str(error)
    assert OTHER in str(error)


@pytest.mark.parametrize("place", ["s3://models/late/3.onnx", "http"])
@pytest.mark.parametrize("fault", ["503", "cut"])
def test_what_may_pass_is_tried_again_after_growing_pauses(
    place: str, fault: str, store: ObjectStore, tmp_path: Path
) -> None:
    store.faults[:] = [fault, fault]
    pauses: list[float] = []
    where = f"{store.url}/plain/late/3.onnx" if place == "http" else place
    assert fetch(where, tmp_path, store.environment, pauses=pauses).path.read_bytes() == CONTENT
    assert len(pauses) == 2
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0


def test_tries_end(store: ObjectStore, tmp_path: Path) -> None:
    store.faults[:] = ["503"] * 9
    pauses: list[float] = []
    error = failure("s3://models/late/3.onnx", tmp_path / "to", store.environment, pauses=pauses)
    assert isinstance(error, FetchInterrupted)
    assert str(error).endswith("given up after 3 attempts")
    assert len(pauses) == 2


@pytest.mark.parametrize("place", ["s3://models/a.onnx", "http://127.0.0.1:9/a.onnx"])
def test_a_server_that_is_not_there_may_come(place: str, store: ObjectStore, tmp_path: Path) -> None:
    environment = store.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert isinstance(failure(place, tmp_path / "to", environment), FetchInterrupted)


@pytest.mark.parametrize("place", ["s3://models/late/3.onnx", "http"])
def test_silence_is_waited_for_no_longer_than_the_read_deadline(place: str, store: ObjectStore, tmp_path: Path) -> None:
    store.faults[:] = ["hang"]
    where = f"{store.url}/plain/late/3.onnx" if place == "http" else place
    error = failure(where, tmp_path / "to", store.environment, attempts=1, read_deadline_s=0.5)
    assert isinstance(error, FetchInterrupted)


def test_no_try_goes_beyond_the_deadline(store: ObjectStore, tmp_path: Path) -> None:
    store.faults[:] = ["hang"] * 9
    error = failure("s3://models/late/3.onnx", tmp_path / "to", store.environment, attempts=9, deadline_s=0.5)
    assert "given up after 1 attempt" in str(error)


@pytest.mark.parametrize("place", ["s3://models/late/3.onnx", "http"])
def test_a_file_that_says_it_is_too_large_is_not_begun(place: str, store: ObjectStore, tmp_path: Path) -> None:
    where = f"{store.url}/plain/late/3.onnx" if place == "http" else place
    error = failure(where, tmp_path / "to", store.environment, max_bytes=1000)
    assert str(error).endswith("larger than 1000 bytes: raise --max-bytes if that is right")


def test_a_destination_that_cannot_be_written_is_named(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchRefused, match=f"cannot write to {tmp_path}/file"):
        fetch("s3://models/late/3.onnx", tmp_path / "file", store.environment)


def test_redirects_are_followed_but_not_without_end(store: ObjectStore, tmp_path: Path) -> None:
    store.faults[:] = ["redirect:/plain/late/3.onnx"] * 2
    assert fetch(f"{store.url}/plain/late/3.onnx", tmp_path / "a", {}).size_bytes == len(CONTENT)
    store.faults[:] = ["redirect:/plain/late/3.onnx"] * 9
    assert "redirects" in str(failure(f"{store.url}/plain/late/3.onnx", tmp_path / "b", {}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://models/a.onnx",
        f"s3://models/a.onnx@{DIGEST}",
        "fairlead+s3://models/a.onnx",
        "fairlead+s3://models/a.onnx@sha256:abc",
        f"fairlead+ftp://models/a.onnx@{DIGEST}",
        f"fairlead+s3://models@{DIGEST}",
        f"fairlead+s3:///a.onnx@{DIGEST}",
        f"fairlead+s3://models/folder/@{DIGEST}",
        f"fairlead+file://relative/a.onnx@{DIGEST}",
        f"fairlead+https://:80/a@{DIGEST}",
        f"fairlead+https://host:x/a@{DIGEST}",
        f"fairlead+https://user:pass-word@ho st/a?pass-word@{DIGEST}",
    ],
)
def test_what_is_no_address_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(FetchRefused, match=r"give fairlead|use one of s3, gs") as raised:
        parse_uri(text)
    assert "pass-word" not in str(raised.value)


def test_a_key_may_have_an_at_sign() -> None:
    assert parse_uri(f"fairlead+s3://models/a@b.onnx@{DIGEST}").place == "models/a@b.onnx"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fairlead_server.fetch", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_tells_the_failure_in_one_line_to_people_and_to_kubernetes(
    store: ObjectStore, tmp_path: Path
) -> None:
    log = tmp_path / "termination-log"
    ended = run(
        f"fairlead+s3://models/late/3.onnx@{OTHER}",
        str(tmp_path),
        FAIRLEAD_TERMINATION_LOG=str(log),
        **store.environment,
    )
    assert ended.returncode == 3
    assert log.read_text().startswith(f"s3://models/late/3.onnx: its digest is {DIGEST}, not {OTHER}")
    assert f"fairlead fetch: {log.read_text()}\n" in ended.stderr


def test_the_command_ends_with_1_for_what_may_pass(tmp_path: Path) -> None:
    ended = run(f"fairlead+http://127.0.0.1:9/a@{OTHER}", str(tmp_path), "--attempts", "1", FAIRLEAD_TERMINATION_LOG="")
    assert ended.returncode == 1


def test_kubernetes_gets_no_more_than_it_keeps(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    ended = run(f"fairlead+file:///{'ä' * 5000}@{OTHER}", str(tmp_path), FAIRLEAD_TERMINATION_LOG=str(log))
    assert ended.returncode == 3
    assert 4000 < log.stat().st_size <= 4096
    assert log.read_text().startswith("file:///ä")


def test_the_command_is_one_of_fairlead_s(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(CONTENT)
    command = [sys.executable, "-m", "fairlead.cli.main", "fetch"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "example:\n  fairlead fetch fairlead+s3://" in shown
    wanted = [f"fairlead+file://{tmp_path}/model@{DIGEST}", str(tmp_path / "to"), "--deadline", "30"]
    subprocess.run([*command, *wanted], capture_output=True, timeout=60, check=True)
    assert (tmp_path / "to" / "model.onnx").read_bytes() == CONTENT


def test_a_stopped_fetch_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    store.faults[:] = ["hang"]
    (tmp_path / "to").mkdir()
    command = [sys.executable, "-m", "fairlead_server.fetch", f"fairlead+{store.url}/plain/late/3.onnx@{DIGEST}"]
    with subprocess.Popen([*command, str(tmp_path / "to")], stderr=subprocess.DEVNULL) as process:
        while not store.requests:
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    assert list((tmp_path / "to").iterdir()) == []


def test_a_fetch_imports_neither_kserve_nor_feast_nor_what_other_places_need() -> None:
    script = (
        "import sys, fairlead_server.fetch.command as c, fairlead_server.fetch.web\n"
        "assert not {'kserve', 'feast', 'pandas', 'onnxruntime', 'pyarrow'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
