"""Commands that cannot reach a cluster, or may not: one sentence with the fix, and a code for scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

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


async def test_contexts_and_kubeconfigs_that_are_not_there(server: KubeApiServer, tmp_path: Path) -> None:
    unknown = await commands_of(server, tmp_path).run("status", *HERE, "--context", "prod")
    assert (unknown.code, unknown.reason) == (2, "error: --context: prod is not in the kubeconfig; it has memory")
    absent = await Commands(tmp_path / "none").run("status", *HERE)
    assert (absent.code, "no kubeconfig at" in absent.reason) == (2, True)
    (tmp_path / "broken").write_text("a: [")
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
