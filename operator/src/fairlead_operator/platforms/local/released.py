"""The commit that moves a deployment to another server release: one field of the manifest file, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fairlead_operator.api.manifest import Manifest, parse
from fairlead_operator.platforms.local.edits import (
    Edit,
    Entries,
    applied,
    entries_of,
    insertion_before,
    replacement,
)


def released(manifest: Manifest, release: str) -> bytes:
    """Return the manifest's content with ``release`` as its server release.

    Args:
        manifest: The file as it stands.
        release: An exact release.

    Raises:
        ManifestError: It has that release already, or ``release`` is none.
    """
    if manifest.deployment.spec.serving.release == release:
        raise manifest.error(("spec", "serving", "release"), f"is {release} already; nothing is left to write")
    content = applied(manifest.content.decode(), _of_release(release)).encode()
    after = parse(content, str(manifest.path))
    before = manifest.deployment.spec
    if after.spec != before.model_copy(update={"serving": after.spec.serving}):
        raise AssertionError(f"{manifest.path}: more than the release would change")
    return content


def _of_release(release: str) -> Callable[[str, Entries], Iterator[Edit]]:
    def edits(text: str, spec: Entries) -> Iterator[Edit]:
        if "serving" not in spec:
            yield insertion_before(text, spec, f"serving: {{release: {release}}}")
            return
        serving = entries_of(spec["serving"][1])
        if "release" in serving:
            yield replacement(serving["release"][1], release)
        else:
            yield replacement(spec["serving"][1], f"{{release: {release}}}")

    return edits
