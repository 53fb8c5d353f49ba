"""An image is built anew exactly when something that it is made from has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fairlead_images.building import build
from fairlead_images.errors import ImageError
from fairlead_images.layout import Layout, entry, files, key, layout
from fairlead_images.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
CODE = {
    "server": "model_server/src/fairlead_server/app.py",
    "operator": "operator/src/fairlead_operator/handlers.py",
    "sdk": "sdk/src/fairlead/contract.py",
    "ledger": "ledger/src/fairlead_ledger/errors.py",
    "flights": "examples/flights/src/flights/demo.py",
}
MADE = {"build", "feature_repo"}
"""Folders of what the example has built, if it has."""
NAMES = [name for name, recipe in RECIPES.items() if recipe.released]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what images are made from."""
    copy = tmp_path / "checkout"
    for path in {path for recipe in RECIPES.values() for path in files(recipe, ROOT)}:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.relative_to(ROOT).parts[0] in MADE:
            target.write_text("stands for what `make train` leaves behind\n")
        else:
            shutil.copy2(path, target)
    return copy


def _keys(root: Path) -> dict[str, str]:
    return {name: key(RECIPES[name], root) for name in NAMES}


def _changed(root: Path, change: Callable[[], object]) -> set[str]:
    before = _keys(root)
    change()
    return {name for name, was in before.items() if key(RECIPES[name], root) != was}


@pytest.mark.parametrize(
    ("part", "rebuilt"),
    [
        ("server", {"server"}),
        ("operator", {"operator"}),
        ("ledger", {"ledger"}),
        ("sdk", {"server", "operator", "ledger", "flights"}),
        ("flights", {"flights"}),
    ],
)
def test_a_change_of_code_changes_the_images_that_have_it(checkout: Path, part: str, rebuilt: set[str]) -> None:
    assert _changed(checkout, lambda: (checkout / CODE[part]).write_text("# changed\n")) == rebuilt


@pytest.mark.parametrize(
    "name", ["tests/new.py", "docs/new.md", "sdk/src/fairlead/__pycache__/contract.pyc", "README.md"]
)
def test_what_no_image_has_changes_none(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    assert _changed(checkout, lambda: (checkout / name).write_text("changed\n")) == set()


def test_a_new_file_of_a_package_changes_its_image(checkout: Path) -> None:
    assert _changed(checkout, (checkout / "model_server/src/fairlead_server/new.py").touch) == {"server"}


def test_another_base_changes_all(checkout: Path) -> None:
    listed = checkout / "tools/images/debian.toml"
    assert _changed(checkout, lambda: listed.write_text(f"{listed.read_text()}\n# changed\n")) == set(NAMES)


def test_other_pins_change_the_image_that_installs_them(checkout: Path) -> None:
    pins = checkout / "requirements/server.txt"
    assert _changed(checkout, lambda: pins.write_text(f"{pins.read_text()}\n# changed\n")) == {"server"}


def test_when_a_file_was_written_changes_nothing(checkout: Path) -> None:
    assert _changed(checkout, lambda: os.utime(checkout / CODE["sdk"], (1, 1))) == set()


def test_another_checkout_has_the_same_keys(checkout: Path) -> None:
    of_code = [name for name in NAMES if not RECIPES[name].made_by]
    assert {name: key(RECIPES[name], ROOT) for name in of_code}.items() <= _keys(checkout).items()


def test_images_in_the_cache_need_nothing_of_the_machine(checkout: Path, tmp_path: Path) -> None:
    at = Layout(checkout, tmp_path / "cache")
    made = entry(RECIPES["operator"], at)
    made.folder.mkdir(parents=True)
    made.archive.touch()
    steps: list[object] = []
    assert build(["operator"], at, steps.append) == [made]
    assert not steps


def test_a_missing_model_says_what_makes_it(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / "build", ignore_errors=True)
    with pytest.raises(
        ImageError, match=r"flights: build/flights/models/\*\.onnx: no such file; `make train` makes it"
    ):
        build(["flights"], Layout(checkout, tmp_path / "cache"), lambda _: None)


def test_the_cache_follows_the_environment(tmp_path: Path) -> None:
    assert layout(ROOT, {"XDG_CACHE_HOME": str(tmp_path)}).cache == tmp_path / "fairlead/images"


def test_list_builds_nothing_and_is_json(tmp_path: Path) -> None:
    command = [sys.executable, "tools/images", "list", "--json"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(listed.stdout) == {}
    assert not list(tmp_path.iterdir())


def test_without_its_programs_a_build_says_which_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "tools/images", "build", "base"]
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    failed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "buildah" in failed.stderr
    assert "make setup" in failed.stderr
    assert "Traceback" not in failed.stderr
