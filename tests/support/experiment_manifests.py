"""A ModelDeployment with an experiment, as `fairlead experiment plan` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def manifest(folder: Path, **experiment: Any) -> Path:
    """Write it into a folder.

    Args:
        folder: Where.
        experiment: Fields of its block experiment, over the usual ones.
    """
    objective = {"metric": "brier", "minimumEffect": "5%"}
    file = folder / "modeldeployment.yaml"
    spec = {
        "variants": [{"name": "logistic", "role": "Control"}, {"name": "boosted", "role": "Treatment"}],
        "rollout": {"strategy": "Experiment", "steps": [{"weights": {"boosted": 10}}, {"weights": {"boosted": 50}}]},
        "experiment": {"id": "e1", "objective": objective, "outcomeWindow": "1d", **experiment},
    }
    whole = {"kind": "ModelDeployment", "metadata": {"name": "arrival-delay", "namespace": "flights"}, "spec": spec}
    file.write_text(yaml.safe_dump(whole))
    return file
