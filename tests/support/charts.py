"""The charts as Helm itself renders them, in process and without a cluster."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHARTS = Path(__file__).parents[2] / "charts"
NAMESPACE = "fairlead-system"
NOTES = "NOTES.txt"

Manifest = dict[str, Any]
Values = Mapping[str, Any]

ChartRefused = helm_python.HelmError
"""The chart does not take the values; the message says which, and why."""


class Once(yaml.CSafeLoader):
    """Refuses a map that has a key twice, as strict readers of manifests do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the map of a node."""
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise yaml.constructor.ConstructorError(None, None, f"written twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def rendered(chart: str, values: Values | None = None, *, namespace: str = NAMESPACE) -> list[Manifest]:
    """Return every object of a chart, in the order of its templates; the release is called like the chart.

    Raises:
        ChartRefused: The values break the schema or a rule of the templates.
    """
    texts = _texts(chart, values, namespace)
    return [
        one
        for path, text in sorted(texts.items())
        if not path.endswith(NOTES)
        for one in yaml.load_all(text, Loader=Once)
        if one
    ]


def notes(chart: str, values: Values | None = None) -> str:
    """Return what a chart says after an installation into a cluster that has nothing else."""
    (text,) = [text for path, text in _texts(chart, values, NAMESPACE).items() if path.endswith(NOTES)]
    return text


def scenarios(chart: str) -> dict[str, Values]:
    """Return the values of every scenario in the chart's folder ``ci``, by name; ``default`` has none."""
    found = {path.name.removesuffix("-values.yaml"): _read(path) for path in sorted(CHARTS.glob(f"{chart}/ci/*.yaml"))}
    return {"default": {}, **found}


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """Return the only object of a kind, or the one of a name."""
    (found,) = (m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"]))
    return found


def operator_of(manifests: list[Manifest]) -> Manifest:
    """Return the operator's Deployment, whatever it is called."""
    (found,) = (m for m in manifests if m["kind"] == "Deployment" and component_of(m) == "operator")
    return found


def component_of(manifest: Manifest) -> str:
    """Return the part that an object belongs to; empty for those of users."""
    return str(manifest["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""))


def pod_templates(manifest: Manifest) -> Iterator[Manifest]:
    """Yield the pods that an object is or makes, as they would be created."""
    if manifest["kind"] == "Pod":
        yield manifest
    elif manifest["kind"] == "StatefulSet":
        yield _with_claims(manifest["spec"]["template"], manifest["spec"].get("volumeClaimTemplates", ()))
    elif "template" in manifest.get("spec", {}):
        yield manifest["spec"]["template"]
    elif manifest["kind"] == "CronJob":
        yield manifest["spec"]["jobTemplate"]["spec"]["template"]


def _with_claims(pod: Manifest, claims: Iterable[Manifest]) -> Manifest:
    """Return a pod with the volumes that its StatefulSet's controller adds."""
    names = [claim["metadata"]["name"] for claim in claims]
    added = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    return {**pod, "spec": {**pod["spec"], "volumes": [*pod["spec"].get("volumes", ()), *added]}}


def changed(manifest: Manifest, path: str, value: Any) -> Manifest:
    """Return a copy in which what is at a dotted ``path`` is ``value``; numbers lead into lists."""
    copied: Any = copy.deepcopy(manifest)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = copied
    for step in steps:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    place[last] = value
    return dict(copied)


def _texts(chart: str, values: Values | None, namespace: str) -> dict[str, str]:
    with helm_python.Chart.load(CHARTS / chart) as loaded:
        return loaded.render(dict(values or {}), name=chart, namespace=namespace, is_install=True)


def _read(path: Path) -> Values:
    return dict(yaml.safe_load(path.read_text()) or {})
