"""From a kubeconfig to an HTTP session, for tests that talk to a cluster without a Kubernetes client."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import yaml


@asynccontextmanager
async def session_of(kubeconfig: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session on the current context of ``kubeconfig``: its server, authority, certificate or token."""
    config = _read(kubeconfig)
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    tls = _tls(cluster, user) if cluster["server"].startswith("https") else None
    connector = aiohttp.TCPConnector(ssl=tls) if tls else None
    async with aiohttp.ClientSession(cluster["server"], connector=connector, headers=headers) as session:
        yield session


def _read(kubeconfig: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    return config


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    with TemporaryDirectory() as folder:
        authority = _file(cluster, "certificate-authority", Path(folder))
        tls = ssl.create_default_context(cafile=authority)
        certificate = _file(user, "client-certificate", Path(folder))
        if certificate:
            tls.load_cert_chain(certificate, _file(user, "client-key", Path(folder)))
        return tls


def _file(entry: dict[str, Any], name: str, folder: Path) -> Path | None:
    """Return the path that ``entry`` has under ``name``, or that of what it carries inline."""
    if f"{name}-data" in entry:
        path = folder / name
        path.write_bytes(base64.b64decode(entry[f"{name}-data"]))
        return path
    return Path(entry[name]) if name in entry else None
