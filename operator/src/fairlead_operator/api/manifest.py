"""Manifests: YAML files with one ModelDeployment, read so that every complaint names file, line and field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import ValidationError

from fairlead_operator.api.complaints import Field, first_complaint, spelled
from fairlead_operator.api.v1alpha1 import KIND, ModelDeployment
from fairlead_operator.errors import ManifestError

MAX_BYTES = 1_048_576
"""Longest manifest that is read, bytes."""

MAX_NODES = 20_000
"""Most fields and values that a manifest may have, aliases followed."""

MAX_DEPTH = 64
"""Deepest nesting of a manifest."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One ModelDeployment and where it came from."""

    path: Path
    deployment: ModelDeployment
    content: bytes

    def error(self, field: Field, message: str) -> ManifestError:
        """Return the error for ``field`` of this manifest, with its line."""
        found = _node_at(_compose(self.content, str(self.path)), field)
        return ManifestError(source=str(self.path), line=_line(found), field=spelled(field), message=message)

    def resolve(self, reference: str, field: Field = ()) -> Path:
        """Return the file that a URI reference means, relative to the manifest's folder.

        Args:
            reference: A path, or a ``file://`` URI.
            field: Where the reference stands, for messages.

        Raises:
            ManifestError: The reference has a scheme other than ``file``.
        """
        parts = urlsplit(reference)
        if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
            raise self.error(field, f"{reference}: one machine reads files only; give a path or a file:// reference")
        return (self.path.parent / unquote(parts.path)).resolve()


def read(path: Path) -> Manifest:
    """Read the manifest in ``path``.

    Raises:
        ManifestError: The file cannot be read, or breaks a rule.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            source=str(path), line=None, field="", message=f"cannot be read ({error.strerror}); give an existing file"
        ) from error
    if len(content) > MAX_BYTES:
        raise ManifestError(source=str(path), line=None, field="", message=f"is longer than {MAX_BYTES} bytes")
    return Manifest(path, parse(content, str(path)), content)


def parse(content: bytes, source: str) -> ModelDeployment:
    """Return the ModelDeployment in ``content``; ``source`` names it in messages.

    Raises:
        ManifestError: It is not YAML, not one document, or breaks a rule.
    """
    root = _compose(content, source)
    _refuse_bad_nodes(root, source)
    document = _construct(root, source)
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind != KIND:
        raise ManifestError(
            source=source, line=_line(root), field="kind", message=f"is {kind!r}, not {KIND}; is this the right file?"
        )
    try:
        return ModelDeployment.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise _explained(error, root, source) from error


def _compose(content: bytes, source: str) -> yaml.Node:
    try:
        documents = [node for node in yaml.compose_all(content, Loader=yaml.SafeLoader) if node is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "cannot be decoded"
        line = mark.line + 1 if mark is not None else None
        raise ManifestError(source=source, line=line, field="", message=f"is not YAML: {problem}") from error
    if len(documents) != 1:
        message = f"has {len(documents)} documents; one ModelDeployment is expected"
        raise ManifestError(source=source, line=None, field="", message=message)
    root: yaml.Node = documents[0]
    return root


def _construct(root: yaml.Node, source: str) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        problem = getattr(error, "problem", None) or str(error)
        raise ManifestError(source=source, line=line, field="", message=f"is not YAML: {problem}") from error
    finally:
        loader.dispose()


def _explained(error: ValidationError, root: yaml.Node, source: str) -> ManifestError:
    path, message = first_complaint(error)
    return ManifestError(source=source, line=_line(_node_at(root, path)), field=spelled(path), message=message)


def _node_at(node: yaml.Node, path: Field) -> yaml.Node:
    """Return the node at ``path``, or the nearest one above it."""
    for part in path:
        inner = _child(node, part)
        if inner is None:
            return node
        node = inner
    return node


def _child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                # A key's line is where its field is, even if its value starts further down.
                value.start_mark = key.start_mark
                return value  # type: ignore[no-any-return]
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part]  # type: ignore[no-any-return]
    return None


def _refuse_bad_nodes(root: yaml.Node, source: str) -> None:
    """Check what YAML allows and a manifest must not have: repeated keys, and aliases that grow without bound.

    Raises:
        ManifestError: It has.
    """
    seen: set[Field] = set()
    for count, (path, node) in enumerate(_nodes(root, ())):
        if count > MAX_NODES or len(path) > MAX_DEPTH:
            message = (
                f"has over {MAX_NODES} values, or over {MAX_DEPTH} levels; do its aliases (*name) repeat too much?"
            )
            raise ManifestError(source=source, line=_line(node), field="", message=message)
        if path in seen:
            raise ManifestError(source=source, line=_line(node), field=spelled(path), message="is given twice")
        seen.add(path)


def _nodes(node: yaml.Node, path: Field) -> Iterator[tuple[Field, yaml.Node]]:
    """Yield what is inside ``node``: a mapping's keys, a sequence's values, at any depth."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            yield inner, key
            yield from _nodes(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value
            yield from _nodes(value, (*path, index))


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1
