"""The doctor against a cluster in memory: nothing wrong, then one thing after another."""

from __future__ import annotations

from pathlib import Path

from fairlead_operator.doctor.findings import Level
from support.doctor_world import doctor_cluster, examined, of_level


async def test_a_healthy_cluster_has_nothing_bad_and_nothing_is_written(tmp_path: Path) -> None:
    async with doctor_cluster() as server:
        found = await examined(server, tmp_path)
        assert of_level(found, Level.BAD) == []
        assert not server.changes
