"""``kubectl fairlead``: found by the real kubectl, at work where the kubeconfig says, without a cluster of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from fairlead_operator.cli_kubectl import offered, plugin
from support.commands import commands_of
from support.kube import KubeApiServer
from support.operators import CRD, model_deployment

BIN = Path(sys.executable).parent
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")


@pytest.fixture
async def server() -> AsyncIterator[KubeApiServer]:
    async with KubeApiServer(namespaces=["flights", "taxis"]) as server:
        server.load(CRD)
        server.create(model_deployment("delay", "flights"))
        server.create(model_deployment("tip", "taxis"))
        yield server


def at_home_in(kubeconfig: Path, namespace: str) -> None:
    """Have the kubeconfig's context name a namespace."""
    document = yaml.safe_load(kubeconfig.read_text())
    document["contexts"][0]["context"]["namespace"] = namespace
    kubeconfig.write_text(yaml.safe_dump(document))


def kubectl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert KUBECTL
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")}
    command = [KUBECTL, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


async def test_the_kubeconfigs_namespace_is_meant_unless_another_is_named(
    server: KubeApiServer, tmp_path: Path
) -> None:
    commands = commands_of(server, tmp_path)
    at_home_in(commands.kubeconfig, "taxis")
    shown = await commands.kubectl("status", "-o", "json")
    assert [one["metadata"]["name"] for one in json.loads(shown.out)["items"]] == ["tip"]
    assert "flights/delay" in (await commands.kubectl("status", "delay", "-n", "flights")).out
    everywhere = await commands.kubectl("status", "-A", "-o", "json")
    assert [one["metadata"]["name"] for one in json.loads(everywhere.out)["items"]] == ["delay", "tip"]
    assert (await commands.kubectl("pause", "tip")).code == 0
    live = server.get("ModelDeployment", "taxis", "tip")
    assert live
    assert live["metadata"]["annotations"] == {"serving.fairlead.dev/paused": "true"}
    upgraded = await commands.kubectl("upgrade", "tip", "--to", "0.2.0", "--context", "memory")
    assert upgraded.code == 0, upgraded


async def test_a_context_without_a_namespace_means_default(server: KubeApiServer, tmp_path: Path) -> None:
    commands = commands_of(server, tmp_path)
    absent = await commands.kubectl("abort", "delay")
    assert absent.reason.startswith("error: no ModelDeployment default/delay in this cluster")


async def test_the_doctor_looks_everywhere_and_for_a_name_in_the_kubeconfigs_namespace(
    server: KubeApiServer, tmp_path: Path
) -> None:
    commands = commands_of(server, tmp_path)
    at_home_in(commands.kubeconfig, "taxis")

    async def subjects(*words: str) -> set[str]:
        ran = await commands.kubectl("doctor", *words, "-o", "json")
        found = json.loads(ran.out)["findings"]
        return {one["subject"] for one in found if one["area"] == "ModelDeployments"}

    everywhere, one, named = await subjects(), await subjects("tip"), await subjects("delay", "-n", "flights")
    assert {"taxis/tip", "flights/delay"} <= everywhere
    assert (one, named) == ({"taxis/tip"}, {"flights/delay"})
    halves = await commands.run("doctor", "tip")
    assert (halves.code, halves.reason) == (2, "error: NAME: give --namespace, too")


def test_its_help_is_about_clusters_alone() -> None:
    command = plugin()
    assert "up" not in command.commands
    for name, verb in command.commands.items():
        assert f"Example: kubectl fairlead {name}" in verb.help
        shown = {option for one in verb.params if not getattr(one, "hidden", False) for option in one.opts}
        assert {"--namespace", "-n", "--context", "--kubeconfig"} <= shown, name
        assert "--state" not in shown


def test_verbs_and_options_are_offered_with_what_they_are() -> None:
    verbs = offered([], "p")
    assert [line.partition("\t")[0] for line in verbs] == ["predict", "pause", "promote", ":4"]
    assert all("\t" in line for line in verbs[:-1])
    assert offered(["status", "-o"], "") == ["table", "json", "yaml", ":4"]
    assert offered(["upgrade", "-f"], "m") == [":0"]


@needs_kubectl
async def test_kubectl_finds_the_plugin_and_runs_it(server: KubeApiServer, tmp_path: Path) -> None:
    at_home_in(server.kubeconfig(tmp_path), "flights")
    listed = await asyncio.to_thread(kubectl, tmp_path, "plugin", "list")
    assert str(BIN / "kubectl-fairlead") in listed.stdout.splitlines()
    shown = await asyncio.to_thread(kubectl, tmp_path, "fairlead", "status", "delay")
    assert (shown.returncode, "flights/delay" in shown.stdout) == (0, True), shown.stderr
    wrong = await asyncio.to_thread(kubectl, tmp_path, "fairlead", "status", "none")
    assert (wrong.returncode, "error: no ModelDeployment flights/none" in wrong.stderr) == (1, True)


@needs_kubectl
async def test_kubectl_asks_the_plugin_what_to_offer(server: KubeApiServer, tmp_path: Path) -> None:
    at_home_in(server.kubeconfig(tmp_path), "flights")
    names = await asyncio.to_thread(kubectl, tmp_path, "__complete", "fairlead", "status", "")
    assert names.stdout.splitlines() == ["delay", ":4"], names.stderr
    variants = await asyncio.to_thread(kubectl, tmp_path, "__complete", "fairlead", "promote", "tip", "-n", "taxis", "")
    assert variants.stdout.splitlines() == ["logistic\tControl", ":4"], variants.stderr
