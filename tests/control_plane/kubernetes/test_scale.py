"""A thousand deployments that are served already: known soon, in little memory, without a write."""

from __future__ import annotations

from pathlib import Path

from support.scale_world import measured_for_real


async def test_many_that_are_as_they_should_be_cost_little_and_nothing_is_written(tmp_path: Path) -> None:
    figures, writes = await measured_for_real(tmp_path, deployments=1000, settle_s=1, steady_s=2)
    assert writes == []
    assert figures.stored_objects >= 14_000
    assert figures.cold_cpu_s < 20  # half of it on a machine that does nothing else
    assert figures.cold_start_s < 90
    assert figures.most_mib < 384  # what the chart asks for; half of it on such a machine
