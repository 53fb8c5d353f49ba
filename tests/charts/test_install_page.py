"""The page on installing: its values are taken, its blocks say where they are run, and its facts are the charts'.

Its commands are run by tests/cluster/test_install_page_cluster.py.
"""

from __future__ import annotations

import re

import pytest
import yaml

from support.charts import CHARTS, rendered
from support.console import commands_of, marks_of

PAGE = (CHARTS.parent / "docs/install.md").read_text()
VALUES = re.findall(r"```yaml\n(# values.yaml\n.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_values_of_the_page_are_taken(number: int) -> None:
    assert rendered("fairlead", yaml.safe_load(VALUES[number]))


def test_every_block_says_where_it_is_run_and_what_is_not_run_says_why() -> None:
    assert len(VALUES) == 3
    assert set(marks_of(PAGE)) == {"cluster", "not-run"}
    assert PAGE.count("# not run: ") == len(re.findall(r"```console not-run", PAGE))
    assert len(commands_of(PAGE, "cluster")) >= 10


@pytest.mark.parametrize("chart", ["fairlead", "fairlead-crds"])
def test_the_least_kubernetes_is_the_charts(chart: str) -> None:
    floor = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())["kubeVersion"]
    (said,) = re.findall(r"\| Kubernetes \| (\S+) or later", PAGE)
    assert floor == f">={said}.0-0"


@pytest.mark.parametrize("chart", ["fairlead", "fairlead-crds"])
def test_links_of_a_readme_lead_somewhere(chart: str) -> None:
    page = CHARTS / chart / "README.md"
    assert [
        link for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()) if not (page.parent / link).exists()
    ] == []
