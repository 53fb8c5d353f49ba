"""Whatever the evidence: an answer that can be written, with a reason that goes with its verdict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.experiment.analysis import analyse
from fairlead.experiment.design import Design, Guardrail, Objective
from fairlead.experiment.evidence import ArmEvidence, Evidence, FirstValues, PhaseEvidence, Sums, Tail, blocks_of
from fairlead.experiment.metrics import metric_of
from fairlead.experiment.report import Reason, Report, Verdict
from fairlead.experiment.tail import edge_of, tails_of
from support.experiment_worlds import BRIER, CLICKS, ERROR, LATENCY, SALT, START_US, absolute, design_of, relative

P99 = metric_of("latency_ms_p99", meaning=None, declared={})
REASONS = {
    Verdict.PASS: {Reason.SUPERIOR, Reason.NON_INFERIOR},
    Verdict.FAIL: {Reason.HARMFUL, Reason.GUARDRAIL_BREACHED, Reason.NO_WORTHWHILE_EFFECT},
    Verdict.INSUFFICIENT: {Reason.TOO_FEW_EFFECTIVE_UNITS, Reason.NOT_YET_MATURE, Reason.HORIZON_REACHED},
    Verdict.NO_DATA: {Reason.SOURCE_DOWN, Reason.NOT_YET_MATURE},
    Verdict.INVALID: {Reason.SAMPLE_RATIO, Reason.LABEL_COVERAGE},
}
EFFECTS = st.builds(relative, st.floats(1e-9, 0.99)) | st.builds(absolute, st.floats(1e-9, 1e9))
GUARDRAILS = st.sampled_from([LATENCY, ERROR, CLICKS, P99])


@st.composite
def designs(draw: st.DrawFn) -> Design:
    guardrails = draw(st.lists(GUARDRAILS, unique_by=lambda metric: metric.name, max_size=4))
    has_objective = draw(st.booleans()) or not guardrails
    return design_of(
        treatments=draw(st.sampled_from([("boosted",), ("boosted", "forest")])),
        steps=draw(st.sampled_from([(5000,), (1000, 5000), (0, 5000)])),
        objective=Objective(metric=BRIER, minimum_effect=draw(EFFECTS)) if has_objective else None,
        guardrails=tuple(Guardrail(metric=metric, margin=draw(EFFECTS)) for metric in guardrails),
        alpha=draw(st.sampled_from([1e-6, 0.05, 0.5])),
        covariate=draw(st.sampled_from([None, "delay:mean_7d"])),
        maximum_duration_s=draw(st.sampled_from([None, 1.0])),
    )


@st.composite
def arms(draw: st.DrawFn) -> ArmEvidence:
    units = draw(st.sampled_from([0, 1, 2, 30, 150]))
    scale = draw(st.sampled_from([0.0, 1e-12, 1.0, 1e12]))
    level = draw(st.sampled_from([-1.0, 0.0, 1.0]))
    rng = np.random.Generator(np.random.Philox(draw(st.integers(0, 50))))
    n = 1.0 + rng.poisson(2.0, units)
    x = n * scale * (level + draw(st.sampled_from([0.0, 0.3])) * rng.normal(size=units))
    hits = rng.binomial(n.astype(np.int64), draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))).astype(np.float64)
    known = np.where(rng.random(units) < 0.5, rng.normal(size=units), np.nan)
    first = FirstValues(units=units, total=float((hits > 0).sum()))
    counts = [{int(edge_of(value)): int(many)} for value, many in zip(np.abs(x) + 1e-9, n, strict=True)]
    tails = tails_of(counts, edges=range(-2, 2), blocks=(np.zeros(units), np.arange(units)))
    return ArmEvidence(
        first_exposures=draw(st.sampled_from([units, 0, 7])),
        units=units,
        requests=int(n.sum()),
        matured_units=units,
        labelled_units=draw(st.sampled_from([units, units // 2, 0])),
        metrics={"brier": Sums.of(n, x, known), "latency_ms": Sums.of(n, x), "error": Sums.of(n, hits)},
        activity=Sums.of(np.ones(units), n),
        coverage=Sums.of(n, hits),
        blocks={"latency_ms": blocks_of(np.zeros(units), np.arange(units) // 2, n, x)} if units else {},
        first_values={"error": first, "clicks": first},
        tails={P99.name: tuple(Tail.of(tail) for tail in tails)},
    )


@st.composite
def looks(draw: st.DrawFn) -> tuple[Design, Evidence, int]:
    design = draw(designs())
    numbers = [phase.number for phase in design.phases][: draw(st.integers(1, 2))]
    phases = tuple(
        PhaseEvidence(
            number=number, started_us=START_US, arms={arm: draw(arms()) for arm in design.arms if draw(st.booleans())}
        )
        for number in numbers
    )
    down = draw(st.sampled_from([(), ("outcomes",), ("gateway",)]))
    return design, Evidence(salt=SALT, phases=phases, down=down), numbers[-1]


@settings(max_examples=40)
@given(look=looks())
def test_any_evidence_has_an_answer(look: tuple[Design, Evidence, int]) -> None:
    design, evidence, phase = look
    report = analyse(design, evidence, phase=phase, now_us=START_US + 5_000_000)
    assert report.reason in REASONS[report.verdict]
    assert report.message
    assert all(one.message for one in report.metrics)
    assert (report.winner is not None) <= (report.verdict is Verdict.PASS)
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert analyse(design, evidence, phase=phase, now_us=report.at_us) == report


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_its_reasons(verdict: Verdict) -> None:
    assert REASONS[verdict]
    assert set.union(*REASONS.values()) == set(Reason)
