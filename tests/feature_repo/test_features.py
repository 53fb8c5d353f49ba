"""`make features`: steps are done once, again when something changed, and again when they were left half done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flights import features, stamps
from flights.paths import FEATURE_REPO
from flights.store import open_store
from support.flights import copied_repo, online_rows


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return copied_repo(tmp_path / "feature_repo", online=False)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flights.features", *arguments]
    env = {key: value for key, value in os.environ.items() if key != "FAIRLEAD_REDIS"} | {"COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_a_second_build_does_nothing(repo: Path) -> None:
    assert features.build(repo) == []


def test_changed_definitions_build_the_store_and_keep_the_sources(repo: Path) -> None:
    with (repo / "definitions.py").open("a") as definitions:
        definitions.write("\n# changed\n")
    sources = repo / "data" / "plane.parquet"
    built_at_ns = sources.stat().st_mtime_ns
    assert features.build(repo) == ["store"]
    assert sources.stat().st_mtime_ns == built_at_ns
    assert features.build(repo) == []
    assert len(online_rows(repo)["flights_plane"]) == 3_322 * 3


def test_a_step_that_was_cut_short_is_done_again(repo: Path) -> None:
    record = repo / "data" / "built.json"
    digest = features.built_digest("sources", repo)
    assert digest
    (repo / "data" / "plane.parquet").unlink()
    with pytest.raises(KeyboardInterrupt), stamps.step(record, "sources", digest):
        raise KeyboardInterrupt
    assert features.built_digest("sources", repo) is None
    assert features.build(repo) == ["sources"]
    assert (repo / "data" / "plane.parquet").exists()


def test_an_unreadable_record_means_nothing_is_done(tmp_path: Path) -> None:
    record = tmp_path / "built.json"
    record.write_text('{"sources": ')
    assert stamps.done_steps(record) == {}
    with stamps.step(record, "sources", "sha256:1"):
        assert stamps.done_steps(record) == {}
    assert stamps.done_steps(record) == {"sources": "sha256:1"}


def test_a_build_from_nothing_gives_the_state_of_the_replays_start(tmp_path: Path, repo: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for name in ("definitions.py", "feature_store.yaml", "feature_store.redis.yaml"):
        shutil.copy(FEATURE_REPO / name, fresh / name)
    built = run("--repo", str(fresh))
    assert built.returncode == 0, built.stderr
    assert "Features: built sources, store" in built.stderr
    assert json.loads((fresh / "data" / "built.json").read_text()) == json.loads(
        (repo / "data" / "built.json").read_text()
    )
    store = open_store(fresh)
    newest = max(event_us for rows in online_rows(fresh).values() for *_, event_us, _ in rows)
    assert newest == int(features.REPLAY_START.timestamp()) * 1_000_000
    assert [view.name for view in store.list_feature_views()]
    again = run("--repo", str(fresh))
    assert (again.returncode, again.stderr.strip()) == (0, "Features: up to date")


def test_help_has_an_example() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert "Example: python -m flights.features" in shown.stdout


def test_a_folder_without_definitions_is_refused_with_the_fix(tmp_path: Path) -> None:
    refused = run("--repo", str(tmp_path))
    assert refused.returncode == 2
    assert "definitions.py: no such file; give the feature repository with --repo" in refused.stderr
