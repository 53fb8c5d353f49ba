"""The credentials of a kubeconfig with a client certificate, for httpx."""

from __future__ import annotations

import base64
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the API server is, and who we are."""

    server: str
    context: ssl.SSLContext

    def client(self, timeout_s: float) -> httpx.Client:
        """Return a client."""
        return httpx.Client(base_url=self.server, verify=self.context, timeout=timeout_s, trust_env=False)


def credentials_of(kubeconfig: Path) -> Credentials:
    """Read the one cluster and the one user of a kubeconfig."""
    document = yaml.safe_load(kubeconfig.read_text())
    (cluster,), (user,) = document["clusters"], document["users"]
    context = ssl.create_default_context(cadata=_text(cluster["cluster"]["certificate-authority-data"]))
    with tempfile.TemporaryDirectory() as folder:  # the standard library takes certificates from files alone
        certificate = Path(folder, "client.pem")
        certificate.write_text(_of(user, "client-certificate-data") + _of(user, "client-key-data"))
        context.load_cert_chain(certificate)
    return Credentials(cluster["cluster"]["server"], context)


def _of(user: dict[str, Any], field: str) -> str:
    return _text(user["user"][field])


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
