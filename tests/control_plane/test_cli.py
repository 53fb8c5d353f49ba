"""The commands: what they print, and how they fail."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import typer

from fairlead import Layout, assign, bucket_of
from fairlead.cli.errors import CommandError, reporting
from fairlead.cli.main import application
from fairlead_operator.errors import GatewayError, ManifestError, OperatorError
from support import figures
from support.commands import here
from support.envoy import ManifestFile

SALT = "flights/arrival-delay/e1"


def fairlead(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    with chdir(folder):
        ran = here(*arguments, given=stdin)
    return subprocess.CompletedProcess(arguments, ran.code, ran.out, ran.err)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    ManifestFile.make(folder)
    (folder / "a-file").touch()
    return folder


COMMANDS = sorted(typer.main.get_command(application()).commands)  # type: ignore[attr-defined]  # it is a group


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(folder: Path, command: str) -> None:
    done = fairlead(folder, command, "--help")
    assert done.returncode == 0
    assert f"Example: fairlead {command}" in done.stdout or f"usage: fairlead {command}" in done.stdout


def test_the_program_starts_quickly_and_says_what_it_can_do(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "fairlead.cli.main", "--help"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures.note("help", cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    heavy = {"aiohttp", "kubernetes", "onnx", "numpy", "httpx", "yaml"}
    listed = "import sys, fairlead.cli.main as m; m.application(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True, timeout=120)
    assert heavy & set(loaded.stdout.split()) == set()


def test_assign_computes_bucket_and_arm_from_arguments_and_from_stdin(folder: Path) -> None:
    units = ["N14228", "Zürich", "a b"]
    layout = Layout.of("logistic", {"boosted": 5000})
    rows = [f"{unit}\t{bucket_of(unit, SALT)}\t{assign(unit, SALT, layout)}" for unit in units]
    assert fairlead(folder, "assign", "-f", "modeldeployment.yaml", *units).stdout.splitlines() == rows
    piped = fairlead(folder, "assign", "-f", "modeldeployment.yaml", stdin="\n".join(units))
    assert piped.stdout.splitlines() == rows
    told = json.loads(fairlead(folder, "assign", "-f", "modeldeployment.yaml", "-o", "json", *units).stdout)
    assert (told["salt"], [row["unit"] for row in told["assignments"]]) == (SALT, units)


def test_assign_takes_the_weights_of_a_step_the_last_one_if_none_is_named(tmp_path: Path) -> None:
    steps = [{"weights": {"boosted": 10}, "hold": "1h"}, {"weights": {"boosted": 50}}]
    rollout = {"strategy": "Experiment", "steps": steps}
    ManifestFile.make(tmp_path, routing={"unit": {"header": "x-unit-id"}}, rollout=rollout)
    unit = next(f"N{n}" for n in range(1000) if 1000 <= bucket_of(f"N{n}", SALT) < 5000)
    for words, arm in (([], "boosted"), (["--step", "2"], "boosted"), (["--step", "1"], "logistic")):
        said = fairlead(tmp_path, "assign", "-f", "modeldeployment.yaml", *words, unit).stdout
        assert said.split() == [unit, str(bucket_of(unit, SALT)), arm]
    refused = fairlead(tmp_path, "assign", "-f", "modeldeployment.yaml", "--step", "3", unit)
    assert refused.returncode == 2
    assert "--step: the manifest has 2 steps" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "-f", "none.yaml"], "none.yaml: cannot be read"),
        (["assign", "-f", "none.yaml", "u"], "none.yaml: cannot be read"),
        (["assign", "-f", "modeldeployment.yaml", "a,b"], "UNIT: 'a,b' is none: give 1 to 256 bytes"),
        (["assign", "-f", "modeldeployment.yaml", "ü" * 129], "UNIT: "),
        (["predict", "--data", "{}"], "--file: give -f FILE, or --url and --model"),
        (["predict", "-f", "modeldeployment.yaml", "--data", "{"], "--data: is not JSON"),
        (["predict", "-f", "modeldeployment.yaml", "--data", "[1]"], "--data: must be an instance"),
        (["predict", "-f", "modeldeployment.yaml", "--data", "@none.json"], "--data: none.json cannot be read"),
        (["predict", "-f", "modeldeployment.yaml", "--data", '{"a":1}', "--unit-from", "b"], "instance 0 has no b"),
        (["predict", "-f", "modeldeployment.yaml", "--data", "{}", "--unit", "a,b"], "--unit: 'a,b' is none: give 1"),
        (["predict", "-f", "modeldeployment.yaml", "--data", "{}", "--unit", ""], "--unit: '' is none"),
        (
            ["predict", "-f", "modeldeployment.yaml", "--data", '[{"b":"u"},{"b":null}]', "--unit-from", "b"],
            "--unit-from: instance 1 has null for b; give a string or a number",
        ),
        (
            ["predict", "-f", "modeldeployment.yaml", "--data", '{"b":{"c":1}}', "--unit-from", "b"],
            'instance 0 has {"c": 1} for b',
        ),
        (
            ["predict", "-f", "modeldeployment.yaml", "--data", '{"b":"\\ud800"}', "--unit-from", "b"],
            "--unit-from: b of instance 0: '\\ud800' is none",
        ),
        (["predict", "-f", "modeldeployment.yaml", "--data", "{}", "--unit", "a", "--unit-from", "b"], "--unit-from: "),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], says: str) -> None:
    done = fairlead(folder, *arguments)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "-f", "modeldeployment.yaml", "--state", "/proc/x"], "--state: /proc/x cannot be written"),
        (["up", "-f", "modeldeployment.yaml", "--state", "a-file/x"], "a-file/x cannot be written (Not a directory)"),
        (["status"], ".fairlead: no deployment here"),
        (["predict", "--url", "http://127.0.0.1:9", "--model", "m", "--data", "{}"], "is `fairlead up` running?"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(folder: Path, arguments: list[str], says: str) -> None:
    done = fairlead(folder, *arguments)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_a_status_of_an_ended_run_is_shown_and_said_to_be_over(folder: Path) -> None:
    state = folder / "ended/arrival-delay"
    state.mkdir(parents=True)
    document = {"kind": "ModelDeployment", "metadata": {"name": "arrival-delay"}, "status": {}}
    (state / "status.json").write_text(json.dumps(document))
    done = fairlead(folder, "status", "--state", "ended", "-o", "json")
    assert json.loads(done.stdout) == document
    assert done.returncode == 1
    assert "`fairlead up` is not running" in done.stderr


def test_an_errors_own_exit_code_is_kept() -> None:
    with pytest.raises(CommandError) as caught, reporting(OperatorError):
        raise ManifestError(source="m.yaml", line=3, field="spec", message="is wrong")
    assert (str(caught.value), caught.value.exit_code) == ("m.yaml:3: spec: is wrong", 2)
    with pytest.raises(CommandError) as caught, reporting(OperatorError):
        raise GatewayError("Envoy ended")
    assert caught.value.exit_code == 1
