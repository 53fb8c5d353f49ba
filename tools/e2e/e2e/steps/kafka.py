"""An experiment that is told over Kafka alone: a real broker beside the node, and totals to the last one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from e2e.errors import see
from e2e.helm import CHARTS
from e2e.scene import CONTROL, DEPLOYMENT, FLIGHTS, TREATMENT, VERSION, Scene
from e2e.steps import experiment
from e2e.steps.experiment import Told
from e2e.steps.install import RELEASE, values
from e2e.steps.rollout import fresh_id
from e2e.story import Seen
from e2e.trial import pods_of
from fairlead.feedback.kafka import EXPOSURES_TOPIC, OUTCOMES_TOPIC
from support.cluster_deployed import Deployed
from support.kafka import KafkaBroker, jars, kafka_broker

GROUP = "fairlead-ledger"
_SEND_S = 30


def kafka(scene: Scene) -> Seen:
    """Tell servers and ledger of a broker by an upgrade, then run an experiment to its verdict: every outcome twice."""
    if scene.cluster.name != "bundled":
        return Seen("left out: the broker would run on this machine, where pods of kind do not reach it")
    see(jars() is not None, "there is no Kafka broker here: `make setup` fetches it, with Java and Maven")
    begun_s = time.monotonic()
    with kafka_broker(scene.facts.node_ip) as broker, scene.deployed() as deployed:
        broker.make(EXPOSURES_TOPIC, OUTCOMES_TOPIC)
        before = pods_of(deployed)
        brokers = {"ledger.kafka.bootstrapServers": broker.address, "networkPolicy.kafka.ports": [broker.port]}
        scene.helm.upgrade(RELEASE, CHARTS / RELEASE, {**values(VERSION), **experiment.enabled(scene), **brokers})
        see(pods_of(deployed) == before, "model pods were replaced")
        upgraded_s = time.monotonic() - begun_s
        told, said = _run(scene, deployed, broker)
        messages = {topic: broker.length(topic) for topic in (EXPOSURES_TOPIC, OUTCOMES_TOPIC)}
    text = (
        f"{len(told)} outcomes and {messages[EXPOSURES_TOPIC]} reports over a real broker, each outcome sent twice,"
        f" counted once; {said}; broker and upgrade {upgraded_s:.0f} s"
    )
    figures = {
        "predictions": len(told),
        "messages": sum(messages.values()),
        "upgraded_s": round(upgraded_s, 1),
        "whole_s": round(time.monotonic() - begun_s, 1),
    }
    return Seen(text, figures)


def _run(scene: Scene, deployed: Deployed, broker: KafkaBroker) -> tuple[Sequence[Told], str]:
    id_ = fresh_id("carried")
    producer = broker.producer()

    def tell(batch: Sequence[Told]) -> None:
        body = json.dumps({"outcomes": [one.outcome for one in batch]}).encode()
        for _ in range(2 if batch else 0):
            producer.produce(OUTCOMES_TOPIC, body)
        see(producer.flush(_SEND_S) == 0, "the broker did not take the outcomes")

    experiment.begin(scene, deployed, id_)
    scene.fairlead("pause", DEPLOYMENT, "-n", FLIGHTS)  # nothing is decided before all of it was told
    told = experiment.replay(scene, deployed, tell)
    experiment.wait_for_all(scene, f"{FLIGHTS}/{DEPLOYMENT}/{id_}", told)
    see({one.variant for one in told} == {CONTROL, TREATMENT}, "an arm was not seen")

    def is_read() -> bool:
        return broker.committed(GROUP, OUTCOMES_TOPIC) == broker.length(OUTCOMES_TOPIC)

    scene.wait("kafka", lambda: "messages are not committed", is_read)
    see(broker.length(EXPOSURES_TOPIC) >= len(pods_of(deployed)), "not every server reported over Kafka")
    return told, experiment.decide(scene, deployed)[1]
