"""Quantiles by inversion of shares above thresholds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from fairlead.experiment.design import Guardrail
from fairlead.experiment.errors import UnfitEvidence
from fairlead.experiment.evidence import ArmEvidence, Tail
from fairlead.experiment.judging import Allowance, Pair, judge_guardrail
from fairlead.experiment.metrics import metric_of
from fairlead.experiment.quantile import estimate_quantile
from fairlead.experiment.report import Finding, Method, MetricReport
from fairlead.experiment.tail import EDGES_PER_DOUBLING, edge_of, edge_value, edges_near, tails_of
from support.experiment_worlds import absolute, relative

P99 = metric_of("latency_ms_p99", meaning=None, declared={})
STEP = 2 ** (1 / EDGES_PER_DOUBLING)
Blocks = Sequence[Mapping[int, int]]


def blocks_of(seed: int, *, slower: float = 1.0, blocks: int = 400, requests: int = 300, stall: float = 0.0) -> Blocks:
    """Return lognormal latencies of 5 ms by block; some blocks have a stall that strikes all their requests."""
    rng = np.random.Generator(np.random.Philox(seed))
    values = slower * 5.0 * np.exp(0.4 * rng.normal(size=(blocks, requests)))
    values += np.where(rng.random((blocks, 1)) < stall, 40.0, 0.0)
    return [Counter(edge_of(block).tolist()) for block in values]


def whole(*blocks: Blocks) -> Counter[int]:
    total: Counter[int] = Counter()
    for one in blocks:
        for block in one:
            total.update(block)
    return total


def judged(control: Blocks, treatment: Blocks, margin: float = 0.2, *, is_relative: bool = True) -> MetricReport:
    edges = edges_near(whole(control, treatment), 0.99)
    one, two = (
        ArmEvidence(tails={P99.name: tuple(Tail.of(tail) for tail in tails_of(blocks, edges=edges))})
        for blocks in (control, treatment)
    )
    limit = relative(margin) if is_relative else absolute(margin)
    return judge_guardrail(Guardrail(metric=P99, margin=limit), Pair("boosted", one, two, 0.5), Allowance(0.05, 0.0125))


def test_edges_are_where_they_say() -> None:
    for value in (0.003, 1.0, 5.0, 5.3, 250.0):
        edge = int(edge_of(value))
        assert edge_value(edge) <= value < edge_value(edge + 1)
    assert edge_of([0.0, -3.0]).tolist() == [-320, -320]
    assert edge_of(np.inf) == 640


def test_tails_count_what_is_above() -> None:
    blocks = [{10: 5, 12: 1}, {9: 3, 11: 2}]
    tails = tails_of(blocks, edges=(9, 10, 11, 12, 13))
    assert [tail.moments.x for tail in tails] == [11, 8, 3, 1, 0]
    assert {tail.moments.n for tail in tails} == {11}


def test_edges_near_a_quantile_hold_it_and_not_the_whole_range() -> None:
    counts = whole(blocks_of(1))
    edges = edges_near(counts, 0.99)
    true = 5.0 * math.exp(0.4 * 2.326)
    assert edge_value(edges[0]) < true / 1.2
    assert edge_value(edges[-1]) > true * 1.1
    assert len(edges) < len(range(min(counts), max(counts) + 1)) + 3
    assert edges_near({}, 0.99) == ()


def test_the_interval_holds_the_truth_nearly_always() -> None:
    true = 5.0 * math.exp(0.4 * 2.3263)
    missed = 0
    for seed in range(60):
        blocks = blocks_of(seed, blocks=200)
        tails = tails_of(blocks, edges=edges_near(whole(blocks), 0.99))
        found = estimate_quantile(tails, 0.99, effect=0.2, alpha=0.05, one_sided=False)
        assert found.value == pytest.approx(true, rel=0.15)
        missed += not found.low <= true <= found.high
    assert missed <= 3


def test_a_slower_tail_breaches_and_an_equal_one_is_safe() -> None:
    slower = judged(blocks_of(1), blocks_of(2, slower=1.6))
    assert (slower.finding, slower.method) == (Finding.BREACHED, Method.QUANTILE)
    equal = judged(blocks_of(1, blocks=1000), blocks_of(2, blocks=1000))
    assert equal.finding is Finding.NON_INFERIOR
    assert equal.relative is not None
    assert equal.relative.estimate == pytest.approx(0.0, abs=STEP - 1 + 1e-9)


def test_an_absolute_margin_is_in_milliseconds() -> None:
    assert judged(blocks_of(1), blocks_of(2, slower=1.6), 1.0, is_relative=False).finding is Finding.BREACHED
    assert judged(blocks_of(1), blocks_of(2), 8.0, is_relative=False).finding is Finding.NON_INFERIOR


def test_few_requests_beyond_the_quantile_say_nothing() -> None:
    few = judged(blocks_of(1, blocks=20, requests=50), blocks_of(2, blocks=20, requests=50, slower=3))
    assert few.finding is Finding.GATED
    assert few.relative is None
    assert judged([], []).finding is Finding.NO_DATA


def test_stalls_shared_by_many_requests_are_no_finding() -> None:
    """Two stalls of a minute are more than 1 % of the requests, and yet two events."""
    shaken = [dict(block) for block in blocks_of(2, blocks=150)]
    for block in shaken[:4]:
        total = sum(block.values())
        block.clear()
        block[int(edge_of(60.0))] = total
    found = judged(blocks_of(1, blocks=150), shaken)
    assert found.treatment_value is not None
    assert found.treatment_value > 40
    assert found.finding in {Finding.OPEN, Finding.GATED}


def test_a_stall_of_many_minutes_is_one_event() -> None:
    """Half an hour in which one of ten servers is slow: blocks of a minute alone would call it 30 events."""
    calm = blocks_of(1, blocks=1200, requests=100)
    shaken = [dict(block) for block in blocks_of(2, blocks=1200, requests=100)]
    server, minute = np.arange(1200) % 10, np.arange(1200) // 10
    for at in np.flatnonzero((server == 3) & (minute >= 30) & (minute < 60)):
        shaken[at] = {int(edge_of(60.0)): 100}
    edges = edges_near(whole(calm, shaken), 0.99)
    found = [
        estimate_quantile(tails_of(shaken, edges=edges, blocks=blocks), 0.99, effect=0.2, alpha=0.01, one_sided=True)
        for blocks in (None, (server, minute))
    ]
    assert found[0].low > 15
    assert found[1].low < 15


def test_tails_merge_over_blocks() -> None:
    blocks = blocks_of(3)
    edges = edges_near(whole(blocks), 0.99)
    one, two, both = (
        ArmEvidence(tails={P99.name: tuple(Tail.of(tail) for tail in tails_of(part, edges=edges))})
        for part in (blocks[:150], blocks[150:], blocks)
    )
    merged = (one + two).tails[P99.name]
    for mine, right in zip(merged, both.tails[P99.name], strict=True):
        assert mine.sums.x == right.sums.x
        assert mine.sums.dd == pytest.approx(right.sums.dd)


def test_tails_out_of_order_are_refused() -> None:
    tails = tails_of(blocks_of(1, blocks=10), edges=(40, 41))
    with pytest.raises(UnfitEvidence, match="order"):
        estimate_quantile(tails[::-1], 0.99, effect=0.1, alpha=0.05, one_sided=True)
