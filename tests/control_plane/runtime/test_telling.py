"""What the operator tells: metrics by catalogue, log lines with fields, events on transitions, and never a secret."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_operator import logs, settings
from fairlead_operator.metrics import READ_OFF, OperatorMetrics
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.errors import Invalid, KubeError
from fairlead_operator.platforms.kubernetes.events import EventResult, EventSink, EventType
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, SECRET, Watched, fields
from fairlead_operator.settings import LogFormat, Settings
from support.kube import KubeApiServer, Refuse, calls
from support.operators import client_of, model_deployment, operator_of
from support.waiting import until

FEW = (Watched(CONFIG_MAP, fields("data")), Watched(DEPLOYMENT, fields("status")))
UNITS = ("_seconds", "_total", "_info", "_keys", "_objects", "_missing", "_leader", "_deployments", "_experiments")
BOUNDED_LABELS = {
    *("result", "verb", "kind", "code", "reason", "state", "condition", "status", "version", "python", "le"),
    *("call", "verdict"),
}

OF_GATEWAYS = {
    "fairlead_gateway_logs",
    "fairlead_gateway_log_failures_total",
    "fairlead_gateway_log_unread_seconds_total",
    "fairlead_unanswered_requests_total",
}
"""Known by what the operator runs in a cluster, which these tests do without."""


async def test_every_metric_has_help_a_unit_and_bounded_labels(server: KubeApiServer, tmp_path: Path) -> None:
    server.create(model_deployment("delay"))
    async with operator_of(server, tmp_path, children=FEW) as operator:
        await until(lambda: operator.value("fairlead_leader") == 1)
        names = set()
        for family in operator.metrics.registry.collect():
            names.add(family.name)
            assert family.documentation.endswith(".")
            assert re.fullmatch(r"fairlead_[a-z_]+", family.name)
            assert family.type == "counter" or family.name.endswith(UNITS), family.name
            for sample in family.samples:
                assert set(sample.labels) <= BOUNDED_LABELS
        known = {name.removesuffix("_total") for name in READ_OFF if name not in OF_GATEWAYS}
        assert known <= names, "each has somebody who knows it"


def test_a_metric_that_is_in_no_catalogue_is_refused() -> None:
    with pytest.raises(KeyError):
        OperatorMetrics(CollectorRegistry(), "test").read("fairlead_surprises", dict)


async def test_a_line_carries_its_fields_and_those_of_its_reconcile() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("test_a_line")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with logs.bound(key="flights/delay", reconcile=7):
        logs.bind(generation=3)
        logger.info("a route was written", extra={"weight_bp": 1000})

        async def within() -> None:
            logger.warning("in a task")

        await asyncio.create_task(within())
    logger.error("outside", exc_info=KeyError("oh"))
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "a route was written"
    assert {name: first[name] for name in ("key", "reconcile", "generation", "weight_bp", "level")} == {
        "key": "flights/delay",
        "reconcile": 7,
        "generation": 3,
        "weight_bp": 1000,
        "level": "INFO",
    }
    assert second["generation"] == 3
    assert "key" not in third
    assert "KeyError" in third["trace"]


def test_text_lines_are_for_people() -> None:
    record = logging.makeLogRecord({"msg": "a route was written", "levelname": "INFO", "weight_bp": 1000, "created": 0})
    line = logs.TextFormatter().format(record)
    assert line == "1970-01-01T00:00:00.000+00:00 INFO    a route was written weight_bp=1000"


@pytest.mark.parametrize("code", [422, 400, 409, 500, 403])
async def test_an_error_about_a_secret_never_quotes_it(server: KubeApiServer, client: KubeClient, code: int) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "flights"}}
    told = 'failed to create typed patch object: .data.key: invalid "Y2FuYXJ5": canary'
    server.faults.inject(Refuse(code, "Reason", told), calls("write", "secrets"), times=9)
    with pytest.raises(KubeError) as caught:
        await client.apply(SECRET, {**secret, "data": {"key": "Y2FuYXJ5"}})
    assert "canary" not in str(caught.value)
    assert "Y2FuYXJ5" not in str(caught.value)
    assert isinstance(caught.value, Invalid) == (code in {400, 422, 500})


async def test_no_log_line_of_a_life_holds_a_token_or_a_payload(tmp_path: Path) -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure(LogFormat.JSON, "DEBUG", stream)
    try:
        async with KubeApiServer(namespaces=["flights"], token="canary-token") as server:  # noqa: S106 -- of a test
            server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "canary"}})
            async with operator_of(server, tmp_path, children=FEW, kopf=True):
                await asyncio.sleep(0.5)
                server.faults.inject(Refuse(500), times=20)
                await asyncio.sleep(0.5)
    finally:
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])
    assert "canary" not in stream.getvalue()
    assert stream.getvalue()


@asynccontextmanager
async def sink_of(server: KubeApiServer, folder: Path, **options: Any) -> AsyncIterator[tuple[EventSink, Counter[str]]]:
    counted: Counter[str] = Counter()
    numbers = itertools.count(1)
    async with client_of(server, folder) as client:
        sink = EventSink(
            client,
            instance="operator-0",
            clock=SystemClock(),
            new_id=lambda: f"{next(numbers):08x}",
            observe=lambda result: counted.update([result.value]),
            **options,
        )
        task = asyncio.create_task(sink.run())
        yield sink, counted
        task.cancel()
        await asyncio.wait({task})


async def test_an_event_is_posted_once_per_transition(server: KubeApiServer, tmp_path: Path) -> None:
    about = server.create(model_deployment("delay"))
    async with sink_of(server, tmp_path) as (sink, counted):
        for _ in range(3):
            sink.post(about, "WeightRaised", "boosted has 10 %")
        sink.post(about, "VariantFailed", "boosted: " + "ü" * 2000, type=EventType.WARNING)
        await until(lambda: counted == {"posted": 2, "repeated": 2})
        first, second = server.objects("events.events.k8s.io", "flights")
        assert first["reason"] == "WeightRaised"
        assert first["regarding"]["name"] == "delay"
        assert first["regarding"]["uid"] == about["metadata"]["uid"]
        assert first["reportingController"] == "serving.fairlead.dev/operator"
        assert second["type"] == "Warning"
        assert len(second["note"].encode()) <= 1024


async def test_the_same_news_is_news_again_after_a_while(server: KubeApiServer, tmp_path: Path) -> None:
    about = server.create(model_deployment("delay"))
    async with sink_of(server, tmp_path, quiet_s=0.05) as (sink, counted):
        sink.post(about, "WeightRaised", "10 %")
        await asyncio.sleep(0.1)
        sink.post(about, "WeightRaised", "10 %")
        await until(lambda: counted[EventResult.POSTED.value] == 2)


async def test_an_event_that_cannot_be_posted_is_counted_and_dropped(server: KubeApiServer, tmp_path: Path) -> None:
    about = server.create(model_deployment("delay"))
    server.faults.inject(Refuse(500), calls("create"), times=1)
    async with sink_of(server, tmp_path) as (sink, counted):
        for number in range(300):
            sink.post(about, "WeightRaised", f"{number} %")
        assert counted == {"dropped": 44}
        await until(lambda: counted["posted"] == 255)
        assert counted["failed"] == 1


def test_settings_are_read_from_the_environment_and_a_flag_wins() -> None:
    environ = {"FAIRLEAD_OPERATOR_NAMESPACES": "flights, taxis", "FAIRLEAD_OPERATOR_WORKERS": "2"}
    given = settings.read(["--workers", "8"], prog="x", environ=environ)
    assert given.namespaces == ("flights", "taxis")
    assert given.child_namespaces == ("flights", "istio-ingress", "taxis")
    assert given.workers == 8


def test_every_setting_is_described_and_has_a_flag_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings.read(["--help"], prog="x", environ={})
    told = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"--{name.replace('_', '-')} " in told
        assert settings.variable(name) in told
    assert "Example:" in told
