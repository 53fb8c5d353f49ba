"""The story: which steps there are, in which order, and which stand on which."""

from __future__ import annotations

from e2e.scene import Scene
from e2e.steps import experiment, faults, install, kafka, refusals, rollout, scaling, serving, upkeep
from e2e.story import Chapter, Step

BEGINNING: tuple[Chapter[Scene], ...] = (
    (Step("cluster", "a node with Kubernetes, KServe, Istio and the released images", install.cluster, always=True),),
)
"""Done before the cluster's network is entered."""

_UP = ("cluster",)
_OPERATOR = (*_UP, "install")
_SERVING = (*_OPERATOR, "flights")
_SPLIT = (*_SERVING, "split")
_JUDGED = (*_SERVING, "ledger")

_KAFKA: Chapter[Scene] = (Step("kafka", "an experiment over a real Kafka broker", kafka.kafka, _JUDGED),)

_STORY: tuple[Chapter[Scene], ...] = (
    (Step("fresh", "what an earlier run left is removed", install.fresh, _UP),),
    (Step("install", "helm install, with the bundled Redis", install.install, (*_UP, "fresh")),),
    (
        Step("flights", "kubectl apply -f examples/flights/cluster/", install.flights, _OPERATOR),
        Step("helm-test", "helm test", install.helm_test, _OPERATOR),
    ),
    (Step("units", "5,000 units over REST and gRPC, against fairlead assign", serving.units, _SERVING),),
    (Step("predictions", "predictions against the ONNX files", serving.predictions, _SERVING),),
    (Step("ramp", "10 -> 50 % by a patch, under load", rollout.ramp, _SERVING),),
    (Step("promote", "fairlead promote", rollout.promote, _SERVING),),
    (Step("autoscaling", "pods by load, weight by pods", scaling.autoscale, _SERVING),),
    (Step("split", "a new experiment splits traffic again", rollout.split_again, _SERVING),),
    (Step("weights", "ten weight changes under load", faults.weights, _SPLIT),),
    (Step("pods", "every model pod deleted under load", faults.pods, _SPLIT),),
    (Step("operator", "the operator's pods deleted under load", faults.operator, _SPLIT),),
    (Step("istiod", "istiod restarted under load", faults.istiod, _SPLIT),),
    (Step("kserve", "KServe's controller restarted under load", faults.kserve, _SPLIT),),
    (Step("kubelet", "the kubelet restarted under load", faults.kubelet, _SPLIT),),
    (Step("upgrade-chart", "helm upgrade under load", upkeep.upgrade, _SPLIT),),
    (Step("upgrade", "fairlead upgrade to another server release under load", faults.upgrade, _SPLIT),),
    (Step("refusals", "five deployments broken at once", refusals.refusals, _SERVING),),
    (
        Step("doctor", "fairlead doctor", upkeep.doctor, _SERVING),
        Step("commands", "the command line and kubectl's plugin", upkeep.commands, _SERVING),
        Step("restricted", "every pod against the restricted standard", upkeep.restricted, _SERVING),
    ),
    (Step("uninstall", "helm uninstall under load", upkeep.uninstall, _SPLIT),),
    (Step("reinstall", "helm install over what serves", upkeep.reinstall, (*_SERVING, "uninstall")),),
    (Step("ledger", "the ledger and a PostgreSQL, by helm upgrade", experiment.ledger, _SERVING),),
    (Step("experiment", "an experiment to its verdict, promotion and record", experiment.experiment, _JUDGED),),
)
_ENDING: tuple[Chapter[Scene], ...] = (
    (Step("delete", "the ModelDeployments deleted", install.delete_flights, _SERVING),),
)


def story(*, with_kafka: bool) -> tuple[Chapter[Scene], ...]:
    """Return the steps, with an experiment over a real Kafka broker or without."""
    return (*_STORY, *([_KAFKA] if with_kafka else []), *_ENDING)
