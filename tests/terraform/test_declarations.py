"""Every variable and output is typed and described, and what may vary is equal in all environments."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "terraform"
PARTS = sorted(path.parent for pattern in ("modules", "environments") for path in SOURCE.glob(f"{pattern}/*/main.tf"))

part = pytest.mark.parametrize("part", PARTS, ids=lambda folder: folder.name)


@pytest.fixture(name="declared")
def _declared(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "terraform"))
    return importlib.import_module("fairlead_terraform.declared")


@part
def test_variables_and_outputs_are_described_typed_and_in_order(part: Path, declared: Any) -> None:
    module = declared.read(part)
    assert all(one.description.endswith((".", ")")) for one in (*module.variables, *module.outputs))
    assert all(one.type for one in module.variables)
    assert [one.name for one in module.outputs] == sorted(one.name for one in module.outputs)
    assert module.description


@part
def test_nothing_but_the_aws_provider_of_the_pinned_major_is_needed(part: Path) -> None:
    assert (part / "versions.tf").read_text() == (SOURCE / "modules/platform/versions.tf").read_text()
    sources = [
        line.split('"')[1] for line in (part / "main.tf").read_text().splitlines() if line.startswith("  source ")
    ]
    assert all(source.startswith("../") for source in sources)


def test_each_part_has_tests() -> None:
    assert [folder.name for folder in PARTS if not list(folder.glob("tests/*.tftest.hcl"))] == []


@pytest.mark.parametrize("name", ["variables.tf", "outputs.tf", "terraform.tfvars.example"])
def test_environments_differ_in_sizes_alone(name: str) -> None:
    assert len({path.read_text() for path in SOURCE.glob(f"environments/*/{name}")}) == 1


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_the_example_names_every_variable(environment: str, declared: Any) -> None:
    folder = SOURCE / "environments" / environment
    example = (folder / "terraform.tfvars.example").read_text()
    assert [one.name for one in declared.read(folder).variables if f"\n{one.name} " not in example] == []


def test_types_and_defaults_of_several_lines_come_on_one(declared: Any, tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text("# A thing,\n# described.\n\nlocals {}\n")
    (tmp_path / "outputs.tf").write_text("")
    (tmp_path / "variables.tf").write_text(
        'variable "sizes" {\n  description = "Sizes."\n'
        "  type = map(object({\n    least = number\n    most  = optional(number)\n  }))\n"
        "  default = {}\n}\n"
    )
    module = declared.read(tmp_path)
    assert module.description == "A thing,\ndescribed."
    assert module.variables[0].type == "map(object({ least = number, most = optional(number) }))"
    assert module.variables[0].default == "{}"
