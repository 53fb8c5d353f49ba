"""Quantiles of latency: from counts by bucket in servers' reports to shares above thresholds."""

from __future__ import annotations

from typing import Any

from fairlead.experiment.design import Effect, Guardrail, Kind, Scale, Source
from fairlead.experiment.tail import edge_of
from fairlead.feedback.messages import ExposureReport
from fairlead_ledger.ledger import Ledger
from support.ledgers import MINUTE_US, NOON_US, SALT, arm, design, metric


def block(minute: int, requests: int, latency_counts: dict[int, int]) -> dict[str, Any]:
    when = NOON_US // MINUTE_US + minute
    return arm(minute=when, requests=requests, latency_counts=latency_counts, variant="boosted")


def report(sequence: int, blocks: list[dict[str, Any]]) -> ExposureReport:
    return ExposureReport.model_validate({"server": "s1", "sequence": sequence, "blocks": blocks})


def test_tails_of_latency_are_summed_over_blocks_of_every_length(ledger: Ledger) -> None:
    p99 = metric("latency_ms_p99", Source.SYSTEM, Kind.QUANTILE, quantile=0.99)
    margin = Effect(size=0.1, scale=Scale.RELATIVE)
    ledger.declare(design(guardrails=(Guardrail(metric=p99, margin=margin),)))
    told = [block(minute, 100, {int(edge_of(5.0)): 98, int(edge_of(20.0 + minute)): 2}) for minute in range(10)]
    ledger.take_reports([report(0, told[:7]), report(1, told[7:])])
    _, evidence = ledger.evidence_of(SALT, NOON_US)
    tails = evidence.phases[0].arms["boosted"].tails["latency_ms_p99"]
    assert [tail.edge for tail in tails] == sorted(tail.edge for tail in tails)
    for tail in tails:
        assert tail.sums.n == 1000
        assert [one.n for one in tail.longer] == [1000, 1000]
        assert (tail.sums.units, *(one.units for one in tail.longer)) == (10, 2, 1)
    assert 20 in {tail.sums.x for tail in tails}
