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
from kubernetes.aio.config.kube_config import list_kube_config_contexts

from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.client import KubeClient, Patience
from fairlead_operator.platforms.kubernetes.connection import SERVICE_ACCOUNT, UNREADABLE, Connection, connect
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
    """The kubeconfig has no such context, or cannot be read or used."""

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
    given = str(_file_of(kubeconfig))
    files = [Path(file) for file in given.split(os.pathsep) if file]
    if not any(map(_is_there, files)):
        raise ContextUnknown(f"no kubeconfig at {given}; give --kubeconfig FILE, or set KUBECONFIG")
    for file in files:
        _require_mapping(file)
    try:
        listed, current = list_kube_config_contexts(given)
        named = {one["name"]: (one.get("context") or {}).get("namespace") or "" for one in listed}
        return Contexts(named, current["name"])
    except UNREADABLE as error:
        raise _broken(given, error) from error


def _file_of(kubeconfig: Path | None) -> Path:
    """Return the kubeconfig that is meant, as kubectl chooses it; ``KUBECONFIG`` may name several."""
    return kubeconfig or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")


def _is_there(file: Path) -> bool:
    """Return whether there is such a file, also if that may not be known: then reading it says why."""
    try:
        return file.is_file()
    except OSError:
        return True


def _require_mapping(file: Path) -> None:
    """Check that a file, if it is there, may be a kubeconfig; of several, the message names the one that is not.

    Raises:
        ContextUnknown: It cannot be read, or is something else.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except UNREADABLE as error:
        raise _broken(file, error) from error
    if not isinstance(content, dict):
        raise _broken(file, "it is empty" if content is None else f"it is a {type(content).__name__}, not a mapping")


def _broken(file: Path | str, why: object) -> ContextUnknown:
    reason = " ".join(str(why).split())
    return ContextUnknown(f"the kubeconfig {file} cannot be read ({reason}); give --kubeconfig FILE, or set KUBECONFIG")


async def connected(cluster: Cluster, service_account: Path = SERVICE_ACCOUNT) -> tuple[Connection, str]:
    """Return the connection, and the namespace that is meant.

    As kubectl does, a command takes the pod's own credentials only where nothing else is said: no context, no
    kubeconfig, no ``KUBECONFIG``, and no file in the home folder.

    Raises:
        ContextUnknown: There is no such file or context, or the file is none.
        Unauthorized: The pod's own credentials cannot be read.
    """
    file = _file_of(cluster.kubeconfig)
    said = cluster.kubeconfig or cluster.context or os.environ.get("KUBECONFIG") or _is_there(file)
    if not said and (service_account / "token").exists():
        connection = await connect(service_account=service_account)
        return connection, cluster.namespace or connection.namespace or _DEFAULT_NAMESPACE
    known = contexts(cluster.kubeconfig)
    if cluster.context is not None and cluster.context not in known.namespaces:
        there = ", ".join(sorted(known.namespaces)) or "none"
        raise ContextUnknown(f"--context: {cluster.context} is not in the kubeconfig; it has {there}")
    try:
        connection = await connect(kubeconfig=file, context=cluster.context)
    except Unauthorized as error:
        raise ContextUnknown(str(error)) from error
    return connection, cluster.namespace or known.namespaces[cluster.context or known.current] or _DEFAULT_NAMESPACE


@asynccontextmanager
async def opened(cluster: Cluster, patience: Patience = _PATIENCE) -> AsyncIterator[tuple[KubeClient, str]]:
    """Yield a client, and the namespace that is meant.

    Raises:
        KubeError: The API refuses, or cannot be reached; the message says what to do.
        ContextUnknown: The kubeconfig has no such context.
    """
    connection, namespace = await connected(cluster)
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
