"""What several workers say, as one's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from fairlead.serving import ExperimentCounts, FeedbackReport, RegistryReport, ServerReport
from fairlead_server.hydrate.observed import Watched
from fairlead_server.metrics import ServerMetrics, Stage
from fairlead_server.protocol.service import Service
from fairlead_server.workers.handed import Others
from fairlead_server.workers.merging import Snapshot, counted_together, ended, model_key, reported, summed

DIGEST = f"sha256:{'0' * 64}"


def others_of(metrics: ServerMetrics, registry: CollectorRegistry) -> Others:
    return Others(Service("m", "v", metrics), registry, lambda *_, **__: None)


def worker(requests: int, *, degraded: bool = False) -> Snapshot:
    """Return what a worker shows that has answered so many requests, each in a millisecond."""
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    of_model = metrics.of(model="m", variant="v")
    of_model.watch_degraded(lambda: degraded)
    of_model.watch_hydration(Watched(drifted=lambda: True, circuit_open=lambda: degraded))
    of_model.limit_age("plane", 60)
    of_model.note_reader("plane", "redis")
    for _ in range(requests):
        of_model.count_request("v2-rest", "200")
        metrics.stages["m", "v", Stage.INFER].add(1e-3)
    return others_of(metrics, registry).own()


def report(**fields: object) -> dict[str, str | bool | int]:
    given = {
        "model_digest": DIGEST,
        "contract_digest": DIGEST,
        "contract_fingerprint": DIGEST,
        "feature_service": "s",
        "variant": "v",
        "revision": "r",
        "ready": True,
        "degraded": False,
    }
    return ServerReport.model_validate(given | fields).to_parameters()


def test_counters_and_histograms_are_summed_and_gauges_by_their_meaning() -> None:
    registry = CollectorRegistry()
    one = others_of(ServerMetrics(registry), registry)
    one.heard({"id": 0, "snapshots": [worker(2), worker(3, degraded=True)], "ended": {}})
    text = generate_latest(one).decode()
    assert 'fairlead_requests_total{code="200",model="m",protocol="v2-rest",variant="v"} 5.0' in text
    assert 'fairlead_stage_seconds_count{model="m",stage="infer",variant="v"} 5.0' in text
    assert 'fairlead_stage_seconds_bucket{le="+Inf",model="m",stage="infer",variant="v"} 5.0' in text
    assert 'fairlead_degraded{model="m",variant="v"} 1.0' in text
    assert 'fairlead_contract_drift{model="m",variant="v"} 1.0' in text
    assert 'fairlead_store_circuit_open{model="m",variant="v"} 1.0' in text
    assert 'fairlead_feature_max_age_seconds{model="m",variant="v",view="plane"} 60.0' in text
    assert 'fairlead_feature_reader{model="m",reader="redis",variant="v",view="plane"} 1.0' in text


def test_of_ended_workers_only_what_grows_is_kept() -> None:
    past = ended(ended({}, worker(2, degraded=True)), worker(5))
    families = summed([past, worker(1)])
    assert list(families["fairlead_requests"]["samples"].values()) == [8.0]
    assert list(families["fairlead_degraded"]["samples"].values()) == [0.0]


def test_reports_are_of_all_workers() -> None:
    own = report(requests=ExperimentCounts(exposed=3), feedback=FeedbackReport(configured=True, digest="a", waiting=1))
    other = report(
        degraded=True,
        requests=ExperimentCounts(exposed=4, rejected=1),
        registry=RegistryReport.of(DIGEST, ["it differs"], reads=2, failures=1),
        feedback=FeedbackReport(configured=True, digest="b", waiting=2, dropped=7, last_success_us=9, failure="away"),
    )
    past = ended({}, {"reports": {"m/1": report(requests=ExperimentCounts(exposed=10))}})["reports"]["m/1"]
    found = ServerReport.from_metadata({"parameters": reported(own, [other], past)})
    assert found.ready
    assert found.degraded
    assert found.requests == ExperimentCounts(exposed=17, rejected=1)
    assert found.registry.differences == ("it differs",)
    assert found.feedback == FeedbackReport(
        configured=True, digest="", waiting=3, dropped=7, last_success_us=9, failure="away"
    )


def statistics(last: int, runs: int, sizes: dict[int, int], version: str = "1") -> dict[str, object]:
    took = {"count": runs, "ns": 1000 * runs}
    batches = [{"batch_size": size, "compute_infer": {"count": count, "ns": 7}} for size, count in sizes.items()]
    named = {"name": "m", "version": version, "last_inference": last}
    return {**named, "inference_count": runs, "inference_stats": {"success": took}, "batch_stats": batches}


def shows(*told: dict[str, object]) -> Snapshot:
    return {"statistics": {model_key(one): one for one in told}}


def test_statistics_are_added_up_by_size_of_batches() -> None:
    past = ended(ended({}, shows(statistics(5, 1, {1: 1}))), shows(statistics(9, 2, {2: 1}, "2")))
    found = counted_together(statistics(70, 3, {1: 2, 4: 1}), [shows(statistics(80, 10, {4: 5, 2: 5})), {}, past])
    assert found == statistics(80, 14, {1: 3, 2: 5, 4: 6}) | {
        "batch_stats": [
            {"batch_size": 1, "compute_infer": {"count": 3, "ns": 14}},
            {"batch_size": 2, "compute_infer": {"count": 5, "ns": 7}},
            {"batch_size": 4, "compute_infer": {"count": 6, "ns": 14}},
        ]
    }


def test_the_server_is_not_ready_while_one_worker_is_not() -> None:
    away = report(ready=False, not_ready_reason="the store is away")
    found = ServerReport.from_metadata({"parameters": reported(report(), [report(), away], {})})
    assert not found.ready
    assert found.not_ready_reason == "another worker: the store is away"
