"""Format, validate and test what is in ``terraform/``, with a mocked provider: nothing on AWS is asked or made."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .declared import parts
from .workspace import TerraformFailed, Workspace, open_workspace

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "terraform"
_AT_A_TIME = 2


@dataclass(frozen=True, slots=True)
class Tested:
    """What became of one part.

    Attributes:
        part: Its folder below ``terraform/``.
        runs: Names of the runs that passed.
        problems: What failed, in Terraform's words.
        outputs: Values of the part's outputs after its first run, where Terraform was asked to be verbose.
        took_s: How long it took, in seconds.
    """

    part: str
    runs: tuple[str, ...]
    problems: tuple[str, ...]
    outputs: dict[str, Any]
    took_s: float


def main(arguments: Sequence[str]) -> int:
    """Check all parts, or some; return the exit code."""
    asked = _parser().parse_args(arguments)
    if shutil.which("terraform") is None:
        print("terraform: SKIPPED, nothing was looked at: there is no `terraform` on PATH (1.11 or later is needed)")
        return 1 if os.environ.get("FAIRLEAD_CI") else 0
    try:
        with tempfile.TemporaryDirectory(prefix="fairlead-terraform-") as folder:
            return _check(asked.parts or _all_parts(), Path(folder), asked.outputs)
    except TerraformFailed as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/terraform", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[[], *_all_parts()], help="as modules/network; all")
    parser.add_argument("--outputs", type=Path, metavar="FILE", help="write the outputs of each part's first run: JSON")
    return parser


def _all_parts() -> list[str]:
    return [str(folder.relative_to(SOURCE)) for folder in parts(SOURCE)]


def _check(chosen: list[str], folder: Path, outputs: Path | None) -> int:
    unformatted = _unformatted()
    workspace = open_workspace(SOURCE, folder, chosen)
    print(f"terraform: provider from {workspace.source}")
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        results = pool.map(lambda part: _test(workspace, part, verbose=outputs is not None), chosen)
        tested = list(_reported(results))
    if outputs:
        outputs.write_text(json.dumps({one.part: one.outputs for one in tested}), encoding="utf-8")
    for name in unformatted:
        print(f"{name}: not formatted; run `terraform fmt -recursive terraform`")
    failed = sum(bool(one.problems) for one in tested)
    runs = sum(len(one.runs) for one in tested)
    print(f"terraform: {len(tested)} parts, {runs} runs passed, {failed} parts failed")
    return 1 if failed or unformatted else 0


def _unformatted() -> list[str]:
    command = ["terraform", "fmt", "-check", "-recursive", "-list=true", "."]
    environ = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    done = subprocess.run(command, cwd=SOURCE, env=environ, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise TerraformFailed(done.stderr)
    return done.stdout.split()


def _reported(results: Iterator[Tested]) -> Iterator[Tested]:
    for one in results:
        verdict = "FAILED" if one.problems else f"valid, {len(one.runs)} runs passed"
        print(f"  {one.part:32} {verdict} ({one.took_s:.1f} s)", *one.problems, sep="\n    ", flush=True)
        yield one


def _test(workspace: Workspace, part: str, *, verbose: bool) -> Tested:
    began = time.monotonic()
    try:
        workspace.run(part, "validate", "-no-color")
        printed = workspace.run(part, "test", "-json", *(["-verbose"] if verbose else []))
        problems: tuple[str, ...] = ()
    except TerraformFailed as error:
        printed = str(error)
        problems = tuple(_diagnostics(printed)) or (printed,)
    messages = list(_messages(printed))
    return Tested(
        part=part,
        runs=tuple(_passed(messages)),
        problems=problems,
        outputs=_outputs(messages),
        took_s=time.monotonic() - began,
    )


def _messages(printed: str) -> Iterator[dict[str, Any]]:
    for line in printed.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _passed(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        run = message.get("test_run", {})
        if run.get("progress") == "complete" and run.get("status") == "pass":
            yield run["run"]


def _diagnostics(printed: str) -> Iterator[str]:
    for message in _messages(printed):
        told = message.get("diagnostic")
        if told and told["severity"] == "error":
            place = told.get("range") or {"filename": "", "start": {"line": 0}}
            yield f"{place['filename']}:{place['start']['line']}: {told['summary']}: {told['detail']}"


def _outputs(messages: list[dict[str, Any]]) -> dict[str, Any]:
    states: Iterator[dict[str, Any]] = (message["test_state"] for message in messages if "test_state" in message)
    first: dict[str, Any] = next(states, {}).get("outputs", {})
    return {name: output["value"] for name, output in first.items()}
