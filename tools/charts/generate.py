"""Every generated file of the charts, by its path in the repository; ``tools/gen.py`` writes or checks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charts.dashboards import dashboard_files
from charts.pages import schema_json, table, values_yaml
from charts.rules import rules_file
from charts.values import CrdsValues, FairleadValues, Part

_CHARTS: Mapping[str, type[Part]] = {"fairlead-crds": CrdsValues, "fairlead": FairleadValues}


def chart_files(root: Path, crd: str) -> dict[str, str]:
    """Return the files.

    Args:
        root: The repository.
        crd: The manifest of ModelDeployment's definition.
    """
    files = {
        "charts/fairlead-crds/templates/modeldeployments.yaml": crd_template(crd),
        "charts/fairlead/files/rules.yaml": rules_file(
            _read(root / "operator/rbac/role.yaml"), _read(root / "operator/rbac/gateway-log.yaml")
        ),
    }
    files |= {f"charts/fairlead/dashboards/{name}": text for name, text in dashboard_files().items()}
    for chart, model in _CHARTS.items():
        files[f"charts/{chart}/values.yaml"] = values_yaml(model)
        files[f"charts/{chart}/values.schema.json"] = schema_json(model)
        prose = _read(root / f"charts/{chart}/README.md.in")
        files[f"charts/{chart}/README.md"] = prose.replace("@VALUES@", table(model))
    return files


def crd_template(manifest: str) -> str:
    """Return a definition as a template: what is the owner's choice is filled in, the rest stands as it is."""
    head, found, rest = manifest.partition("\nspec:\n")
    if not found or "{{" in manifest:
        raise ValueError("the definition's manifest is not as it was: no spec, or template syntax in it")
    return f'{head}\n{{{{- include "fairlead-crds.metadata" . | nindent 2 }}}}{found}{rest}'


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
