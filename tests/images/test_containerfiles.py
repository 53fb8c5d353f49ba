"""Every Containerfile keeps the rules of a restricted pod, and builds from pinned packages alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fairlead_images.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
USERS = {"gateway": "1337:1337"}
NAMES = [name for name, recipe in RECIPES.items() if recipe.released]
MADE_IN_STAGES = [name for name in NAMES if name != "base"]


def _instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / RECIPES[name].containerfile).read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def _last_stage(name: str) -> list[tuple[str, str]]:
    steps = _instructions(name)
    last = max(number for number, (word, _) in enumerate(steps) if word == "FROM")
    return steps[last:]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_a_numbered_user_that_is_not_root(name: str) -> None:
    users = [value for word, value in _last_stage(name) if word == "USER"]
    assert users == [USERS.get(name, "1000:1000")]


@pytest.mark.parametrize("name", NAMES)
def test_a_program_starts_without_a_shell(name: str) -> None:
    started = [value for word, value in _last_stage(name) if word in {"ENTRYPOINT", "CMD"}]
    assert started
    assert all(isinstance(json.loads(value), list) for value in started)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_what_it_is(name: str) -> None:
    told = " ".join(value for word, value in _last_stage(name) if word == "LABEL")
    for label in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{label}=" in told


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_added_from_elsewhere(name: str) -> None:
    assert "ADD" not in {word for word, _ in _instructions(name)}


@pytest.mark.parametrize("name", MADE_IN_STAGES)
def test_what_is_released_is_copied_from_stages_and_runs_nothing(name: str) -> None:
    assert "RUN" not in {word for word, _ in _last_stage(name)}
    assert _last_stage(name)[0] == ("FROM", "${BASE}")


@pytest.mark.parametrize("name", MADE_IN_STAGES)
def test_the_base_is_an_argument_with_a_public_default(name: str) -> None:
    before = dict(value.split("=", 1) for word, value in _instructions(name) if word == "ARG")
    assert before["BASE"].startswith("docker.io/library/")
    assert before["BUILD"] == "${BASE}"


@pytest.mark.parametrize("name", NAMES)
def test_packages_come_by_their_hash_or_from_the_checkout(name: str) -> None:
    installs = [
        part for word, run in _instructions(name) if word == "RUN" for part in run.split("&&") if " pip " in part
    ]
    for install in installs:
        assert "--no-deps" in install
        assert "--require-hashes" in install or "--no-index" in install


@pytest.mark.parametrize("name", NAMES)
def test_no_address_of_an_index_gets_into_an_image(name: str) -> None:
    assert "://" not in (ROOT / RECIPES[name].containerfile).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_copied_decides_the_key_and_is_in_the_context(name: str) -> None:
    recipe = RECIPES[name]
    if recipe.packages:
        return
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = [
        source
        for word, value in _instructions(name)
        if word == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    for source in copied:
        assert any(
            known.startswith(source) or source.startswith(known) for known in recipe.inputs + recipe.requirements
        )
        assert any(Path(source).match(one) or source.startswith(one) for one in allowed)
