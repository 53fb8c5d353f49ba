"""Commands that cannot reach a cluster, or may not: one sentence with the fix, and a code for scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from fairlead_operator.platforms.kubernetes.connection import connect
from fairlead_operator.platforms.kubernetes.contexts import Cluster, ContextUnknown, connected
from support.cluster_world import alone
from support.commands import Commands, commands_of, here
from support.kube import KubeApiServer, istio_kinds
from support.kube.faults import Refuse, calls
from support.operators import CRD

EACH = (
    ("status", "delay"),
    ("predict", "delay", "-d", "{}"),
    ("assign", "delay", "u1"),
    ("pause", "delay"),
    ("resume", "delay"),
    ("promote", "delay"),
    ("abort", "delay"),
    ("upgrade", "delay", "--to", "0.4.0"),
)
HERE = ("-n", "flights")
WITHOUT_ITS_TOKEN = b"""
contexts: [{name: a, context: {cluster: c, user: u}}]
current-context: a
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {tokenFile: /no}}]
"""


@pytest.fixture
async def server() -> AsyncIterator[KubeApiServer]:
    async with KubeApiServer(kinds=istio_kinds(), namespaces=["flights"]) as server:
        server.load(CRD)
        yield server


@pytest.mark.parametrize("words", EACH, ids=lambda words: words[0])
async def test_each_command_says_what_is_not_there(
    server: KubeApiServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    commands = commands_of(server, tmp_path)
    absent = await commands.run(*words, *HERE)
    expected = "no ModelDeployment flights/delay in this cluster; `kubectl get mdep -A` lists them"
    assert (absent.code, absent.reason) == (1, f"error: {expected}")
    nowhere = await commands.run(*words, "-n", "nowhere")
    expected = "no namespace nowhere in this cluster; `kubectl get namespaces` lists them"
    assert (nowhere.code, nowhere.reason) == (1, f"error: {expected}")


@pytest.mark.parametrize("words", EACH, ids=lambda words: words[0])
async def test_each_command_says_whom_to_ask_for_what_is_forbidden(
    server: KubeApiServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    server.create(alone())
    message = 'modeldeployments.serving.fairlead.dev is forbidden: User "amy" cannot do this'
    server.faults.inject(Refuse(403, "Forbidden", message), lambda call: call.verb != "watch", times=9)
    refused = await commands_of(server, tmp_path).run(*words, *HERE)
    assert refused.code == 1
    assert refused.reason.startswith(f"error: {message}; ask for the ClusterRole view there to look, or edit to change")
    assert refused.reason.endswith("kubectl create rolebinding NAME --clusterrole=edit --user=YOU -n flights")


async def test_only_reading_is_allowed(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(alone())
    server.faults.inject(Refuse(403, "Forbidden", "no patch for amy"), calls("patch"), times=9)
    commands = commands_of(server, tmp_path)
    assert (await commands.run("status", "delay", *HERE)).code == 0
    refused = await commands.run("pause", "delay", *HERE)
    assert (refused.code, "no patch for amy; ask for the ClusterRole" in refused.reason) == (1, True)


async def test_an_absent_namespace_is_not_guessed_at_where_nobody_may_look(
    server: KubeApiServer, tmp_path: Path
) -> None:
    server.faults.inject(Refuse(403, "Forbidden"), calls("get", "namespaces"))
    absent = await commands_of(server, tmp_path).run("pause", "delay", "-n", "nowhere")
    assert absent.reason.startswith("error: no ModelDeployment nowhere/delay in this cluster")
    listed = await commands_of(server, tmp_path).run("status", "-n", "nowhere")
    assert (listed.code, listed.reason.startswith("error: no namespace nowhere")) == (1, True)


async def test_a_cluster_without_the_crd_is_told_from_one_without_deployments(tmp_path: Path) -> None:
    async with KubeApiServer(namespaces=["flights"]) as server:
        for words in (("status", *HERE), ("status", "-A"), ("status", "delay", *HERE, "-w"), ("abort", "delay", *HERE)):
            lacking = await commands_of(server, tmp_path).run(*words)
            assert (lacking.code, "does not know ModelDeployments; " in lacking.reason) == (1, True), lacking
            assert "the chart fairlead-crds" in lacking.reason


async def test_refused_credentials(server: KubeApiServer, tmp_path: Path) -> None:
    commands = commands_of(server, tmp_path)
    server.token = "another"  # noqa: S105 -- a test's
    refused = await commands.run("status", "delay", *HERE)
    assert refused.code == 1
    assert refused.reason.endswith("refuses these credentials; log in again, or choose another --context")


async def test_nobody_listens(server: KubeApiServer, tmp_path: Path) -> None:
    file = server.kubeconfig(tmp_path)
    document = yaml.safe_load(file.read_text())
    document["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    file.write_text(yaml.safe_dump(document))
    silent = await Commands(file).run("status", "delay", *HERE)
    assert silent.code == 1
    assert silent.reason.startswith("error: the Kubernetes API at http://127.0.0.1:9 does not answer (")
    assert "check that it is up, and that --context and KUBECONFIG name the right one" in silent.reason


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"- a\n", "it is a list, not a mapping"),
        (b"a: [", "while parsing"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"kind: Config\n", "Expected key current-context"),
        (b"contexts: [a]\ncurrent-context: a\n", "cannot be read"),
        (b"contexts: [{name: a, context: {cluster: c}}]\ncurrent-context: a\n", "Expected"),
        (WITHOUT_ITS_TOKEN, "/no"),
    ],
)
def test_a_broken_kubeconfig_is_named_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str
) -> None:
    file = tmp_path / "broken"
    file.write_bytes(content)
    for words in (*((*words, *HERE) for words in (EACH[0], EACH[3])), ("doctor",)):
        given = here(*words, "--kubeconfig", str(file))
        monkeypatch.setenv("KUBECONFIG", str(file))
        meant = here(*words)
        monkeypatch.delenv("KUBECONFIG")
        for ran in (given, meant):
            assert (ran.code, ran.reason.startswith("error: "), ran.out) == (2, True, ""), ran
            assert str(file) in ran.reason
            assert why in ran.reason
            assert "--kubeconfig FILE" in ran.reason


async def test_of_several_kubeconfigs_the_broken_one_is_named(
    server: KubeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, absent, broken = server.kubeconfig(tmp_path), tmp_path / "absent", tmp_path / "broken"
    monkeypatch.setenv("KUBECONFIG", f"{good}:{absent}")
    assert (await asyncio.to_thread(here, "status", *HERE)).code == 0
    broken.touch()
    monkeypatch.setenv("KUBECONFIG", f"{good}:{broken}")
    refused = await asyncio.to_thread(here, "status", *HERE)
    expected = f"error: the kubeconfig {broken} cannot be read (it is empty); give --kubeconfig FILE, or set KUBECONFIG"
    assert (refused.code, refused.reason) == (2, expected)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pod's service account; nothing else says which cluster is meant."""
    folder = tmp_path / "account"
    folder.mkdir()
    for file, text in {"token": "of-the-pod", "ca.crt": "CA", "namespace": "runners\n"}.items():
        (folder / file).write_text(text)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return folder


async def test_in_a_pod_its_own_cluster_is_meant_only_where_nothing_else_is_said(
    server: KubeApiServer, tmp_path: Path, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def meant(context: str | None = None, kubeconfig: Path | None = None) -> tuple[str, str]:
        connection, namespace = await connected(Cluster("", context, kubeconfig), pod)
        return connection.configuration.host, namespace

    own, other = ("https://10.0.0.1:443", "runners"), (server.url, "default")
    assert await meant() == own
    with pytest.raises(ContextUnknown, match="no kubeconfig at"):
        await meant("memory")
    file = server.kubeconfig(tmp_path)
    assert await meant(kubeconfig=file) == other
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert await meant() == other
    assert await meant("memory") == other
    with pytest.raises(ContextUnknown, match="prod is not in the kubeconfig"):
        await meant("prod")
    monkeypatch.delenv("KUBECONFIG")
    (tmp_path / ".kube").mkdir()
    file.rename(tmp_path / ".kube/config")
    assert await meant() == other
    assert (await connect(service_account=pod)).configuration.host == own[0]


async def test_contexts_and_kubeconfigs_that_are_not_there(server: KubeApiServer, tmp_path: Path) -> None:
    unknown = await commands_of(server, tmp_path).run("status", *HERE, "--context", "prod")
    assert (unknown.code, unknown.reason) == (2, "error: --context: prod is not in the kubeconfig; it has memory")
    assert await commands_of(server, tmp_path).run("doctor", "--context", "prod") == unknown
    absent = await Commands(tmp_path / "none").run("status", *HERE)
    assert (absent.code, "no kubeconfig at" in absent.reason) == (2, True)
    (tmp_path / "broken").write_text("a: [")
    endless = await Commands(tmp_path / ("k" * 5000)).run("status", *HERE)
    assert (endless.code, "File name too long" in endless.reason) == (2, True)
    broken = await Commands(tmp_path / "broken").run("status", *HERE)
    assert (broken.code, "cannot be read" in broken.reason) == (2, True)
    for words in (("--context", "memory"), ("--kubeconfig", "x")):
        halves = here("pause", "delay", *words)
        assert (halves.code, halves.reason) == (
            2,
            f"error: {words[0]}: give --namespace, too, for a deployment in a cluster",
        )
    both = here("status", "delay", "-A")
    assert (both.code, "--all-namespaces: a NAME is given too" in both.reason) == (2, True)
