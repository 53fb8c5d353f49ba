"""Every image does its work as another user than root, in a root that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from fairlead.contract import sha256
from support.image_box import SHARED, Box
from support.models import contract_of, write_model
from support.object_store import BUCKET, object_store
from support.server_process import ROW
from support.servers import free_port, redis_server
from support.store import make_repo
from support.waiting import until

NAMES = ["base", "server", "operator", "ledger", "flights", "gateway", "redis", "postgres"]
MINUTE = timedelta(minutes=1)
START_S = 160.0


@pytest.mark.parametrize("name", NAMES)
def test_the_bill_of_materials_is_valid(archives: Mapping[str, dict[str, Any]], name: str) -> None:
    bill = Path(archives[name]["archive"]).with_name("sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(bill) is None
    assert len(json.loads(bill)["components"]) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_there_is_neither_shell_nor_package_manager_nor_compiler(box_of: Callable[[str], Box], name: str) -> None:
    programs = ("sh", "bash", "dash", "apt-get", "dpkg", "pip", "pip3", "gcc", "ld", "strip")
    folders = [box_of(name).root / folder for folder in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/fairlead/bin")]
    assert not [str(folder / one) for folder in folders for one in programs if (folder / one).exists()]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        (
            "base",
            ["-c", "import ssl, sqlite3, ctypes, lzma, bz2, zoneinfo as z; print(z.ZoneInfo('Asia/Tokyo'))"],
            "Tokyo",
        ),
        ("base", ["-c", "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)"], "True"),
        ("base", ["-c", "import os; print(os.getuid(), os.getgid(), os.getgroups())"], "1000 1000 []"),
        ("server", ["--help"], "--feature-store"),
        ("server", ["fetch", "--help"], "fairlead+SCHEME"),
        ("operator", ["run", "--help"], "--namespaces"),
        ("ledger", ["serve", "--help"], "--api-keys"),
        ("ledger", ["migrate", "--sql", "--database=postgresql://ledger@db/ledger"], "CREATE TABLE"),
        ("flights", ["flights.cluster", "--help"], "materialize"),
        ("gateway", ["--version"], "RELEASE"),
        ("redis", ["--version"], "v=7."),
    ],
)
def test_an_entry_point_answers(box_of: Callable[[str], Box], name: str, arguments: list[str], says: str) -> None:
    ended = box_of(name).run(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert says in ended.stdout + ended.stderr


def test_nothing_of_feast_or_onnx_is_in_the_operators_image(box_of: Callable[[str], Box]) -> None:
    site = box_of("operator").root / "opt/fairlead/lib/python3.11/site-packages"
    assert (site / "fairlead_operator").is_dir()
    for package in ("feast", "onnxruntime", "kserve", "pandas", "pyarrow", "numpy", "mypy"):
        assert not (site / package).exists()


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_model_is_fetched(box_of: Callable[[str], Box], tmp_path: Path, scheme: str) -> None:
    content = b"a model" * 1000
    shared = _shared(tmp_path)
    with object_store(**{"late.onnx": content}) as store:
        place = f"{BUCKET}/late.onnx" if scheme == "s3" else f"{store.url.removeprefix('http://')}/plain/late.onnx"
        address = f"fairlead+{scheme}://{place}@{sha256(content)}"
        ended = box_of("server").run("fetch", address, f"{SHARED}/models", shared=shared, extra=store.environment)
    assert ended.returncode == 0, ended.stderr
    assert content in [path.read_bytes() for path in (shared / "models").iterdir()]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_the_server_hydrates_and_predicts(box_of: Callable[[str], Box], tmp_path: Path, kind: str) -> None:
    shared = _shared(tmp_path)
    port = free_port()
    arguments = [
        *("--model", f"{SHARED}/model.onnx", "--feature-store", f"{SHARED}/repo"),
        *("--http-port", str(port), "--grpc-port", str(free_port())),
    ]
    with redis_server(tmp_path) as redis:
        repo = make_repo(shared / "repo", online_store=redis.online_store if kind == "redis" else None)
        repo.write("origin_weather", {"origin": "EWR"}, {"temp": 40.5, "wind": 3.0}, datetime.now(UTC) - MINUTE)
        write_model(shared / "model.onnx", contract_of(repo.describe()))
        _give(shared)
        log_path = tmp_path / "server.log"
        with log_path.open("wb") as log, box_of("server").started(*arguments, log=log, shared=shared) as server:
            url = f"http://127.0.0.1:{port}"
            await until(lambda: _is_ready(server, url, log_path), START_S)
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                answer = await client.post("/v1/models/arrival-delay:predict", json={"instances": [ROW]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["seen_origin_weather__temp"] == 40.5


async def test_redis_keeps_what_it_is_given(box_of: Callable[[str], Box], tmp_path: Path) -> None:
    port = free_port()
    box = box_of("redis")
    keeping = ("--port", str(port), "--dir", "/tmp")  # noqa: S108 -- of the box
    with (tmp_path / "redis.log").open("wb") as log, box.started(*keeping, log=log):
        asking = ("-p", str(port))
        await until(lambda: "PONG" in box.run(*asking, "ping", entrypoint=["redis-cli"]).stdout, START_S)
        box.run(*asking, "set", "unit", "7", entrypoint=["redis-cli"])
        assert box.run(*asking, "get", "unit", entrypoint=["redis-cli"]).stdout == "7\n"


async def test_postgres_keeps_what_it_is_given_and_takes_the_password_of_its_file(
    box_of: Callable[[str], Box], tmp_path: Path
) -> None:
    box, shared, port = box_of("postgres"), _shared(tmp_path), free_port()
    environment = {"PGDATA": f"{SHARED}/data", "PASSWORD_FILE": f"{SHARED}/password"}
    said = tmp_path / "postgres.log"

    def ask(password: str, statement: str) -> subprocess.CompletedProcess[str]:
        address = f"host=127.0.0.1 port={port} user=ledger dbname=ledger"
        words = ("--no-psqlrc", "--tuples-only", "--no-align", "--command", statement, address)
        return box.run(*words, entrypoint=["psql"], extra={"PGPASSWORD": password})

    def takes(server: subprocess.Popen[bytes], password: str) -> bool:
        assert server.poll() is None, said.read_text()
        return ask(password, "SELECT 1").returncode == 0

    async def answers(server: subprocess.Popen[bytes], password: str, statement: str) -> str:
        await until(lambda: takes(server, password), START_S)
        ended = ask(password, statement)
        assert ended.returncode == 0, ended.stderr + said.read_text()
        return ended.stdout

    for password, statement in (
        ("one's", "CREATE TABLE kept AS SELECT 7 AS unit"),
        ("two", "SELECT unit, current_setting('is_superuser') FROM kept"),
    ):
        (shared / "password").write_text(f"{password}\n")
        _give(shared)
        options = ("-c", f"port={port}")
        with said.open("ab") as log, box.started(*options, log=log, shared=shared, extra=environment) as server:
            told = await answers(server, password, statement)
            assert ask("wrong", "SELECT 1").returncode
    assert told == "7|off\n"
    assert "two" not in said.read_text()


def _shared(folder: Path) -> Path:
    shared = folder / "shared"
    shared.mkdir()
    _give(shared)
    return shared


def _give(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 1000, 1000)


def _is_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert server.poll() is None, log.read_text()
    try:
        return httpx.get(f"{url}/v2/health/ready", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
