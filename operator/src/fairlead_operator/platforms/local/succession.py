"""The commit after a promotion: the winner becomes the Control in the manifest file, and nothing else changes.

The text is edited where it has to be, so that comments, quotes and layout stay as their owner wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fairlead_operator.api.manifest import Manifest, parse
from fairlead_operator.api.v1alpha1 import ModelDeployment
from fairlead_operator.core.desired import desired_from
from fairlead_operator.platforms.local.edits import (
    Edit,
    Entries,
    applied,
    entries_of,
    removal,
    replacement,
    spec_of,
)


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
    text = applied(manifest.content.decode(), _of_roles(deployment.spec.control.name, winner))
    text = applied(text, _of_strategy)
    for path in _left_over(text):
        text = applied(text, _removal_of(path))
    content = text.encode()
    _check_same_servers(deployment, parse(content, str(manifest.path)))
    return content


def _of_roles(control: str, winner: str) -> Callable[[str, Entries], Iterable[Edit]]:
    becomes = {control: "Treatment", winner: "Control"}

    def edits(_: str, spec: Entries) -> Iterator[Edit]:
        for variant in spec["variants"][1].value:
            fields = entries_of(variant)
            role = becomes.get(fields["name"][1].value)
            if role is not None:
                yield replacement(fields["role"][1], role)

    return edits


def _of_strategy(_: str, spec: Entries) -> Iterator[Edit]:
    rollout = entries_of(spec["rollout"][1]) if "rollout" in spec else {}
    if "strategy" in rollout:
        yield replacement(rollout["strategy"][1], "Manual")


def _left_over(text: str) -> list[tuple[str, ...]]:
    """Return the fields that Manual without weights has no use for."""
    spec = spec_of(text)
    rollout = entries_of(spec["rollout"][1]) if "rollout" in spec else {}
    paths: list[tuple[str, ...]] = [("rollout", key) for key in ("steps", "weights") if key in rollout]
    if rollout and {path[-1] for path in paths} == set(rollout):  # a mapping must not be left empty
        paths = [("rollout",)]
    return [*paths, *([("experiment",)] if "experiment" in spec else [])]


def _removal_of(path: tuple[str, ...]) -> Callable[[str, Entries], Iterable[Edit]]:
    def edits(text: str, spec: Entries) -> list[Edit]:
        entries = spec
        for key in path[:-1]:
            entries = entries_of(entries[key][1])
        return [removal(text, entries, path[-1])]

    return edits


def _check_same_servers(before: ModelDeployment, after: ModelDeployment) -> None:
    """Check that no revision has got another name: that would be a bug here, and must not be written."""
    names = [
        {name: revision.name for name, revision in desired_from(each, "0").revisions.items()}
        for each in (before, after)
    ]
    if names[0] != names[1]:
        raise AssertionError(f"revisions would change: {names[0]} -> {names[1]}")
