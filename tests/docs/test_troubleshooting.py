"""The troubleshooting page: each block says where its commands are run, and what it names is there.

Those of one machine are run by tests/sdk/test_init.py in a starter project, those of a cluster by tests/cluster/
test_doctor.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from fairlead_operator.api.conditions import Reason
from support.console import commands_of, marks_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text()
MARKS = {"here", "cluster", "not-run"}


def test_every_block_says_where_it_is_run_and_what_is_not_run_says_why() -> None:
    assert set(marks_of(PAGE)) == MARKS
    assert all(commands_of(PAGE, mark) for mark in MARKS)
    assert PAGE.count("```console not-run\n# not run: ") == marks_of(PAGE).count("not-run")
    assert PAGE.count("```") == 2 * len(marks_of(PAGE))


def test_every_condition_that_is_named_is_one() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", PAGE))
    known = {reason.value for reason in Reason} | {"RoutingReady", "ExperimentHealthy", "ModelDeployment"}
    foreign = {"ImagePullBackOff", "VirtualServiceCRDNotFound", "ClusterStorageContainer"}
    assert named <= known | foreign


def test_anchors_lead_to_headings() -> None:
    for file, anchor in re.findall(r"\]\(([^)#]+)#([^)]+)\)", PAGE):
        headings = re.findall(r"^#+ (.*)$", (DOCS / file).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}, anchor
