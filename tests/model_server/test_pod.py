"""The server as a pod runs it: nothing is writable but a scratch folder, its user has no home, the store is a mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from fairlead.serving import ServerReport
from support.models import contract_of, write_model
from support.predictors import HOUR, NOON
from support.server_process import ROW, ServerProcess
from support.servers import RedisServer, redis_server
from support.store import make_repo

V1 = "/v1/models/arrival-delay:predict"
USER = "1000"

CONTAINER = """
set -eu
scratch=$1; shift
mount --make-rprivate /
mount -t tmpfs -o mode=1777 tmpfs "$scratch"
mount -o bind,remount,ro /
export TMPDIR="$scratch" HOME=/nonexistent
# May read whatever a checkout's owner may, and write nothing: who runs the tests may keep the interpreter in a home.
exec setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all,+dac_read_search \\
  --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search --no-new-privs "$@"
"""
"""A shell script that makes the file system of a restricted container: ``SCRATCH COMMAND…``."""


def restricted(scratch: Path, *command: str) -> list[str]:
    """Return ``command`` as a restricted container runs it, with ``scratch`` as its ``/tmp``."""
    namespaces = ["unshare", "--mount", "--"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount", "--"]
    return [*namespaces, "sh", "-c", CONTAINER.format(user=USER), "container", str(scratch), *command]


@dataclass(frozen=True, slots=True)
class Mounts:
    """What the pod gets."""

    model: Path
    feature_store: Path
    """A folder as a ConfigMap is mounted: ``feature_store.yaml`` -> ``..data/feature_store.yaml`` and so on."""
    serving: Path
    scratch: Path


def config_map(folder: Path, content: Mapping[str, bytes]) -> Path:
    """Lay out files as the kubelet mounts a ConfigMap."""
    (folder / "..2026_11_21").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026_11_21")
    for name, data in content.items():
        (folder / "..2026_11_21" / name).write_bytes(data)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def mounts(tmp_path: Path, redis: RedisServer) -> Mounts:
    """A registry file and a configuration with a placeholder in one ConfigMap, online features in Redis."""
    repo = make_repo(tmp_path / "repo", online_store=redis.online_store)
    repo.write("plane", {"tailnum": "N14228"}, {"seats": 149, "maker": "BOEING", "jet": True}, NOON - HOUR)
    write_model(tmp_path / "model.onnx", contract_of(repo.describe()))
    config: dict[str, Any] = yaml.safe_load(repo.yaml.read_text())
    config["online_store"] = {"type": "redis", "connection_string": "${ONLINE_STORE}"}
    registry = (repo.path / "registry.db").read_bytes()
    files = {"feature_store.yaml": yaml.safe_dump(config).encode(), "registry.db": registry}
    shutil.rmtree(repo.path)
    for name in ("serving", "scratch"):
        (tmp_path / name).mkdir()
    mounted = config_map(tmp_path / "feature-store", files)
    return Mounts(tmp_path / "model.onnx", mounted, tmp_path / "serving", tmp_path / "scratch")


@contextmanager
def pod(mounts: Mounts, folder: Path, **environment: str) -> Iterator[ServerProcess]:
    """Run the server as a pod does; skips the test where this user may make no namespaces."""
    if subprocess.run(restricted(mounts.scratch, "true"), capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces cannot be made here")
    command = restricted(mounts.scratch, sys.executable)
    arguments = ["--model", str(mounts.model), "--feature-store", str(mounts.feature_store)]
    identity = ["--model-name", "arrival-delay", "--serving-dir", str(mounts.serving), "--registry-refresh", "0.2"]
    server = ServerProcess(
        folder, [*arguments, *identity], command=command, environment={"PATH": os.environ["PATH"]} | environment
    )
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def test_a_restricted_pod_serves_from_mounts_alone(mounts: Mounts, redis: RedisServer, tmp_path: Path) -> None:
    with pod(mounts, tmp_path, ONLINE_STORE=f"127.0.0.1:{redis.port}") as server:
        server.wait_ready()
        answer = httpx.post(server.url + V1, json={"instances": [ROW]}, timeout=10)
        assert answer.json()["predictions"][0]["seen_plane__seats"] == 149
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert f"Uid:\t{USER}" in status

        def report() -> ServerReport:
            return ServerReport.from_metadata(httpx.get(f"{server.url}/v2/models/arrival-delay", timeout=10).json())

        server.wait_until(lambda: report().registry.reads >= 3)
        assert report().registry.fits
        assert report().registry.failures == 0
        assert not report().degraded
        scratch = Path(f"/proc/{server.process.pid}/root{mounts.scratch}")
        assert list(scratch.iterdir()) == []
        assert server.stop() == 0


def test_a_config_map_that_is_replaced_is_read_again(mounts: Mounts, redis: RedisServer, tmp_path: Path) -> None:
    with pod(mounts, tmp_path, ONLINE_STORE=f"127.0.0.1:{redis.port}") as server:
        server.wait_ready()
        fresh = mounts.feature_store / "..2026_11_22"
        fresh.mkdir()
        (fresh / "feature_store.yaml").write_bytes((mounts.feature_store / "feature_store.yaml").read_bytes())
        (fresh / "registry.db").write_bytes(b"no registry")
        (mounts.feature_store / "..data_tmp").symlink_to(fresh.name)
        (mounts.feature_store / "..data_tmp").rename(mounts.feature_store / "..data")

        def failures() -> int:
            answer = httpx.get(f"{server.url}/v2/models/arrival-delay", timeout=10).json()
            return ServerReport.from_metadata(answer).registry.failures

        server.wait_until(lambda: failures() >= 1)
        assert httpx.get(f"{server.url}/v2/health/ready", timeout=10).status_code == 200


def test_a_placeholder_that_nothing_fills_ends_it_with_3_and_the_name(mounts: Mounts, tmp_path: Path) -> None:
    with pod(mounts, tmp_path) as server:
        assert server.wait_ended() == 3
        assert "${ONLINE_STORE} is not set; put it into the Secret" in server.log
