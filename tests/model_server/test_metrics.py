"""What is counted and timed arrives in a scrape, with the labels that were declared."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fairlead.policy import FeatureState
from fairlead_server.metrics import Durations, ReadOutcome, RegistryRead, ServerMetrics, Stage

MODEL = {"model": "arrival-delay", "variant": "boosted"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ServerMetrics:
    return ServerMetrics(registry)


def test_counts_arrive_under_their_labels(registry: CollectorRegistry, metrics: ServerMetrics) -> None:
    of_model = metrics.of(**MODEL)
    of_model.count_request("v2-rest", "200")
    of_model.count_request("v2-rest", "200")
    of_model.count_request("grpc", "INVALID_ARGUMENT")
    of_model.count_features("plane", FeatureState.STALE, 3)
    of_model.count_exposure("exposed")
    of_model.count_read(ReadOutcome.TIMEOUT)
    of_model.count_registry_read(RegistryRead.DIFFERS)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, MODEL | labels)

    assert value("fairlead_requests_total", protocol="v2-rest", code="200") == 2
    assert value("fairlead_requests_total", protocol="grpc", code="INVALID_ARGUMENT") == 1
    assert value("fairlead_feature_states_total", view="plane", state="STALE") == 3
    assert value("fairlead_exposures_total", outcome="exposed") == 1
    assert of_model.exposures("exposed") == 1
    assert of_model.exposures("shadow") == 0
    assert value("fairlead_registry_reads_total", outcome="differs") == 1
    assert value("fairlead_store_reads_total", outcome="timeout") == 1
    assert value("fairlead_store_reads_total", outcome="ok") == 0


def test_each_lap_is_one_duration_of_its_stage(registry: CollectorRegistry, metrics: ServerMetrics) -> None:
    timer = metrics.of(**MODEL).timer()
    for stage in (Stage.DECODE, Stage.HYDRATE, Stage.HYDRATE):
        timer.lap(stage)
    assert registry.get_sample_value("fairlead_stage_seconds_count", MODEL | {"stage": "decode"}) == 1
    assert registry.get_sample_value("fairlead_stage_seconds_count", MODEL | {"stage": "hydrate"}) == 2
    assert registry.get_sample_value("fairlead_stage_seconds_count", MODEL | {"stage": "encode"}) == 0


@pytest.mark.parametrize(("duration_s", "bucket"), [(0.0, 0), (25e-6, 0), (26e-6, 1), (2.5, 15), (2.6, 16)])
def test_a_duration_counts_in_the_bucket_whose_limit_it_does_not_pass(duration_s: float, bucket: int) -> None:
    durations = Durations()
    durations.add(duration_s)
    assert durations.counts.index(1) == bucket
    assert durations.sum_s == duration_s


def test_buckets_are_cumulative_in_a_scrape(registry: CollectorRegistry, metrics: ServerMetrics) -> None:
    of_model = metrics.of(**MODEL)
    durations = metrics.stages[*MODEL.values(), "infer"]
    for duration_s in (0.002, 0.002, 0.2, 100.0):
        durations.add(duration_s)
    assert of_model.timer() is not None

    def at_most(limit: str) -> float | None:
        return registry.get_sample_value("fairlead_stage_seconds_bucket", MODEL | {"stage": "infer", "le": limit})

    assert [at_most(limit) for limit in ("0.001", "0.0025", "0.25", "2.5", "+Inf")] == [0, 2, 3, 3, 4]


def test_degraded_is_asked_at_every_scrape(registry: CollectorRegistry, metrics: ServerMetrics) -> None:
    answers = iter([True, False])
    metrics.of(**MODEL).watch_degraded(lambda: next(answers))
    assert registry.get_sample_value("fairlead_degraded", MODEL) == 1
    assert registry.get_sample_value("fairlead_degraded", MODEL) == 0


def test_a_model_bound_twice_is_one_model(registry: CollectorRegistry, metrics: ServerMetrics) -> None:
    for of_model in (metrics.of(**MODEL), metrics.of(**MODEL)):
        of_model.count_read(ReadOutcome.OK)
        of_model.timer().lap(Stage.INFER)
    assert registry.get_sample_value("fairlead_store_reads_total", MODEL | {"outcome": "ok"}) == 2
    assert registry.get_sample_value("fairlead_stage_seconds_count", MODEL | {"stage": "infer"}) == 2


def test_a_scrape_is_valid_and_every_metric_is_explained(registry: CollectorRegistry, metrics: ServerMetrics) -> None:
    metrics.of(**MODEL).count_request("v1", "200")
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert {family.name for family in families} == {
        "fairlead_requests",
        "fairlead_stage_seconds",
        "fairlead_feature_states",
        "fairlead_store_reads",
        "fairlead_connection_failures",
        "fairlead_exposures",
        "fairlead_registry_reads",
        "fairlead_store_circuits",
        "fairlead_store_circuit_open",
        "fairlead_contract_drift",
        "fairlead_feature_age_seconds",
        "fairlead_feature_max_age_seconds",
        "fairlead_feature_reader",
        "fairlead_unrun_requests",
        "fairlead_queued_requests",
        "fairlead_degraded",
        "fairlead_prediction_tokens",
        "fairlead_exposed_failures",
        "fairlead_exposure_reports",
        "fairlead_first_exposures",
        "fairlead_exposure_dropped_requests",
        "fairlead_exposure_forgotten_units",
        "fairlead_exposure_spool_failures",
        "fairlead_exposure_waiting_reports",
        "fairlead_exposure_waiting_bytes",
        "fairlead_exposure_last_success_timestamp_seconds",
        "fairlead_prediction_log_rows",
        "fairlead_prediction_log_removed_files",
    }
    assert all(family.documentation.endswith(".") for family in families)
