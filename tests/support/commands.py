"""Commands of ``fairlead`` and ``kubectl fairlead``, run in this process beside a server of its own."""

from __future__ import annotations

import asyncio
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead.cli.main import application, run
from fairlead_operator.cli_kubectl import plugin
from fairlead_operator.cli_options import KUBECTL
from support.kube import KubeApiServer


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The one line that says why it failed."""
        (line,) = self.err.splitlines()
        return line


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands against a server in memory."""

    kubeconfig: Path

    async def run(self, *arguments: str, given: str = "") -> Ran:
        """Run ``fairlead``; the kubeconfig is added."""
        return await asyncio.to_thread(here, *arguments, "--kubeconfig", str(self.kubeconfig), given=given)

    async def kubectl(self, *arguments: str, given: str = "") -> Ran:
        """Run ``kubectl fairlead``; the kubeconfig is added."""
        words = [*arguments, "--kubeconfig", str(self.kubeconfig)]
        return await asyncio.to_thread(_ran, plugin(), words, given, obj=KUBECTL)


def commands_of(server: KubeApiServer, folder: Path) -> Commands:
    """Return what runs commands against ``server``."""
    return Commands(server.kubeconfig(folder))


def here(*arguments: str, given: str = "") -> Ran:
    """Run ``fairlead``."""
    return _ran(application(), list(arguments), given)


def _ran(app: Any, words: list[str], given: str, **more: Any) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(given))
        try:
            run(app, args=words, prog_name="fairlead", **more)
        except SystemExit as end:
            code = end.code
    return Ran(int(code or 0), out.getvalue(), err.getvalue())
