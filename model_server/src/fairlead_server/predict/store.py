"""Opens a Feast feature store for serving, without making what is not there."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import Any

import yaml
from feast import FeatureStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.repo_config import RepoConfig
from feast.utils import get_default_yaml_file_path

from fairlead.contract import Contract
from fairlead.features.service import FeatureServiceError, ServiceDescription, describe
from fairlead.features.sqlite import SqliteStoreError, check_wal
from fairlead_server.errors import ContractMismatch, ServerError, StartupError
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.predict.matching import check_fits
from fairlead_server.predict.offline import NO_OFFLINE_STORE

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class StoreNotReachable(ServerError):
    """Registry or online store does not answer (yet); worth another try."""


class OpenStore:
    """A feature store's configuration, and threads for its calls that block; models of a process share it."""

    def __init__(self, path: Path) -> None:
        """Open it; see :func:`open_store`.

        Raises:
            StartupError: There is none, or it is not valid.
        """
        self.store = open_store(path)
        self.reads = WorkerThread("feature-store")
        """Where the online store is read, if it cannot be read asynchronously."""
        # A thread of its own: a read that hangs in the online store must not look like a registry that does.
        self.opener = WorkerThread("feature-store-opener")
        """Where the registry is read."""

    async def close(self) -> None:
        """Let the threads end; does not wait for them."""
        self.opener.close()
        self.reads.close()


def configuration_of(path: Path) -> tuple[Path, str]:
    """Return what names a feature store among others: its file and what that says now.

    Raises:
        StartupError: There is no such file.
    """
    _, file = _files(path)
    return file.resolve(), os.path.expandvars(file.read_text())


def open_store(path: Path) -> FeatureStore:
    """Open a feature store's configuration; registry and online store are not touched.

    Args:
        path: Folder of ``feature_store.yaml``, or such a file. For a folder, ``FEAST_FS_YAML_FILE_PATH`` may name
            another file, as for Feast itself.

    Raises:
        StartupError: There is none, or it is not valid.
    """
    folder, file = _files(path)
    unset = _unset_variables(file)
    if unset:
        raise StartupError(f"{file}: ${{{unset[0]}}} is not set; put it into the Secret that fills the environment")
    try:
        return FeatureStore(repo_path=str(folder), config=_config(folder, file))
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StartupError(f"{file}: not a valid feature store configuration: {reason}") from error


def _files(path: Path) -> tuple[Path, Path]:
    """Return the folder and the file of a configuration."""
    folder, file = (path, get_default_yaml_file_path(path)) if path.is_dir() else (path.parent, path)
    if not file.is_file():
        raise StartupError(f"{file}: no such file; check --feature-store")
    return folder, file


def _config(folder: Path, file: Path) -> RepoConfig:
    """Read a configuration as Feast does, but for the offline store, which serving never asks."""
    written = yaml.safe_load(os.path.expandvars(file.read_text()))
    config = RepoConfig(**(written | {"offline_store": {"type": NO_OFFLINE_STORE}}))
    config.repo_path = folder
    return config


def read_registry(store: FeatureStore, contract: Contract) -> ServiceDescription:
    """Read the contract's feature service from the registry and check that it fits.

    Raises:
        StoreNotReachable: The registry does not answer.
        ContractMismatch: The service is missing, or is not the contract's.
    """
    _check_registry_exists(store)
    try:
        registered = describe(store, contract.feature_service)
    except FeatureServiceError as error:
        raise ContractMismatch(str(error)) from error
    except Exception as error:
        raise StoreNotReachable(f"the registry does not answer ({type(error).__name__})") from error
    check_fits(contract, registered)
    return registered


def check_online_store(store: FeatureStore) -> None:
    """Check that a local SQLite store is there and fit for reading while it is written; others pass.

    Raises:
        StoreNotReachable: The file is not there yet.
        StartupError: It is one whose readers wait for writers.
    """
    if not isinstance(store.provider.online_store, SqliteOnlineStore):
        return
    path = _local(store, store.config.online_store.path)
    if not path.is_file() or not path.stat().st_size:
        raise StoreNotReachable(f"the online store {path} does not exist; run `feast apply`")
    try:
        check_wal(store.config)
    except SqliteStoreError as error:
        raise StartupError(str(error)) from error
    except sqlite3.Error as error:
        raise StoreNotReachable(f"the online store {path} cannot be opened ({error})") from error


def _unset_variables(file: Path) -> list[str]:
    """Return what Feast would leave as it is, to fail later as an address that nobody knows."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError):
        return []  # Feast says better what is wrong with it
    settings = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [name for name in _VARIABLE.findall(settings) if name not in os.environ]


def _check_registry_exists(store: FeatureStore) -> None:
    """Feast would make an empty registry."""
    registry: Any = store.config.registry
    if registry.registry_type != "file" or "://" in registry.path:
        return
    path = _local(store, registry.path)
    if not path.is_file():
        raise StoreNotReachable(f"the registry {path} does not exist; run `feast apply`")


def _local(store: FeatureStore, path: str) -> Path:
    return Path(store.repo_path) / path
