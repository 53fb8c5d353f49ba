"""Whatever a feature store does at start, the server says why it is away and uses it once it is right."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.policy import FeatureState
from support.predictors import NOON, contract_for, running
from support.store import FeatureRepo, make_repo
from support.waiting import until

NEEDY_MODULE = '''
"""Fairlead's SQLite store, which cannot be made while the environment lacks a setting."""
import os
from typing import Literal
from fairlead.features.sqlite import WalSqliteOnlineStore, WalSqliteOnlineStoreConfig

class NeedySqliteOnlineStoreConfig(WalSqliteOnlineStoreConfig):
    type: Literal["needy_store.NeedySqliteOnlineStore"] = "needy_store.NeedySqliteOnlineStore"

class NeedySqliteOnlineStore(WalSqliteOnlineStore):
    def __init__(self):
        super().__init__()
        {name: value for name, value in os.environ.items()}["NEEDY_STORE_SETTING"]
'''


@pytest.fixture
def repo(tmp_path: Path) -> FeatureRepo:
    made = make_repo(tmp_path / "repo")
    made.write("plane", {"tailnum": "N3"}, {"seats": 3, "maker": "BOEING", "jet": True}, NOON)
    return made


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def configure(repo: FeatureRepo, **blocks: Any) -> None:
    config = yaml.safe_load(repo.yaml.read_text()) | blocks
    repo.yaml.write_text(yaml.safe_dump(config))


async def test_a_store_that_fails_in_a_way_nobody_foresaw_is_tried_again(
    repo: FeatureRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    contract = contract_for(repo)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "needy_store.py").write_text(NEEDY_MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    configure(repo, online_store={"type": "needy_store.NeedySqliteOnlineStore", "path": "online_store.db"})
    with caplog.at_level(logging.WARNING):
        async with running(repo.path, contract, tmp_path, startup_deadline_s=0.1) as rig:
            await until(lambda: rig.count("fairlead_connection_failures_total", kind="KeyError") >= 3)
            assert rig.predictor.degraded
            assert "cannot be opened (KeyError)" in rig.connection.reason
            assert caplog.text.count("error=KeyError at=needy_store.py:") == 1
            monkeypatch.setenv("NEEDY_STORE_SETTING", "1")
            await until(lambda: not rig.predictor.degraded)
            assert await rig.state("plane__seats", tailnum="N3") is FeatureState.PRESENT


@pytest.mark.parametrize("garbage", [b"no registry", b"", bytes(range(256)) * 16])
async def test_a_registry_of_garbage_is_tried_again(repo: FeatureRepo, tmp_path: Path, garbage: bytes) -> None:
    contract = contract_for(repo)
    registry = repo.path / "registry.db"
    right = registry.read_bytes()
    if garbage:
        registry.write_bytes(garbage)
    else:
        registry.unlink()
    async with running(repo.path, contract, tmp_path, startup_deadline_s=0.1) as rig:
        await until(lambda: rig.count("fairlead_connection_failures_total", kind="StoreNotReachable") >= 2)
        assert rig.predictor.degraded
        assert "the registry " in rig.connection.reason
        written = registry.with_suffix(".new")
        written.write_bytes(right)
        written.rename(registry)
        await until(lambda: not rig.predictor.degraded)
        assert await rig.state("plane__seats", tailnum="N3") is FeatureState.PRESENT


async def test_a_registry_that_hangs_holds_neither_the_start_nor_the_end(
    repo: FeatureRepo, tmp_path: Path, silent_port: int
) -> None:
    contract = contract_for(repo)
    configure(repo, registry={"registry_type": "remote", "path": f"127.0.0.1:{silent_port}"})
    before_s = time.perf_counter()
    async with running(repo.path, contract, tmp_path, startup_deadline_s=0.3) as rig:
        assert time.perf_counter() - before_s < 3
        assert rig.predictor.ready
        assert rig.predictor.degraded
        assert "has not answered within 0.3 s" in rig.connection.reason
        await until(lambda: rig.count("fairlead_connection_failures_total", kind="StoreNotReachable") >= 1)
        answer = await asyncio.wait_for(rig.ask({}), 1)
        assert answer.degraded
        before_s = time.perf_counter()
    assert time.perf_counter() - before_s < 1
