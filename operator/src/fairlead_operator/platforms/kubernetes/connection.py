"""Where the API server is and who we are: from the pod's service account, or from a kubeconfig."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.config.kube_config import load_kube_config

from fairlead_operator.platforms.kubernetes.errors import Unauthorized

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

UNREADABLE = (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError, LookupError)
"""What the reader of kubeconfigs raises where a file is absent, or is anything but a kubeconfig."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Address, trust and credentials; the credentials can be read again."""

    configuration: Configuration
    renew: Callable[[], Awaitable[None]]
    """Reads the credentials again, after a 401: tokens rotate."""
    namespace: str | None
    """The namespace that this process runs in, if it runs in a pod."""


async def connect(
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    service_account: Path = SERVICE_ACCOUNT,
    environ: Mapping[str, str] = os.environ,
) -> Connection:
    """Return the connection that ``kubeconfig`` describes; without one, the pod's own, else kubectl's default.

    Raises:
        Unauthorized: Neither can be read; the message says why.
    """
    in_pod = kubeconfig is None and (service_account / "token").exists()
    try:
        return await (_in_pod(service_account, environ) if in_pod else _from_file(kubeconfig, context))
    except UNREADABLE as error:
        found = "" if in_pod else f"{kubeconfig or 'the kubeconfig'} cannot be used, "
        why = f"{found}{' '.join(str(error).split())}"
        raise Unauthorized(
            f"no credentials for the Kubernetes API: {why}; set KUBECONFIG, or give --kubeconfig FILE"
        ) from error


async def _in_pod(folder: Path, environ: Mapping[str, str]) -> Connection:
    configuration = Configuration()
    loader = InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt"), environ=environ)

    async def renew() -> None:
        loader.load_and_set(configuration)

    await renew()
    namespace = folder / "namespace"
    return Connection(configuration, renew, namespace.read_text(encoding="utf-8").strip())


async def _from_file(kubeconfig: Path | None, context: str | None) -> Connection:
    configuration = Configuration()

    async def renew() -> None:
        file = str(kubeconfig) if kubeconfig else None
        await load_kube_config(file, context, client_configuration=configuration, persist_config=False)

    await renew()
    return Connection(configuration, renew, None)
