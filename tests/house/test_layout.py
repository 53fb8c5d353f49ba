"""The layout keeps its promises."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_operator_folder_does_not_hide_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.add(1, 2))"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "3\n"
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not list((ROOT / "operator").glob("test*"))


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    heavy = "{'feast', 'onnx', 'sklearn', 'pandas', 'kserve', 'typer'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import fairlead, sys; print({heavy} & set(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "set()\n"


def test_the_server_and_the_operator_never_import_each_other() -> None:
    for package, other in (("model_server", "fairlead_operator"), ("operator", "fairlead_server")):
        for path in (ROOT / package / "src").rglob("*.py"):
            assert f"import {other}" not in path.read_text(), path
            assert f"from {other}" not in path.read_text(), path


def test_the_core_imports_only_the_standard_library_pydantic_and_fairlead() -> None:
    allowed = set(sys.stdlib_module_names) | {"pydantic", "fairlead", "fairlead_operator"}
    for path in (ROOT / "operator/src/fairlead_operator/core").glob("*.py"):
        lines = (line.split() for line in path.read_text().splitlines())
        imported = {words[1].split(".")[0] for words in lines if words[:1] in (["from"], ["import"])}
        assert imported <= allowed, path


def test_make_alone_lists_its_targets() -> None:
    done = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)
    for target in ("setup", "demo", "test", "check", "bench", "clean"):
        assert f"make {target} " in done.stdout


def test_pinned_requirements_carry_hashes_and_no_addresses() -> None:
    pinned = (ROOT / "requirements/all.txt").read_text()
    requirements = [line for line in pinned.splitlines() if "==" in line and not line.startswith(" ")]
    assert len(requirements) > 100
    assert all(line.endswith("\\") for line in requirements)
    assert "://" not in pinned
