"""Examples for clusters are good, without a cluster too."""

from pathlib import Path

import pytest
import yaml

from fairlead_operator.api.manifest import read
from fairlead_operator.api.objects import from_object
from fairlead_operator.errors import ManifestError
from support.admission import complaints

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples/cluster").glob("*.yaml"))


def test_there_is_one_for_each_way_to_use_it() -> None:
    assert [path.stem for path in EXAMPLES] == ["canary", "cookie", "experiment", "guarded-canary", "jwt", "smallest"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_accepted(example: Path) -> None:
    written = yaml.safe_load(example.read_text())
    assert list(complaints(written)) == []
    assert from_object(written) == read(example).deployment


def test_the_example_for_one_machine_is_not() -> None:
    written = yaml.safe_load((ROOT / "examples/flights/modeldeployment.yaml").read_text())
    assert any("path is for one machine" in complaint for complaint in complaints(written))
    with pytest.raises(ManifestError, match=r"flights/arrival-delay: spec\.featureStore\.path: is for one machine"):
        from_object(written)
