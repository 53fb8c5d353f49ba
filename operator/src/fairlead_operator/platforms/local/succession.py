"""The commit after a promotion: the winner becomes the Control in the manifest file, and nothing else changes.

The text is edited where it has to be, so that comments, quotes and layout stay as their owner wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import yaml

from fairlead_operator.api.manifest import Manifest, parse
from fairlead_operator.api.v1alpha1 import ModelDeployment
from fairlead_operator.core.desired import desired_from

Entries = Mapping[str, tuple[yaml.Node, yaml.Node]]
"""Keys and values of a mapping, by key."""


@dataclass(frozen=True, slots=True)
class _Edit:
    """One change of a text."""

    start: int
    """Characters from the beginning."""
    end: int
    text: str


def succeeded(manifest: Manifest, winner: str) -> bytes:
    """Return the manifest's content with ``winner`` as its Control.

    The former Control becomes a Treatment without weight, the strategy Manual, and the experiment ends. No revision
    gets another name by that: no server is started or stopped.

    Args:
        manifest: The file as it stands.
        winner: A Treatment in it.

    Raises:
        ManifestError: It has no such Treatment.
    """
    deployment = manifest.deployment
    roles = {variant.name: variant.role for variant in deployment.spec.variants}
    if roles.get(winner) == "Control":
        raise manifest.error(("spec", "variants"), f"{winner} is the Control already; nothing is left to write")
    if roles.get(winner) != "Treatment":
        treatments = ", ".join(variant.name for variant in deployment.spec.treatments) or "none"
        raise manifest.error(("spec", "variants"), f"{winner} is no Treatment (Treatments: {treatments})")
    text = _applied(manifest.content.decode(), _of_roles(deployment.spec.control.name, winner))
    text = _applied(text, _of_strategy)
    for path in _left_over(text):
        text = _applied(text, _removal_of(path))
    content = text.encode()
    _check_same_servers(deployment, parse(content, str(manifest.path)))
    return content


def _applied(text: str, edits_of: Callable[[str, Entries], Iterable[_Edit]]) -> str:
    """Return ``text`` after the edits that ``edits_of`` makes of it and of its spec; they do not overlap."""
    for edit in sorted(edits_of(text, _spec(text)), key=lambda edit: edit.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _of_roles(control: str, winner: str) -> Callable[[str, Entries], Iterable[_Edit]]:
    becomes = {control: "Treatment", winner: "Control"}

    def edits(_: str, spec: Entries) -> Iterator[_Edit]:
        for variant in spec["variants"][1].value:
            fields = _entries(variant)
            role = becomes.get(fields["name"][1].value)
            if role is not None:
                yield _replacement(fields["role"][1], role)

    return edits


def _of_strategy(_: str, spec: Entries) -> Iterator[_Edit]:
    rollout = _entries(spec["rollout"][1]) if "rollout" in spec else {}
    if "strategy" in rollout:
        yield _replacement(rollout["strategy"][1], "Manual")


def _left_over(text: str) -> list[tuple[str, ...]]:
    """Return the fields that Manual without weights has no use for."""
    spec = _spec(text)
    rollout = _entries(spec["rollout"][1]) if "rollout" in spec else {}
    paths: list[tuple[str, ...]] = [("rollout", key) for key in ("steps", "weights") if key in rollout]
    if rollout and {path[-1] for path in paths} == set(rollout):  # a mapping must not be left empty
        paths = [("rollout",)]
    return [*paths, *([("experiment",)] if "experiment" in spec else [])]


def _removal_of(path: tuple[str, ...]) -> Callable[[str, Entries], Iterable[_Edit]]:
    def edits(text: str, spec: Entries) -> list[_Edit]:
        entries = spec
        for key in path[:-1]:
            entries = _entries(entries[key][1])
        return [_removal(text, entries, path[-1])]

    return edits


def _spec(text: str) -> Entries:
    return _entries(_entries(yaml.compose(text, Loader=yaml.SafeLoader))["spec"][1])


def _entries(mapping: yaml.Node | None) -> Entries:
    """Return the keys and values of a mapping, by key; none for what is no mapping."""
    return {key.value: (key, value) for key, value in mapping.value} if isinstance(mapping, yaml.MappingNode) else {}


def _replacement(node: yaml.Node, text: str) -> _Edit:
    return _Edit(node.start_mark.index, node.end_mark.index, text)


def _removal(text: str, entries: Entries, key: str) -> _Edit:
    """Return the edit that takes an entry out of a mapping: its lines, or in ``{a: 1, b: 2}`` its part of the line."""
    names = list(entries)
    start, end = entries[key][0].start_mark.index, _end(entries[key][1])
    line_start = text.rfind("\n", 0, start) + 1
    if not text[line_start:start].strip():
        line_end = text.find("\n", end)
        return _Edit(line_start, len(text) if line_end < 0 else line_end + 1, "")
    if key != names[-1]:
        return _Edit(start, entries[names[names.index(key) + 1]][0].start_mark.index, "")
    if len(names) > 1:
        return _Edit(_end(entries[names[-2]][1]), end, "")
    return _Edit(start, end, "")


def _end(node: yaml.Node) -> int:
    """Return where a value ends; a block ends with its last part, not where the parser noticed."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        index: int = node.end_mark.index
        return index
    last = node.value[-1]
    return _end(last[1] if isinstance(node, yaml.MappingNode) else last)


def _check_same_servers(before: ModelDeployment, after: ModelDeployment) -> None:
    """Check that no revision has got another name: that would be a bug here, and must not be written."""
    names = [
        {name: revision.name for name, revision in desired_from(each, "0").revisions.items()}
        for each in (before, after)
    ]
    if names[0] != names[1]:
        raise AssertionError(f"revisions would change: {names[0]} -> {names[1]}")
