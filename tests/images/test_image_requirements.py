"""What images install is what is tested: the same versions as requirements/all.txt, by hash."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from fairlead_images import sbom
from fairlead_images.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
ALL = ROOT / "requirements/all.txt"
LISTS = sorted({file for recipe in RECIPES.values() for file in recipe.requirements})


def _names(file: str) -> set[str]:
    return {pin.partition("==")[0] for pin in sbom.pins([ROOT / file])}


@pytest.mark.parametrize("file", LISTS)
def test_versions_and_hashes_are_those_of_all_requirements(file: str) -> None:
    everything, listed = sbom.pins([ALL]), sbom.pins([ROOT / file])
    assert listed
    for pin, hashes in listed.items():
        assert pin in everything, f"{file}: {pin} is not what tests run with; `make lock`"
        assert hashes
        assert set(hashes) <= set(everything[pin])


@pytest.mark.parametrize(
    ("file", "absent"),
    [
        (
            "requirements/server.txt",
            {"mypy", "dask", "duckdb", "ibis-framework", "pillow", "grpcio-tools", "setuptools"},
        ),
        ("requirements/server.txt", {"scikit-learn", "scipy", "onnx", "skl2onnx", "kopf", "pytest"}),
        ("requirements/operator.txt", {"feast", "onnxruntime", "kserve", "pyarrow", "pandas", "numpy", "mypy"}),
        ("requirements/ledger.txt", {"feast", "kserve", "kopf", "pandas", "pyarrow", "onnxruntime", "pytest", "mypy"}),
        ("requirements/flights.txt", {"mypy", "kserve", "kopf", "scikit-learn", "pytest"}),
    ],
)
def test_an_image_does_not_carry_what_it_never_imports(file: str, absent: set[str]) -> None:
    assert not _names(file) & absent


def test_whatever_is_said_to_be_left_out_is_not_installed() -> None:
    for rule in tomllib.loads((ROOT / "tools/images/left_out.toml").read_text())["requirements"]:
        for image in rule["images"]:
            assert not set(rule["name"].split(", ")) & _names(f"requirements/{image}.txt"), (rule["name"], image)


@pytest.mark.parametrize(
    ("image", "packages"),
    [
        ("server", ("sdk", "model_server")),
        ("operator", ("sdk", "operator")),
        ("ledger", ("sdk", "ledger")),
        ("flights", ("sdk", "examples/flights")),
    ],
)
def test_what_our_packages_ask_for_is_installed(image: str, packages: tuple[str, ...]) -> None:
    extras = {"server": {"cli"}, "operator": {"cli", "kubernetes"}, "ledger": set(), "flights": {"cli"}}[image]
    rules = tomllib.loads((ROOT / "tools/images/left_out.toml").read_text())["requirements"]
    without = {name for rule in rules if image in rule["images"] for name in rule["name"].split(", ")}
    for package in packages:
        project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
        asked = [
            *project["dependencies"],
            *(one for extra in extras for one in project.get("optional-dependencies", {}).get(extra, ())),
        ]
        for one in asked:
            name = sbom.normalized(
                "".join(letter for letter in one.split(";")[0].split("[")[0].split(">")[0].split("=")[0])
            )
            assert name.startswith("fairlead") or name in _names(f"requirements/{image}.txt") | without, (package, one)
