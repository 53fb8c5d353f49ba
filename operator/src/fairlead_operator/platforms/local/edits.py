"""Changes of a manifest's text, just where they have to be: comments and layout stay as their owner wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import yaml

Entries = Mapping[str, tuple[yaml.Node, yaml.Node]]
"""Keys and values of a mapping, by key."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a text."""

    start: int
    """Characters from the beginning."""
    end: int
    text: str


def applied(text: str, edits_of: Callable[[str, Entries], Iterable[Edit]]) -> str:
    """Return ``text`` after the edits that ``edits_of`` makes of it and of its spec; they do not overlap."""
    for edit in sorted(edits_of(text, spec_of(text)), key=lambda edit: edit.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def spec_of(text: str) -> Entries:
    """Return the keys and values of a manifest's spec."""
    return entries_of(entries_of(yaml.compose(text, Loader=yaml.SafeLoader))["spec"][1])


def entries_of(mapping: yaml.Node | None) -> Entries:
    """Return the keys and values of a mapping, by key; none for what is no mapping."""
    return {key.value: (key, value) for key, value in mapping.value} if isinstance(mapping, yaml.MappingNode) else {}


def replacement(node: yaml.Node, text: str) -> Edit:
    """Return the edit that puts ``text`` in the place of a value."""
    return Edit(node.start_mark.index, node.end_mark.index, text)


def removal(text: str, entries: Entries, key: str) -> Edit:
    """Return the edit that takes an entry out of a mapping: its lines, or in ``{a: 1, b: 2}`` its part of the line."""
    names = list(entries)
    start, end = entries[key][0].start_mark.index, end_of(entries[key][1])
    line_start = text.rfind("\n", 0, start) + 1
    if not text[line_start:start].strip():
        line_end = text.find("\n", end)
        return Edit(line_start, len(text) if line_end < 0 else line_end + 1, "")
    if key != names[-1]:
        return Edit(start, entries[names[names.index(key) + 1]][0].start_mark.index, "")
    if len(names) > 1:
        return Edit(end_of(entries[names[-2]][1]), end, "")
    return Edit(start, end, "")


def end_of(node: yaml.Node) -> int:
    """Return where a value ends; a block ends with its last part, not where the parser noticed."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        index: int = node.end_mark.index
        return index
    last = node.value[-1]
    return end_of(last[1] if isinstance(node, yaml.MappingNode) else last)


def insertion_before(text: str, entries: Entries, line: str) -> Edit:
    """Return the edit that puts ``line`` first into a mapping: above its first key, or in ``{a: 1}`` before it."""
    start: int = next(iter(entries.values()))[0].start_mark.index
    line_start = text.rfind("\n", 0, start) + 1
    indent = text[line_start:start]
    return Edit(start, start, f"{line}\n{indent}" if not indent.strip() else f"{line}, ")
