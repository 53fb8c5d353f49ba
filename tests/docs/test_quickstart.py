"""The cluster quickstart: what can be known of its commands without a cluster. `make e2e` runs the story itself."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from flights.cluster.__main__ import app as flights
from support.admission import complaints
from support.console import commands_of
from support.flights_cluster import manifest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/quickstart-cluster.md").read_text()
COMMANDS = [command.text.replace("\\\n", " ") for command in commands_of(PAGE)]


def merged(base: Any, patch: Any) -> Any:
    """Apply a JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    kept = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = merged(kept.get(key), value)
    return kept


def starting(words: str) -> list[list[str]]:
    """Return the commands that begin so, as words."""
    return [shlex.split(command) for command in COMMANDS if command.startswith(words)]


def test_each_patch_of_the_page_is_taken_by_the_api_after_the_one_before() -> None:
    live = manifest("ModelDeployment", "arrival-delay")
    patches = [json.loads(words[words.index("-p") + 1]) for words in starting("kubectl patch mdep arrival-delay")]
    assert len(patches) == 2
    for patch in patches:
        changed = merged(live, patch)
        assert list(complaints(changed, live)) == []
        live = changed
    assert live["spec"]["rollout"]["strategy"] == "Experiment"


def test_hosts_secrets_and_jobs_of_the_page_are_those_of_the_manifests() -> None:
    spec = manifest("ModelDeployment", "arrival-delay")["spec"]
    (ask,) = starting("curl ")
    assert f"host: {spec['routing']['hosts'][0]}" in ask
    (secret,) = starting("kubectl create secret generic")
    assert spec["featureStore"]["secretRef"]["name"] in secret
    written = manifest("ConfigMap", "feast-client")["data"]["feature_store.yaml"]
    named = {word.split("=")[1] for word in secret if word.startswith("--from-literal=")}
    assert named == set(re.findall(r"\$\{(\w+)\}", written))
    assert manifest("Job", "materialize")
    assert "examples/flights/cluster/" in starting("kubectl apply -f examples")[0]


@pytest.mark.parametrize("words", starting(".venv/bin/python -m flights.cluster"), ids=" ".join)
def test_the_examples_own_commands_exist(words: list[str]) -> None:
    group = get_command(flights)
    assert isinstance(group, TyperGroup)
    _, _, _, name, *given = words
    options = {option for parameter in group.commands[name].params for option in parameter.opts}
    assert {word for word in given if word.startswith("--")} <= options


def test_charts_and_their_values_exist() -> None:
    values = yaml.safe_load((ROOT / "charts/fairlead/values.yaml").read_text())
    installs = starting("helm install fairlead")
    assert [words[3] for words in installs] == ["charts/fairlead-crds", "charts/fairlead"]
    assert all((ROOT / words[3] / "Chart.yaml").exists() for words in installs)
    assert values["redis"]["enabled"] is False
    label = manifest("Namespace", "flights")["metadata"]["labels"]
    assert values["redis"]["namespaceSelector"]["matchLabels"].items() <= label.items()


def test_what_was_not_run_says_so() -> None:
    sections = {part.splitlines()[0]: part for part in PAGE.split("\n## ")}
    for title in ("kind", "A managed cluster"):
        assert "**Not run here.**" in sections[title]
        assert "```console\n" not in sections[title]
