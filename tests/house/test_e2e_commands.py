"""What `make e2e` tells other programs: kind, which cannot be run here, and the manifests that must be refused."""

from __future__ import annotations

import copy
import os
import re
import shlex
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from e2e.clusters import Component
from e2e.errors import E2eError, Unavailable
from e2e.programs import Programs, shown
from e2e.scene import FLIGHTS, VERSION, Notes
from e2e.steps.refusals import all_cases, unfit_model, working

from e2e import kind
from fairlead.contract import METADATA_KEY, Contract
from fairlead_operator.api.objects import from_object
from support.console import commands_of
from support.models import contract_of, write_model
from support.store import make_repo

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = "docs/quickstart-cluster.md"
SPEC = {
    "featureStore": {"configMapRef": {"name": "feast-client"}, "secretRef": {"name": "feast-redis"}},
    "variants": [
        {
            "name": "logistic",
            "role": "Control",
            "model": {"uri": "http://models/a.onnx", "digest": "sha256:" + "a" * 64},
        },
        {
            "name": "boosted",
            "role": "Treatment",
            "model": {"uri": "http://models/b.onnx", "digest": "sha256:" + "b" * 64},
        },
    ],
    "routing": {
        "hosts": ["flights.example.org"],
        "gateways": ["istio-ingress/public"],
        "unit": {"header": "x-unit-id"},
    },
    "rollout": {"strategy": "Manual", "weights": {"boosted": 50}},
    "experiment": {"id": "e1"},
}


def test_kind_is_made_with_a_kubeconfig_of_its_own() -> None:
    words = kind.create(Path("/state/kind.kubeconfig"))
    assert words[:4] == ("kind", "create", "cluster", "--name=fairlead-e2e")
    assert "--kubeconfig=/state/kind.kubeconfig" in words
    assert kind.load()[:4] == ("kind", "load", "docker-image", f"fairlead.local/operator:{VERSION}")


def test_what_kind_installs_has_pinned_versions_and_is_waited_for() -> None:
    charts = [words for words in kind.installs() if words[0] == "helm"]
    assert [words[3] for words in charts] == [
        *("metrics-server", "cert-manager", "istio-base", "istiod", "istio-ingressgateway", "kserve-crd", "kserve"),
    ]
    for words in charts:
        (version,) = (word for word in words if word.startswith("--version="))
        assert version.removeprefix("--version=").lstrip("v")[0].isdigit()
        assert "--wait" in words
    assert '--set-json=kserve.controller.deploymentMode="Standard"' in charts[-1]


def test_the_quickstart_installs_the_same_charts() -> None:
    def chart(words: list[str]) -> tuple[str, str]:
        version = next(n for n, word in enumerate(words) if word.startswith("--version"))
        return words[version - 1], words[version].partition("=")[2] or words[version + 1]

    page = [shlex.split(one.text.replace("\\\n", "")) for one in commands_of((ROOT / QUICKSTART).read_text())]
    assert [chart(words) for words in page if words[:2] == ["helm", "install"] and words[3].startswith("oci:")] == [
        chart(list(words)) for words in kind.installs() if words[0] == "helm" and words[4].startswith("oci:")
    ]


def test_charts_of_kserve_and_their_values_exist_in_the_pinned_release() -> None:
    pinned = re.search(
        r"^\tgithub.com/kserve/kserve (v\S+)", (ROOT / "tools/cluster/kserve/go.mod").read_text(), re.MULTILINE
    )
    assert pinned
    assert pinned[1] == kind.KSERVE
    charts = [words for words in kind.installs() if "/kserve/charts/" in " ".join(words)]
    assert [words[4].rpartition("/")[2] for words in charts] == ["kserve-crd", "kserve-resources"]
    cache = Path(os.environ.get("GOMODCACHE") or Path.home() / "go/pkg/mod")
    released = cache / f"github.com/kserve/kserve@{pinned[1]}/charts"
    if not released.is_dir():
        return
    for words in charts:
        folder = released / words[4].rpartition("/")[2]
        assert yaml.safe_load((folder / "Chart.yaml").read_text())["version"] == kind.KSERVE
        for given in (word for word in words if word.startswith("--set-json=")):
            value = yaml.safe_load((folder / "values.yaml").read_text())
            for key in given.split("=")[1].split("."):
                value = value[key]


@pytest.mark.parametrize("component", list(Component))
def test_every_component_of_kind_is_restarted_and_waited_for(component: Component) -> None:
    restart, wait = kind.restarts(component)
    assert "restart" in restart
    assert any("--timeout=" in word for word in wait)


def test_without_kind_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"docker, kind, kubectl, helm on the PATH"):
        kind.Kind(tmp_path).check()


def test_a_program_that_fails_is_told_with_what_it_said() -> None:
    run = Programs({"WHO": "me"})
    assert run("/bin/sh", "-c", "echo $WHO") == "me\n"
    with pytest.raises(E2eError, match=r"(?s)sh -c .*: exit code 3\nno such thing"):
        run("/bin/sh", "-c", "echo no such thing >&2; exit 3")
    with pytest.raises(E2eError, match="No such file"):
        run("/nowhere/at/all")
    assert shown(["/usr/bin/kubectl", "get", "mdep"]) == "kubectl get mdep"


def test_what_was_noted_is_there_for_a_later_run(tmp_path: Path) -> None:
    Notes(tmp_path / "a/notes.json")["began_s"] = 12.5
    later = Notes(tmp_path / "a/notes.json")
    assert later["began_s"] == 12.5
    later.clear()
    with pytest.raises(E2eError, match="began_s is not known"):
        later["began_s"]


def test_deployments_that_are_broken_are_whole_manifests_before_and_after() -> None:
    base = {"metadata": {"name": "arrival-delay"}, "spec": SPEC}
    before = copy.deepcopy(base)
    cases = all_cases("sha256:" + "c" * 64)
    assert len({case.name for case in cases}) == 5
    for case in cases:
        manifest = working(base, case.name)
        assert [one.name for one in _read(manifest).spec.variants] == ["logistic"]
        case.change(manifest)
        changed = _read(manifest)
        assert changed.spec.control.name == "logistic"
        assert changed.metadata.namespace == FLIGHTS
    assert base == before


def test_an_unfit_model_is_whole_but_asks_for_another_ttl(tmp_path: Path) -> None:
    contract = contract_of(make_repo(tmp_path / "repo").describe())
    write_model(tmp_path / "model.onnx", contract)
    made = onnx.ModelProto()
    made.ParseFromString(unfit_model((tmp_path / "model.onnx").read_bytes()))
    onnx.checker.check_model(made)
    read = Contract.from_metadata({one.key: one.value for one in made.metadata_props}, "model")
    changed = [new.input for new, old in zip(read.features, contract.features, strict=True) if new.ttl_s != old.ttl_s]
    assert METADATA_KEY in {one.key for one in made.metadata_props}
    assert len(changed) == 1
    assert read.fingerprint == contract.fingerprint


def _read(manifest: dict[str, Any]) -> Any:
    return from_object({**manifest, "metadata": {**manifest["metadata"], "uid": "u", "generation": 1}})
