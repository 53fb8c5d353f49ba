"""A registry that changes under a running model is seen and told, and never changes what is served."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from feast import FeatureService

from fairlead.policy import FeatureState
from support.predictors import NOON, Rig, contract_for, running
from support.store import SERVICE, FeatureRepo, definitions, make_repo
from support.waiting import until

REFRESH: dict[str, Any] = {"registry_refresh_s": 0.05, "registry_deadline_s": 5.0}

HALTING_MODULE = '''
"""Feast's file registry, which does not answer while a file called halt lies beside it."""
import threading
from feast.infra.registry.file import FileRegistryStore

class HaltingRegistryStore(FileRegistryStore):
    def get_registry_proto(self):
        while self._filepath.with_name("halt").exists():
            threading.Event().wait(0.02)
        return super().get_registry_proto()
'''


@pytest.fixture
def repo(tmp_path: Path) -> FeatureRepo:
    made = make_repo(tmp_path / "repo")
    made.write("plane", {"tailnum": "N3"}, {"seats": 3, "maker": "BOEING", "jet": True}, NOON)
    return made


class Halt:
    """Makes the repository's registry wait."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self) -> None:
        self._file.touch()

    def end(self) -> None:
        self._file.unlink(missing_ok=True)


@pytest.fixture
def halt(repo: FeatureRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Halt]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "halting.py").write_text(HALTING_MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    config = yaml.safe_load(repo.yaml.read_text())
    config["registry"]["registry_store_type"] = "halting.HaltingRegistryStore"
    repo.yaml.write_text(yaml.safe_dump(config))
    halting = Halt(repo.path / "halt")
    yield halting
    halting.end()


def register(repo: FeatureRepo, *, without: str = "") -> None:
    """Register the service anew, perhaps without one of its views."""
    objects = definitions(repo.path)
    views = [made for made in objects[3:-1] if made.name != without]
    repo.store.apply([*objects[:-1], FeatureService(name=SERVICE, features=views)])


async def answers_as_before(rig: Rig) -> bool:
    return await rig.state("plane__seats", tailnum="N3") is FeatureState.PRESENT and rig.predictor.ready


async def test_a_service_that_changes_and_changes_back_is_told_and_served_as_it_was(
    repo: FeatureRepo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contract = contract_for(repo)
    with caplog.at_level(logging.WARNING):
        async with running(repo.path, contract, tmp_path, **REFRESH) as rig:
            registry = rig.connection.registry
            assert registry.report.fits is True
            register(repo, without="plane")
            await until(lambda: registry.report.fits is False)
            assert registry.report.differences[0] == "feature plane__seats is not registered"
            assert registry.report.differences_total >= 3
            assert registry.fingerprint not in {None, contract.fingerprint}
            assert await answers_as_before(rig)
            assert rig.count("fairlead_contract_drift") == 1
            register(repo)
            await until(lambda: registry.report.fits is True)
            assert registry.fingerprint == contract.fingerprint
            assert rig.count("fairlead_contract_drift") == 0
            assert rig.count("fairlead_registry_reads_total", outcome="differs") >= 1
            assert rig.count("fairlead_registry_reads_total", outcome="fits") >= 2
    assert caplog.text.count("registry changed fits=False") == 1
    assert caplog.text.count("registry changed fits=True") == 1


async def test_a_service_that_is_gone_differs_with_the_reason(repo: FeatureRepo, tmp_path: Path) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, **REFRESH) as rig:
        registry = rig.connection.registry
        repo.store.delete_feature_service(SERVICE)
        await until(lambda: registry.report.fits is False)
        assert registry.fingerprint is None
        assert "feature service small is not in the registry" in registry.report.differences[0]
        assert await answers_as_before(rig)


async def test_a_registry_that_is_away_is_counted_and_the_last_read_stands(
    repo: FeatureRepo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = repo.path / "registry.db"
    with caplog.at_level(logging.WARNING):
        async with running(repo.path, contract_for(repo), tmp_path, **REFRESH) as rig:
            registry = rig.connection.registry
            file.rename(repo.path / "away")
            await until(lambda: registry.report.failures >= 3)
            assert registry.report.fits is True
            assert await answers_as_before(rig)
            (repo.path / "away").rename(file)
            reads = registry.report.reads
            await until(lambda: registry.report.reads > reads)
            assert rig.count("fairlead_registry_reads_total", outcome="failed") == registry.report.failures
    assert caplog.text.count("registry not read reason=StoreNotReachable") == 1


async def test_a_registry_that_hangs_is_overdue_and_waited_for_once(
    repo: FeatureRepo, tmp_path: Path, halt: Halt
) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, **REFRESH | {"registry_deadline_s": 0.05}) as rig:
        registry = rig.connection.registry
        halt.begin()
        await until(lambda: registry.report.failures >= 3)
        assert await answers_as_before(rig)
        halt.end()
        reads = registry.report.reads
        await until(lambda: registry.report.reads > reads)


async def test_a_registry_that_is_late_and_differs_is_told_too(repo: FeatureRepo, tmp_path: Path) -> None:
    contract = contract_for(repo)
    register(repo, without="plane")
    file = repo.path / "registry.db"
    file.rename(repo.path / "away")
    async with running(repo.path, contract, tmp_path, startup_deadline_s=0.1, **REFRESH) as rig:
        assert rig.predictor.report.registry.fits is None
        (repo.path / "away").rename(file)
        await until(lambda: not rig.predictor.ready)
        assert rig.predictor.report.registry.differences[0] == "feature plane__seats is not registered"
        assert "plane__seats is not registered" in rig.predictor.report.not_ready_reason


async def test_without_an_interval_the_registry_is_read_at_the_start_alone(repo: FeatureRepo, tmp_path: Path) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, registry_refresh_s=0) as rig:
        assert rig.predictor.report.registry.reads == 1
