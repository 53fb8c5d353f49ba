"""The statistics extension: what a model did since the server was started, in Triton's words, in all its processes.

Everything is read off what is counted anyway: runs by the session, durations by the stages' histograms, answers by
their codes. Versions of one model share those of stages and answers. Failures are counted and not timed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fairlead.clock import SystemClock
from fairlead_server.metrics import ModelMetrics, Stage

if TYPE_CHECKING:
    from fairlead_server.protocol.service import Served, Service

_SUCCESS = frozenset({"200", "OK"})


async def told(service: Service, name: str, version: str) -> dict[str, Any]:
    """Return the statistics of models of a name and version, empty for any, in all processes of this server.

    Raises:
        RequestError: A model is named, and not there.
    """
    served = service.asked(name, version)
    if service.others is None:
        return of_models(served)
    await service.others.refresh()
    return service.others.statistics(of_models(served))


def of_models(served: Iterable[Served]) -> dict[str, Any]:
    """Return the statistics of models, one per version, as REST and gRPC tell them."""
    now_us = SystemClock().now_us()
    return {"model_stats": [_of_model(one, now_us) for one in served]}


def _of_model(served: Served, now_us: int) -> dict[str, Any]:
    runs = served.predictor.session.runs
    metrics = served.predictor.metrics
    ago_s = time.perf_counter() - runs.last_s
    return {
        "name": served.schema.model,
        "version": served.schema.version,
        "last_inference": now_us // 1000 - round(ago_s * 1000) if runs.count else 0,
        "inference_count": runs.rows,
        "execution_count": runs.count,
        "inference_stats": _inferences(metrics),
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(0, 0.0),
                "compute_infer": _duration(count, spent_s),
                "compute_output": _duration(0, 0.0),
            }
            for rows, (count, spent_s) in runs.by_rows()
        ],
    }


def _inferences(metrics: ModelMetrics) -> dict[str, Any]:
    stages = {stage: metrics.durations(stage) for stage in Stage}
    total_s = sum(durations.sum_s for durations in stages.values())
    answers = metrics.answers()
    succeeded = sum(count for code, count in answers.items() if code in _SUCCESS)
    return {
        "success": _duration(succeeded, total_s),
        "fail": _duration(sum(answers.values()) - succeeded, 0.0),
        "queue": _duration(stages[Stage.QUEUE].count, stages[Stage.QUEUE].sum_s),
        "compute_input": _duration(
            stages[Stage.DECODE].count, stages[Stage.DECODE].sum_s + stages[Stage.HYDRATE].sum_s
        ),
        "compute_infer": _duration(stages[Stage.INFER].count, stages[Stage.INFER].sum_s),
        "compute_output": _duration(stages[Stage.ENCODE].count, stages[Stage.ENCODE].sum_s),
    }


def _duration(count: int, duration_s: float) -> dict[str, int]:
    return {"count": count, "ns": round(duration_s * 1e9)}
