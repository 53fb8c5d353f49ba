"""What a module declares, read from HCL as ``terraform fmt`` writes it: one attribute a line, two blanks in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r'^(?P<kind>variable|output) "(?P<name>\w+)" \{\n(?P<body>.*?)^\}$', re.MULTILINE | re.DOTALL)
_ATTRIBUTE = re.compile(r"^  (?P<name>\w+) += ", re.MULTILINE)
_NEXT = re.compile(r"^  \w", re.MULTILINE)
_RESOURCE = re.compile(r'^resource "(\w+)" "(\w+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A variable or an output.

    Attributes:
        name: Its name.
        description: In words.
        type: Type of a variable, on one line; empty for an output.
        default: Default of a variable as HCL, on one line; None if it must be given.
    """

    name: str
    description: str
    type: str = ""
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Module:
    """A module.

    Attributes:
        folder: Where it is.
        description: The comment that its main.tf begins with.
        variables: In the order of the file.
        outputs: In the order of the file.
        resources: Kinds of what it makes, each once, sorted.
    """

    folder: Path
    description: str
    variables: tuple[Declaration, ...]
    outputs: tuple[Declaration, ...]
    resources: tuple[str, ...]


def read(folder: Path) -> Module:
    """Read a module's files."""
    main = (folder / "main.tf").read_text(encoding="utf-8")
    return Module(
        folder=folder,
        description=_leading_comment(main),
        variables=tuple(_declarations((folder / "variables.tf").read_text(encoding="utf-8"))),
        outputs=tuple(_declarations((folder / "outputs.tf").read_text(encoding="utf-8"))),
        resources=tuple(sorted({kind for kind, _ in _RESOURCE.findall(main)})),
    )


def parts(root: Path) -> tuple[Path, ...]:
    """Return the folders of all modules and environments, dependencies first."""
    modules = sorted(path.parent for path in root.glob("modules/*/main.tf"))
    wired = [path for path in modules if _has_modules(path)]
    environments = sorted(path.parent for path in root.glob("environments/*/main.tf"))
    return (*(path for path in modules if path not in wired), *wired, *environments)


def _has_modules(folder: Path) -> bool:
    return bool(re.search(r'^module "', (folder / "main.tf").read_text(encoding="utf-8"), re.MULTILINE))


def _leading_comment(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def _declarations(text: str) -> Iterator[Declaration]:
    for block in _BLOCK.finditer(text):
        attributes = dict(_attributes(block["body"]))
        yield Declaration(
            name=block["name"],
            description=attributes.get("description", "").strip('"').replace('\\"', '"').replace("$${", "${"),
            type=attributes.get("type", ""),
            default=attributes.get("default"),
        )


def _attributes(body: str) -> Iterator[tuple[str, str]]:
    for match in _ATTRIBUTE.finditer(body):
        after = _NEXT.search(body, match.end())
        yield match["name"], _on_one_line(body[match.end() : after.start() if after else len(body)])


def _on_one_line(value: str) -> str:
    lines = [" ".join(line.split()) for line in value.strip().splitlines()]
    joined = ""
    for line in lines:
        separator = "" if not joined else " " if joined.endswith(("{", "[", "(")) or line[0] in "}])" else ", "
        joined += separator + line
    return joined
