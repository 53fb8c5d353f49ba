"""What servers tell about requests that came to another arm than their unit's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from fairlead.serving import ExperimentCounts, FeedbackReport, RegistryReport, ServerReport
from fairlead_operator.platforms.kubernetes.reports import UNINFORMED_S, Address, Notice
from support.cluster_world import Life, Scene, experiment, scene_of
from support.waiting import until

ADDRESS = "127.83.17.29"
DIGEST = f"sha256:{'a' * 64}"
BOTH = {"logistic": 90.0, "boosted": 10.0}


class Servers:
    """One server for all pods."""

    def __init__(self) -> None:
        self.counts = ExperimentCounts()
        self.registry = RegistryReport()
        self.feedback = FeedbackReport()
        self.asked = 0
        self.failures = 0
        """Requests to be refused first."""
        self.meaning = "probability"
        """Of the models' output."""
        self.features: dict[str, str] = {}
        """Of the models, with their datatypes."""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise web.HTTPServiceUnavailable
        report = ServerReport(
            model_digest=DIGEST,
            contract_digest=DIGEST,
            contract_fingerprint=DIGEST,
            feature_service="delays",
            variant="any",
            revision="any",
            ready=True,
            degraded=False,
            registry=self.registry,
            requests=self.counts,
            feedback=self.feedback,
        )
        outputs = [{"name": "answer", "parameters": {"meaning": self.meaning}}]
        inputs = [
            {"name": name, "datatype": datatype, "parameters": {"role": "feature"}}
            for name, datatype in self.features.items()
        ]
        name = request.match_info["name"]
        told = {"name": name, "inputs": inputs, "outputs": outputs, "parameters": report.to_parameters()}
        return web.json_response(told)


@asynccontextmanager
async def reporting(folder: Path) -> AsyncIterator[tuple[Scene, Life, Servers]]:
    """Yield a cluster whose boosted pods answer."""
    servers = Servers()
    app = web.Application()
    app.router.add_get("/v2/models/{name}", servers.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((ADDRESS, 8080))  # the port of all our servers
        await web.SockSite(runner, listening).start()
        try:
            async with scene_of(folder, experiment()) as scene, scene.life() as life:
                await life.rest()
                yield scene, life, servers
        finally:
            await runner.cleanup()


async def told(scene: Scene, life: Life, servers: Servers) -> None:
    """Have the pods asked once more, and what they tell looked at."""
    scene.clock.advance(61)
    await scene.world.settle()
    for pod in scene.world.pods(scene.service("boosted")):
        place = ("Pod", "flights", pod["metadata"]["name"])
        scene.server.patch(*place, {"status": {"podIP": ADDRESS}}, subresource="status")
    asked = servers.asked
    await life.look()
    await until(lambda: servers.asked > asked)
    await asyncio.sleep(0.05)
    life.see()
    await life.act()
    await life.act()


async def test_mismatches_over_the_bound_withdraw_the_weight_for_good(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        servers.counts = ExperimentCounts(exposed=100)
        await told(scene, life, servers)
        servers.counts = ExperimentCounts(exposed=6100, mismatched=5)
        await told(scene, life, servers)
        assert scene.weights == BOTH
        servers.counts = ExperimentCounts(exposed=6100, mismatched=7)
        await told(scene, life, servers)
        assert scene.weights == {"logistic": 100}
        assert scene.reason("ExperimentHealthy") == "AssignmentInvalid"
        assert scene.reason("Ready") == "AssignmentInvalid"
        servers.counts = ExperimentCounts(exposed=500_000, mismatched=7)
        await told(scene, life, servers)
        assert scene.weights == {"logistic": 100}


async def test_what_was_counted_for_an_earlier_experiment_does_not_matter(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        await told(scene, life, servers)
        servers.counts = ExperimentCounts(exposed=5000, mismatched=50)
        await told(scene, life, servers)
        assert scene.weights == {"logistic": 100}
        scene.edit(experiment={"id": "e2"})
        await life.rest()
        assert scene.weights == BOTH
        servers.counts = ExperimentCounts(exposed=9000, mismatched=50)
        await told(scene, life, servers)
        assert scene.weights == BOTH
        assert scene.reason("ExperimentHealthy") == "Observing"


async def test_features_that_have_changed_are_told(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        await told(scene, life, servers)
        assert scene.reason("FeaturesReady") == "FeaturesUnknown" or scene.condition("FeaturesReady")[0] == "True"
        servers.registry = RegistryReport.of(DIGEST, ["mean_delay_7d is gone"], reads=2, failures=0)
        await told(scene, life, servers)
        assert scene.reason("FeaturesReady") == "FeaturesChanged"
        assert "mean_delay_7d is gone" in scene.condition("FeaturesReady")[2]
        assert scene.weights == BOTH


async def test_features_that_have_changed_stop_growth_and_take_nothing_away(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        servers.registry = RegistryReport.of(DIGEST, ["mean_delay_7d is gone"], reads=2, failures=0)
        await told(scene, life, servers)
        assert scene.reason("FeaturesReady") == "FeaturesChanged"
        scene.clock.advance(1800)
        await told(scene, life, servers)
        assert scene.weights == BOTH
        scene.annotate(request="promote boosted flights/delay/e1")
        await told(scene, life, servers)
        assert scene.weights == BOTH
        servers.registry = RegistryReport.of(DIGEST, [], reads=3, failures=0)
        await told(scene, life, servers)
        await life.rest()
        assert scene.weights == {"boosted": 100}


async def test_pods_are_asked_until_they_have_read_what_they_are_told(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        await told(scene, life, servers)
        reports, now_s = life.reports, life.reports.now()
        addresses = [Address("boosted", one, f"http://{ADDRESS}:8080/v2/models/delay") for one in ("a", "b")]
        notice = Notice("new", now_s)
        assert reports.informed(addresses, None)
        assert not reports.informed(addresses, notice)
        for digest in ("old", "new"):
            servers.feedback = FeedbackReport(configured=True, digest=digest)
            scene.clock.advance(UNINFORMED_S)
            asked = servers.asked
            reports.refresh(addresses, notice, lambda: None)
            await until(lambda: servers.asked == asked + 2)  # noqa: B023 -- awaited here
            await until(lambda: not reports._reading)
            assert reports.informed(addresses, notice) is (digest == "new")
        asked = servers.asked
        scene.clock.advance(UNINFORMED_S)
        reports.refresh(addresses, notice, lambda: None)
        await asyncio.sleep(0.05)
        assert servers.asked == asked  # they know, so the usual interval is enough


async def test_a_pod_that_nobody_can_ask_has_read_what_it_is_told_after_a_while(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, _):
        mute = [Address("boosted", "mute", f"http://{ADDRESS}:1/v2/models/delay")]
        notice = Notice("new", life.reports.now())
        assert not life.reports.informed(mute, notice)
        scene.clock.advance(200)
        assert life.reports.informed(mute, notice)


async def test_a_report_that_cannot_be_read_is_asked_for_again(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        life.reports.pauses_s = (0.01, 0.01, 0.01)
        servers.failures, servers.registry = (
            3,
            RegistryReport.of(DIGEST, ["mean_delay_7d is gone"], reads=2, failures=0),
        )
        await told(scene, life, servers)
        await until(lambda: servers.asked == 4)
        await asyncio.sleep(0.05)
        await life.look()
        assert scene.reason("FeaturesReady") == "FeaturesChanged"
        assert servers.failures == 0


async def test_a_metric_that_does_not_fit_what_the_model_answers_is_told(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        brier = {"metric": "brier", "minimumEffect": "5%"}
        scene.edit(experiment={"id": "e2", "objective": brier, "outcomeWindow": "1h"})
        await told(scene, life, servers)
        assert scene.reason("ExperimentHealthy") == "LedgerMissing"
        servers.meaning = "value"
        await told(scene, life, servers)
        status, reason, message = scene.condition("ExperimentHealthy")
        assert (status, reason) == ("False", "MetricUnfit")
        assert message.startswith("boosted answers a number that is no probability")
        assert scene.reason("Ready") == "MetricUnfit"


async def test_a_covariate_that_is_no_number_of_the_model_is_told(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (scene, life, servers):
        servers.features = {"plane__age": "FP32", "plane__maker": "BYTES"}
        block = {"id": "e2", "objective": {"metric": "brier", "minimumEffect": "5%"}, "outcomeWindow": "1h"}
        for feature, says in (
            ("plane:maker", "is text in boosted"),
            ("plane:weight", "boosted has no feature plane:weight"),
        ):
            scene.edit(experiment={**block, "id": feature.replace(":", "-"), "covariate": {"feature": feature}})
            await told(scene, life, servers)
            assert scene.reason("ExperimentHealthy") == "MetricUnfit"
            assert says in scene.condition("ExperimentHealthy")[2]
        scene.edit(experiment={**block, "covariate": {"feature": "plane:age"}})
        await told(scene, life, servers)
        assert scene.reason("ExperimentHealthy") == "LedgerMissing"
