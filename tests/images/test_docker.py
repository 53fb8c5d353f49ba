"""Which commands Docker is given; it is not there where this was written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fairlead_images import docker
from fairlead_images.errors import ImageError
from fairlead_images.recipes import RECIPES, reference

from e2e import kind

ROOT = Path(__file__).resolve().parents[2]


def test_an_image_is_built_from_its_containerfile_in_the_checkout() -> None:
    words = docker.command(RECIPES["operator"], ROOT)
    assert words[:4] == ["docker", "build", "--file", "operator/Containerfile"]
    assert words[words.index("--tag") + 1] == reference("operator", ROOT)
    assert words[-1] == "."
    assert "--build-arg" not in words, "bases and index are the public ones"


def test_docker_builds_what_kind_loads() -> None:
    assert docker.NAMES == kind.IMAGES
    assert all(reference(name, ROOT) in kind.load() for name in docker.NAMES)


def test_a_root_of_debian_packages_is_no_matter_for_docker() -> None:
    with pytest.raises(ImageError, match="base: Docker takes a public base"):
        docker.build(["base"], ROOT)


def test_without_docker_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "tools/images", "build", "--engine", "docker", "redis"]
    failed = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("images: docker: not on the PATH")


def test_docker_is_run_in_the_checkout_and_a_failure_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    shell = shutil.which("sh")
    program.write_text(f'#!{shell}\necho "$PWD $BUILDX_NO_DEFAULT_ATTESTATIONS $*" >>"$0.log"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert docker.build(["redis", "gateway"], ROOT) == [reference("redis", ROOT), reference("gateway", ROOT)]
    lines = (tmp_path / "docker.log").read_text().splitlines()
    assert [line.split()[:3] for line in lines] == [[str(ROOT), "1", "build"]] * 2
    program.write_text(f"#!{shell}\nexit 3\n")
    with pytest.raises(ImageError, match=r"docker build --file tools/images/redis/Containerfile .* ended with 3"):
        docker.build(["redis"], ROOT)
