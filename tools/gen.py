"""Write what is generated from the API, or with ``--check`` say what differs: `make gen`, and part of `make check`."""

from __future__ import annotations

import sys
from pathlib import Path

from charts.generate import chart_files
from fairlead_operator.api import crd
from fairlead_operator.cli_reference import cli_page
from fairlead_operator.reference import operator_page
from terraform.fairlead_terraform.pages import module_pages

ROOT = Path(__file__).resolve().parent.parent


def generated() -> dict[str, str]:
    """Return every generated file, by its path in the repository."""
    findings = crd.findings(crd.definition())
    if findings:
        sys.exit("\n".join(["the schema is not in order; mend fairlead_operator.api:", *findings]))
    return {
        "operator/crds/serving.fairlead.dev_modeldeployments.yaml": crd.manifest(),
        "docs/reference/modeldeployment.md": crd.modeldeployment(),
        "docs/reference/conditions.md": crd.condition_list(),
        "docs/reference/cli.md": cli_page(),
        "docs/reference/operator.md": operator_page(),
        **chart_files(ROOT, crd.manifest()),
        **module_pages(ROOT),
    }


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    differing = [name for name, content in generated().items() if _read(ROOT / name) != content]
    if "--check" in arguments:
        for name in differing:
            print(f"{name}: differs from what `make gen` writes; run it")
        return 1 if differing else 0
    for name in differing:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(generated()[name], encoding="utf-8")
        print(f"wrote {name}")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
