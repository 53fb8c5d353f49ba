"""Which cluster a command speaks to: the kubeconfig's contexts and namespaces, and a connection that says what failed.

Nothing here needs the rest of the operator, so that shells can ask for names while somebody types.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.kube_config import list_kube_config_contexts

from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.client import KubeClient, Patience
from fairlead_operator.platforms.kubernetes.connection import SERVICE_ACCOUNT, connect
from fairlead_operator.platforms.kubernetes.errors import (
    Forbidden,
    Invalid,
    KindMissing,
    KubeError,
    Stale,
    Unauthorized,
    Unavailable,
)
from fairlead_operator.platforms.kubernetes.kinds import GROUP

FIELD_MANAGER = "fairlead-cli"
"""Who has written what a command wrote, as managedFields say it."""

_PATIENCE = Patience(connect_s=4.0, attempt_s=10.0, attempts=2)
_DEFAULT_NAMESPACE = "default"

_NOT_INSTALLED = (
    "the cluster at {server} does not know ModelDeployments; its administrator installs them with the chart "
    "fairlead-crds"
)
_UNREACHABLE = (
    "the Kubernetes API at {server} does not answer ({cause}); check that it is up, and that --context and KUBECONFIG "
    "name the right one"
)
_SENTENCES: Mapping[type[KubeError], str] = {
    KindMissing: "the cluster at {server} lacks a kind ({error}); `fairlead doctor -n {namespace}` says what is amiss",
    Forbidden: (
        "{cause}; ask for the ClusterRole view there to look, or edit to change: "
        "kubectl create rolebinding NAME --clusterrole=edit --user=YOU -n {namespace}"
    ),
    Unauthorized: "{server} refuses these credentials; log in again, or choose another --context",
    Stale: "somebody has changed it at the same moment; look again, then repeat the command",
    Invalid: "{cause}",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster, and where in it."""

    namespace: str
    """Empty for the one that the context names."""
    context: str | None
    """Context of the kubeconfig; None for the current one."""
    kubeconfig: Path | None
    """None for what kubectl takes: ``KUBECONFIG``, else the one in the home folder."""


class ContextUnknown(OperatorError):
    """The kubeconfig has no such context, or cannot be read."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a kubeconfig offers."""

    namespaces: dict[str, str]
    """By context; empty where it names none."""
    current: str


def contexts(kubeconfig: Path | None) -> Contexts:
    """Return the contexts of a kubeconfig.

    Raises:
        ContextUnknown: It cannot be read.
    """
    given = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")
    if not any(Path(file).is_file() for file in given.split(os.pathsep)):
        raise ContextUnknown(f"no kubeconfig at {given}; give --kubeconfig FILE, or set KUBECONFIG")
    try:
        listed, current = list_kube_config_contexts(given)
    except (ConfigException, yaml.YAMLError, OSError, ValueError) as error:
        where = f"--kubeconfig: {kubeconfig}" if kubeconfig else "the kubeconfig"
        why = " ".join(str(error).split())
        message = f"{where} cannot be read ({why}); give --kubeconfig FILE, or set KUBECONFIG"
        raise ContextUnknown(message) from error
    named = {one["name"]: (one.get("context") or {}).get("namespace") or "" for one in listed}
    return Contexts(named, current["name"])


@asynccontextmanager
async def opened(cluster: Cluster, patience: Patience = _PATIENCE) -> AsyncIterator[tuple[KubeClient, str]]:
    """Yield a client, and the namespace that is meant.

    Raises:
        KubeError: The API refuses, or cannot be reached; the message says what to do.
        ContextUnknown: The kubeconfig has no such context.
    """
    _require_context(cluster)
    connection = await connect(kubeconfig=cluster.kubeconfig, context=cluster.context)
    namespace = cluster.namespace or connection.namespace or _own_namespace(cluster)
    client = KubeClient(connection, user_agent="fairlead-cli", field_manager=FIELD_MANAGER, patience=patience)
    try:
        yield client, namespace
    except KubeError as error:
        text = explained(error, connection.configuration.host, namespace)
        raise type(error)(text, code=error.code, reason=error.reason) from error
    finally:
        await client.close()


def explained(error: KubeError, server: str, namespace: str) -> str:
    """Return one sentence that says what failed, and what to do about it.

    Args:
        error: What failed.
        server: URL of the API server.
        namespace: Where somebody is at work.
    """
    sentence = _SENTENCES.get(type(error), "{error}")
    if isinstance(error, KindMissing) and GROUP in str(error):
        sentence = _NOT_INSTALLED
    if isinstance(error, Unavailable) and error.reason == "Unreachable":
        sentence = _UNREACHABLE
    cause = str(error).partition(": ")[2] or str(error)
    return sentence.format(error=error, cause=cause, server=server, namespace=namespace)


def _require_context(cluster: Cluster) -> None:
    """Check what was named.

    Raises:
        ContextUnknown: There is no such file, or no such context in it.
    """
    if cluster.kubeconfig is None and (SERVICE_ACCOUNT / "token").exists():
        return
    known = contexts(cluster.kubeconfig).namespaces
    if cluster.context is not None and cluster.context not in known:
        message = f"--context: {cluster.context} is not in the kubeconfig; it has {', '.join(sorted(known)) or 'none'}"
        raise ContextUnknown(message)


def _own_namespace(cluster: Cluster) -> str:
    """Return the namespace that the context names."""
    found = contexts(cluster.kubeconfig)
    return found.namespaces.get(cluster.context or found.current, "") or _DEFAULT_NAMESPACE
