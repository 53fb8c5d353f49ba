"""Completion as shells do it: real ones, with the script that ``fairlead completion`` prints."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_operator.cli_kubectl import offered as offered_to_kubectl
from support.cluster_world import alone, experiment, manual
from support.commands import here
from support.kube import KubeApiServer
from support.kube.faults import Hang
from support.operators import CRD

BIN = Path(sys.executable).parent
BASH = """
source <(fairlead completion bash)
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
"$(complete -p fairlead | sed 's/.*-F \\([^ ]*\\).*/\\1/')" fairlead
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -d {folder}/zcompdump
source <(fairlead completion zsh)
_arguments() {{ print -rl -- "$@" }}
_files() {{ print -r -- FILES }}
words=({words}); CURRENT=${{#words}}
_fairlead_completion
"""
FISH = """
fairlead completion fish | source
complete --do-complete={line}
"""
SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed"))
    for shell in ("bash", "zsh", "fish")
]


@pytest.fixture
async def server() -> AsyncIterator[KubeApiServer]:
    async with KubeApiServer(namespaces=["flights", "taxis"]) as server:
        server.load(CRD)
        for made in (experiment(experiment={"id": "e1"}), alone("detour"), manual(name="late")):
            server.create(made)
        yield server


async def offered(shell: str, folder: Path, *words: str, kubeconfig: Path | None = None) -> list[str]:
    """Return what a shell offers for the last of ``words``, in its order."""
    quoted = " ".join(f"'{word}'" for word in words)
    scripts = {
        "bash": BASH.format(words=quoted),
        "zsh": ZSH.format(words=quoted, folder=folder),
        "fish": FISH.format(line=f"'{' '.join(words)}'"),
    }
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(kubeconfig or folder / "none"),
        "LC_ALL": "C.UTF-8",
    }
    command = {"bash": ["bash", "--norc"], "zsh": ["zsh", "-f"], "fish": ["fish", "--no-config"]}[shell]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "-c", scripts[shell]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stderr == ""
    if shell == "zsh":
        return re.findall(r'(?<!:)"([^"]+)"', done.stdout)  # what follows a colon is said of it
    return [line.partition("\t")[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", SHELLS)
async def test_names_come_from_the_cluster(shell: str, server: KubeApiServer, tmp_path: Path) -> None:
    config = server.kubeconfig(tmp_path)
    names = await offered(shell, tmp_path, "fairlead", "status", "-n", "flights", "de", kubeconfig=config)
    assert names == ["delay", "detour"]
    variants = await offered(shell, tmp_path, "fairlead", "promote", "-n", "flights", "delay", "b", kubeconfig=config)
    assert variants == ["boosted"]


async def test_namespaces_contexts_and_verbs_are_completed(server: KubeApiServer, tmp_path: Path) -> None:
    config = server.kubeconfig(tmp_path)
    assert await beside(config, "abort", "-n", incomplete="t") == ["taxis"]
    assert await beside(config, "abort", "--context") == ["memory"]
    assert await beside(config, "assign", "-n", "flights", incomplete="l") == ["late"]
    assert await beside(config, "assign", "-n", "flights", "late") == []
    assert await offered("bash", tmp_path, "fairlead", "up") == ["up", "upgrade"]


async def test_what_cannot_be_known_is_left_out_silently_and_soon(server: KubeApiServer, tmp_path: Path) -> None:
    assert await offered("bash", tmp_path, "fairlead", "status", "-n", "flights", "d") == []
    words = ("status", "-n", "flights")
    config = server.kubeconfig(tmp_path)
    server.token = "another"  # noqa: S105 -- a test's
    assert await beside(config, *words) == []
    server.token = ""
    server.faults.inject(Hang(), times=9)
    assert await beside(config, *words) == []
    server.faults.clear()
    assert await beside(config, *words) == ["delay", "detour", "late"]


async def beside(kubeconfig: Path, verb: str, *words: str, incomplete: str = "") -> list[str]:
    """Return what is offered after ``kubectl fairlead VERB WORDS…``, in this process."""
    typed = [verb, "--kubeconfig", str(kubeconfig), *words]
    *lines, _ = await asyncio.to_thread(offered_to_kubectl, typed, incomplete)
    return [line.partition("\t")[0] for line in lines]


async def test_names_of_one_machine_come_from_its_state(tmp_path: Path) -> None:
    for name in ("delay", "late"):
        (tmp_path / ".fairlead" / name).mkdir(parents=True)
    (tmp_path / ".fairlead/delay/status.json").write_text(
        '{"spec": {"variants": [{"name": "logistic", "role": "Control"}]}}'
    )
    (tmp_path / ".fairlead/late/status.json").write_text("damaged")
    assert await offered("bash", tmp_path, "fairlead", "pause", "") == ["delay"]
    assert await offered("bash", tmp_path, "fairlead", "promote", "delay", "") == ["logistic"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_of_its_own(shell: str) -> None:
    script = here("completion", shell)
    assert (script.code, f"_FAIRLEAD_COMPLETE=complete_{shell}" in script.out) == (0, True)
