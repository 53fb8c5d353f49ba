"""An experiment in a cluster, from its design to the record of its decision, with the real ledger."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from fairlead import Layout, assign
from fairlead.feedback.kafka import KafkaTarget
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.messages import Exposure, ExposureReport, UnitCounts
from fairlead.feedback.serving import Feedback
from fairlead_operator.platforms.kubernetes.feedback import FeedbackFiles, KeysUnreadable
from fairlead_operator.runtime.evidence import LedgerEvidence
from fairlead_operator.settings import Settings
from support.cluster_world import DELAY, Life, Scene, experiment, routing, scene_of
from support.ledger_stand import LedgerStand
from support.ledgers import NOON_US, ROOT, digest
from support.waiting import until

SALT = "flights/delay/e1"
URL = "http://ledger.test"
ERRORS: dict[str, Any] = {
    "id": "e1",
    "objective": {"metric": "error", "minimumEffect": "10pp"},
    "guardrails": [{"metric": "latency_ms", "margin": "20%"}],
    "covariate": {"feature": "tail_performance:mean_delay_7d"},
}
GUARDED: dict[str, Any] = {"id": "e1", "guardrails": [{"metric": "error", "margin": "1pp"}]}


@pytest.fixture
def stand(tmp_path: Path) -> LedgerStand:
    return LedgerStand(tmp_path / "ledger")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path) as scene:
        yield scene


def told(folder: Path, **more: Any) -> dict[str, Any]:
    """Return the settings of an operator that knows of the ledger."""
    (folder / "keys.json").write_text(ROOT.dumped())
    (folder / "server-key").write_text("servers.secret\n")
    (folder / "own-key").write_text("operator.secret\n")
    files = {
        "feedback_keys": folder / "keys.json",
        "ledger_server_key": folder / "server-key",
        "ledger_api_key": folder / "own-key",
    }
    return {"ledger_url": URL, **files, **more}


def reach(life: Life, stand: LedgerStand) -> LedgerEvidence:
    """Have an operator's ledger be ``stand``."""
    source = life.controller.evidence
    assert isinstance(source, LedgerEvidence)
    source.client = dataclasses.replace(source.client, session=stand.session())
    return source


async def rest(life: Life, stand: LedgerStand, seconds: float = 0) -> None:
    """Let time pass, and everything that is asked be answered and acted upon."""
    source = reach(life, stand)
    life.scene.clock.advance(seconds)
    for _ in range(6):
        await life.rest()
        await asyncio.gather(*(known.task for known in source._known.values() if known.task is not None))
        await life.rest()
        life.scene.clock.advance(16)


def expose(stand: LedgerStand, step: int, *, worse: str, units: int = 900) -> None:
    """Have servers tell of units in a step, many requests of one arm and few of the others without an answer."""
    layout = Layout.of("logistic", {"boosted": (1000, 5000)[step]})
    exposures, counts = [], []
    for number in range(units):
        unit = f"u{number}"
        variant = assign(unit, SALT, layout)
        arm: dict[str, Any] = {
            "salt": SALT,
            "phase": step,
            "variant": variant,
            "revision": "r",
            "unit": digest(unit, SALT),
        }
        exposures.append(Exposure(**arm, at_us=NOON_US))
        errors = number % 5 if variant == worse else int(number % 10 == 0)
        counts.append(UnitCounts(**arm, requests=4, errors=errors, latency_us=20_000 + number))
    stand.ledger.take_reports([ExposureReport(server="s", sequence=step, exposures=exposures, counts=counts)])


def feedback(scene: Scene) -> Feedback | None:
    """Return what servers are told."""
    secret = scene.server.get("Secret", "flights", "delay-serving")
    given = (secret or {}).get("data", {}).get("feedback.json")
    return Feedback.loaded(base64.b64decode(given)) if given else None


def events(scene: Scene) -> dict[str, str]:
    """Return the notes of the Events that were posted, by reason."""
    return {one["reason"]: one["note"] for one in scene.server.objects("events.events.k8s.io", "flights")}


async def test_servers_of_the_operators_own_ledger_are_told_of_its_brokers(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    (tmp_path / "kafka").write_text("security.protocol=SASL_SSL\nsasl.password=t0psecret\n")
    kafka = {"kafka_bootstrap_servers": "kafka:9093", "kafka_config": tmp_path / "kafka"}
    scene.server.create(experiment(experiment=ERRORS))
    async with scene.life(**told(tmp_path, **kafka)) as life:
        await rest(life, stand)
        known = feedback(scene)
        assert known is not None
        config = {"security.protocol": "SASL_SSL", "sasl.password": "t0psecret"}
        assert known.kafka == KafkaTarget("kafka:9093", "fairlead.exposures", config)


def test_settings_of_kafka_that_a_server_would_refuse_are_told(tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text("acks=0")
    settings = Settings(kafka_bootstrap_servers="kafka:9093", kafka_config=tmp_path / "kafka", own_namespace="default")
    with pytest.raises(KeysUnreadable, match=r"--kafka-config .*: acks is set by the program itself"):
        FeedbackFiles(settings)._kafka()


async def test_an_experiment_is_registered_before_its_first_weight_and_servers_are_told(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    stand.fault = httpx.ConnectError("refused")
    scene.server.create(experiment(experiment=ERRORS))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        assert scene.weights == {"logistic": 100}
        assert scene.reason("ExperimentHealthy") == "LedgerUnreachable"
        known = feedback(scene)
        assert known is not None
        assert (known.ledger, known.api_key) == (URL, "servers.secret")
        assert known.keys == ROOT.of("flights/delay")
        assert known.covariates == {SALT: "tail_performance__mean_delay_7d"}
        stand.fault = None
        await rest(life, stand, 60)
        assert scene.weights == {"logistic": 90, "boosted": 10}
        assert stand.ledger.experiment(SALT).digest == scene.status()["experiment"]["design"]
        assert scene.reason("ExperimentHealthy") == "Observing"
        assert ("register", "201") in life.ledger_calls
        assert stand.headers["authorization"] == "Bearer operator.secret"


async def test_a_damaged_secret_beside_unreadable_keys_stops_nothing(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    scene.server.create(experiment(experiment=ERRORS))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        (tmp_path / "keys.json").write_text("{}")
        damaged = {"data": {"feedback.json": base64.b64encode(b"nonsense").decode()}}
        scene.server.patch("Secret", "flights", "delay-serving", damaged)
        await rest(life, stand, 60)
        scene.edit(rollout={"keepPrevious": "2m"})
        await rest(life, stand)
        assert scene.weights == {"logistic": 90, "boosted": 10}
        assert scene.status()["observedGeneration"] == 2
        (tmp_path / "keys.json").write_text(ROOT.dumped())
        await rest(life, stand, 60)
        assert feedback(scene) is not None


async def test_a_breached_guardrail_rolls_back_and_the_status_has_the_hash_of_the_record(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    scene.server.create(experiment(experiment=GUARDED))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        assert scene.weights == {"logistic": 90, "boosted": 10}
        expose(stand, 0, worse="boosted")
        await rest(life, stand, 20)
        assert scene.weights == {"logistic": 100}
        rollout, said = scene.status()["rollout"], scene.status()["experiment"]
        assert rollout["verdict"] == "Rollback (GuardrailBreached)"
        record = (await stand.session().get(rollout["decision"]["record"])).json()
        assert rollout["decision"]["recordDigest"] == record["hash"]
        assert record["report"]["reason"] == "GuardrailBreached"
        assert said["id"] == "e1"
        assert scene.reason("ExperimentHealthy") == "AsSpecified"
        telling = asyncio.create_task(life.access.events.run())
        await until(lambda: {"VerdictFail", "DecisionRecorded", "RolloutRollingBack"} <= events(scene).keys())
        telling.cancel()
        assert "GuardrailBreached" in events(scene)["VerdictFail"]


async def test_a_treatment_that_is_better_in_the_last_step_is_promoted(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    scene.server.create(experiment(experiment=ERRORS))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        expose(stand, 0, worse="logistic")
        await rest(life, stand, 1801)
        assert scene.weights == {"logistic": 50, "boosted": 50}
        expose(stand, 1, worse="logistic")
        await rest(life, stand, 20)
        assert scene.weights == {"boosted": 100}
        decision = scene.status()["rollout"]["decision"]
        assert (decision["reason"], decision["variant"], decision["analysis"]) == ("Superior", "boosted", "Pass")


async def test_another_operator_goes_on_without_registering_again(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    scene.server.create(experiment(experiment=GUARDED))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
    stand.asked.clear()
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        assert {method for method, _ in stand.asked} == {"GET"}
        assert scene.weights == {"logistic": 90, "boosted": 10}
        assert scene.status()["experiment"]["verdict"] == "NoData"


@pytest.mark.parametrize("url", ["https://other.test/ledger", f"{URL}.evil.test"])
async def test_the_ledger_may_be_a_deployments_own_and_is_given_no_key(
    scene: Scene, stand: LedgerStand, tmp_path: Path, url: str
) -> None:
    own = {"ledger": {"url": url}}
    scene.server.create(experiment(experiment=GUARDED, feedback=own))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        known = feedback(scene)
        assert known is not None
        assert (known.ledger, known.api_key) == (url, None)
        assert stand.asked[0] == ("PUT", f"{urlsplit(url).path}/v1/experiments/{SALT}")
        assert "authorization" not in stand.headers


async def test_servers_keep_what_they_have_while_the_operators_keys_cannot_be_read(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    scene.server.create(experiment(experiment=GUARDED))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        before = feedback(scene)
        (tmp_path / "keys.json").write_text("{}")
        await rest(life, stand)
        assert feedback(scene) == before
        assert scene.reason("ExperimentHealthy") == "LedgerMissing"
        assert scene.weights == {"logistic": 90, "boosted": 10}
        rotated = KeyRing((SigningKey("k2", bytes(range(32))), *ROOT.signing), ROOT.units)
        (tmp_path / "keys.json").write_text(rotated.dumped())
        await rest(life, stand)
        known = feedback(scene)
        assert known is not None
        assert [key.id for key in known.keys.signing] == ["k2", "k1"]
        assert scene.reason("ExperimentHealthy") == "Observing"


async def test_without_keys_or_ledger_no_treatment_gets_weight_and_the_setting_is_named(
    scene: Scene, stand: LedgerStand, tmp_path: Path
) -> None:
    scene.server.create(experiment(experiment=GUARDED))
    async with scene.life() as life:
        await rest(life, stand)
        assert scene.weights == {"logistic": 100}
        assert "spec.feedback.ledger.url" in scene.condition("ExperimentHealthy")[2]
    async with scene.life(ledger_url=URL) as life:
        await rest(life, stand)
        assert scene.weights == {"logistic": 100}
        assert "--feedback-keys" in scene.condition("ExperimentHealthy")[2]
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        assert scene.weights == {"logistic": 90, "boosted": 10}


async def test_an_experiment_without_metrics_needs_no_ledger(scene: Scene, stand: LedgerStand) -> None:
    scene.server.create(experiment())
    async with scene.life() as life:
        await rest(life, stand)
        assert scene.weights == {"logistic": 90, "boosted": 10}
        assert stand.asked == []
        assert feedback(scene) is None


async def test_what_has_gone_is_asked_about_no_more(scene: Scene, stand: LedgerStand, tmp_path: Path) -> None:
    scene.server.create(experiment(experiment=GUARDED, routing=routing()))
    async with scene.life(**told(tmp_path)) as life:
        await rest(life, stand)
        source = reach(life, stand)
        scene.server.delete("ModelDeployment", "flights", "delay")
        await life.rest()
        assert source.due_s(DELAY) is None
