"""What is refused: one table for pydantic and for the CRD, so that they cannot drift apart."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

GONE: Any = object()
"""In a change: the field is taken out."""

DIGESTS = [f"sha256:{letter * 64}" for letter in "abcdef"]


def variant(name: str, role: str, digest: str = DIGESTS[0]) -> Object:
    """Return a variant of a cluster."""
    return {"name": name, "role": role, "model": {"uri": f"s3://models/{name}.onnx", "digest": digest}}


def experiment() -> Object:
    """Return a good ModelDeployment for a cluster: an experiment with two treatments and a shadow."""
    return {
        "apiVersion": "serving.fairlead.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "arrival-delay", "namespace": "default"},
        "spec": {
            "featureStore": {"configMapRef": {"name": "feast-client"}},
            "variants": [
                variant("logistic", "Control"),
                variant("boosted", "Treatment", DIGESTS[1]),
                variant("forest", "Treatment", DIGESTS[2]),
                variant("shadow", "Shadow", DIGESTS[3]),
            ],
            "routing": {"unit": {"header": "x-unit-id"}},
            "rollout": {
                "strategy": "Experiment",
                "steps": [{"weights": {"boosted": 10, "forest": 12.25}, "hold": "30m"}, {"weights": {"boosted": 50}}],
            },
            "experiment": {"id": "e1"},
        },
    }


def judged() -> Object:
    """Return a good ModelDeployment whose experiment says how it is judged."""
    block = {
        "id": "e1",
        "objective": {"metric": "brier", "minimumEffect": "5%"},
        "guardrails": [
            {"metric": "latency_ms", "margin": "10%"},
            {"metric": "error", "margin": "0.1pp"},
            {"metric": "complaints", "kind": "Proportion", "better": "Lower", "margin": "0.01"},
            {"metric": "wait_s", "kind": "Quantile", "better": "Lower", "quantile": 0.99, "margin": "5%"},
        ],
        "alpha": 0.05,
        "requestsPerUnit": 50,
        "outcomeWindow": "24h",
        "covariate": {"feature": "tail_performance:mean_delay_7d"},
        "maximumDuration": "14d",
    }
    feedback = {"ledger": {"url": "http://fairlead-ledger.fairlead.svc:8080"}}
    return changed(experiment(), {"spec.experiment": block, "spec.feedback": feedback})


def manual() -> Object:
    """Return a good ModelDeployment with weights that stand in it."""
    return changed(
        experiment(), {"spec.rollout": {"strategy": "Manual", "weights": {"boosted": 50}}, "spec.experiment": GONE}
    )


def canary() -> Object:
    """Return a good ModelDeployment that moves revisions of its Control by steps."""
    spec = {
        "spec.variants": [variant("logistic", "Control"), variant("shadow", "Shadow")],
        "spec.rollout": {"strategy": "Canary", "steps": [{"weights": {"logistic": 10}, "hold": "5m"}]},
        "spec.experiment": GONE,
    }
    return changed(experiment(), spec)


def guarded() -> Object:
    """Return a good ModelDeployment that moves revisions of its Control by steps, as guardrails allow."""
    return changed(canary(), {"spec.experiment": {"guardrails": [{"metric": "error", "margin": "1pp"}]}})


def changed(base: Object, changes: Object) -> Object:
    """Return a copy of ``base`` with every path of ``changes`` set; numbers are indices, ``+`` appends."""
    made = copy.deepcopy(base)
    for path, value in changes.items():
        *above, last = path.split(".")
        where: Any = made
        for name in above:
            where = where[int(name)] if isinstance(where, list) else where.setdefault(name, {})
        if last == "+":
            where.append(copy.deepcopy(value))
        elif value is GONE:
            del where[int(last) if isinstance(where, list) else last]
        else:
            where[int(last) if isinstance(where, list) else last] = copy.deepcopy(value)
    return made


@dataclass(frozen=True, slots=True)
class Refusal:
    """One way to be refused."""

    name: str
    """The CEL rule's name, or what the schema's own check is about."""
    changes: Object
    """What is wrong with a good object."""
    python: str
    """Part of what pydantic says; empty where one machine accepts it."""
    cluster: str
    """Part of what the API server says."""
    base: Object = field(default_factory=experiment)

    @property
    def broken(self) -> Object:
        """The object that is refused."""
        return changed(self.base, self.changes)


@dataclass(frozen=True, slots=True)
class Transition:
    """One change while an experiment runs."""

    name: str
    changes: Object
    cluster: str
    """Part of what the API server says; empty where the change is allowed."""
    base: Object = field(default_factory=experiment)

    @property
    def after(self) -> Object:
        """The object after the change."""
        return changed(self.base, self.changes)


_CHOSE = "choose another"
_OBJECTIVE = "spec.experiment.objective"
_GUARDRAIL = "spec.experiment.guardrails.0"


def _of_a_metric(name: str, at: str, size: str) -> tuple[Refusal, ...]:
    """Return what is refused of a metric with the size of an effect, in an objective or in a guardrail."""
    described = {"metric": "clicks", "kind": "Mean", "better": "Higher", size: "5%"}
    quantile = {**described, "kind": "Quantile", "quantile": 0.5}
    without = {key: value for key, value in quantile.items() if key != "quantile"}
    return tuple(
        Refusal(f"{name}-{what}", {at: given}, said, said, judged())
        for what, given, said in (
            ("built-in", {"metric": "log_loss", "kind": "Mean", size: "5%"}, "is built in, so that its kind and"),
            ("built-in", {"metric": "log_loss", "quantile": 0.5, size: "5%"}, "remove kind, better and quantile"),
            ("described", {"metric": "clicks", "better": "Higher", size: "5%"}, "); say its kind and which is better"),
            (
                "described",
                {"metric": "clicks", "kind": "Mean", size: "5%"},
                "is not built in (brier, log_loss",
            ),
            ("quantile", without, "is required where kind is Quantile, and is for that alone"),
            ("quantile", {**quantile, "kind": "Mean"}, "is required where kind is Quantile, and is for that alone"),
            ("over-0", {**described, size: "0.0%"}, "must be over 0; a difference of nothing can never be told"),
            ("under-100", {**described, size: "100%"}, "must be under 100 per cent; lower it"),
            ("points", {**described, size: "5pp"}, "has pp, which is for proportions; give per cent, or the metric"),
            ("points", {"metric": "log_loss", size: "5pp"}, "has pp, which is for proportions; give per cent, or"),
        )
    )


_STEP = "spec.rollout.steps.0.weights"

REFUSALS: tuple[Refusal, ...] = (
    Refusal("some-control", {"spec.variants.0.role": "Shadow"}, "give it to the one that serves", "give it to the one"),
    Refusal(
        "one-control", {"spec.variants.3.role": "Control"}, "is a second Control", "more than one variant has role"
    ),
    Refusal(
        "names: unique",
        {"spec.variants.3.name": "logistic"},
        "is listed twice",
        'spec.variants[3]: Duplicate value: {"name":"logistic"}',
    ),
    Refusal(
        "names-fit",
        {"metadata.name": "a" * 30},
        "together at most 36 letters",
        "together have over 36 letters; shorten one",
    ),
    Refusal(
        "one-feature-store",
        {"spec.featureStore": {}},
        "give exactly one of path",
        "give exactly one of configMapRef and featureStoreRef",
    ),
    Refusal(
        "one-feature-store",
        {"spec.featureStore.featureStoreRef": {"name": "feast"}},
        "give exactly one of path",
        "give exactly one of configMapRef and featureStoreRef",
    ),
    Refusal(
        "store-in-cluster",
        {"spec.featureStore": {"path": "store"}},
        "",
        "path is for one machine (fairlead up); in a cluster give configMapRef or featureStoreRef",
    ),
    Refusal(
        "store-in-cluster",
        {"spec.featureStore": {"path": "store", "secretRef": {"name": "redis"}}},
        "is for clusters; on one machine set environment",
        "path is for one machine",
    ),
    *(
        Refusal("model-in-cluster", {"spec.variants.1.model.uri": uri}, "", "paths and file:// are for one machine")
        for uri in (
            "boosted.onnx",
            "file:///models/boosted.onnx",
            "../boosted.onnx",
            "oci://models/boosted",
            "S3://m/b",
        )
    ),
    Refusal(
        "claim-needs-no-storage",
        {"spec.variants.1.model": {"uri": "pvc://models/b.onnx", "digest": DIGESTS[1], "storage": {"region": "x"}}},
        "",
        "a pvc:// is mounted: remove storage",
    ),
    Refusal(
        "replicas-in-order",
        {"spec.variants.0.scaling": {"minReplicas": 3, "maxReplicas": 2}},
        "is below minReplicas",
        "is below minReplicas; raise it",
    ),
    Refusal(
        "one-unit-source",
        {"spec.routing.unit": {"jwtClaim": "sub", "cookie": {"name": "ab"}}},
        "exclude each other",
        "cookie and jwtClaim exclude each other; remove one",
    ),
    Refusal("headers-differ", {"spec.routing.override.header": "x-unit-id"}, "is also unit.header", _CHOSE),
    Refusal("headers-differ", {"spec.routing.unit.header": "x-fairlead-variant"}, "is also unit.header", _CHOSE),
    Refusal(
        "headers-differ", {"spec.routing.unit": {}, "spec.routing.override.header": "x-unit-id"}, "is also", _CHOSE
    ),
    Refusal("unit-header-free", {"spec.routing.unit.header": "x-variant"}, "has another meaning", _CHOSE),
    Refusal("override-header-free", {"spec.routing.override.header": "cookie"}, "has another meaning", _CHOSE),
    Refusal(
        "manual-has-no-steps",
        {"spec.rollout.strategy": "Manual"},
        "are for Canary and Experiment",
        "steps are for Canary and Experiment, Manual has weights; remove them",
    ),
    Refusal(
        "manual-has-no-steps",
        {"spec.rollout.strategy": GONE},
        "are for Canary and Experiment",
        "steps are for Canary and Experiment, Manual has weights; remove them",
    ),
    Refusal(
        "weights-are-manual",
        {"spec.rollout.weights": {"boosted": 10}},
        "are for Manual; Experiment has steps",
        "weights are for Manual, Canary and Experiment have steps; remove them",
    ),
    Refusal(
        "steps-required", {"spec.rollout.steps": []}, "needs at least one step", "need at least one step; give one"
    ),
    Refusal("steps-required", {"spec.rollout.steps": GONE}, "needs at least one step", "need at least one step"),
    Refusal(
        "hold-required",
        {"spec.rollout.steps.0.hold": GONE},
        "is required on every step but the last",
        "hold is required on every step but the last",
    ),
    Refusal(
        "canary-has-no-treatments",
        {"spec.variants.+": variant("boosted", "Treatment")},
        "remove the Treatments",
        "remove the Treatments, or use Manual or Experiment",
        canary(),
    ),
    Refusal(
        "experiment-id-required",
        {"spec.experiment.id": GONE},
        "is required where Treatments are compared",
        "is required where Treatments are compared; give one",
    ),
    Refusal(
        "canary-has-guardrails",
        {"spec.experiment": {"alpha": 0.05}},
        "are what a Canary is judged by",
        "are what a Canary is judged by; give at least one",
        canary(),
    ),
    Refusal(
        "canary-has-no-id",
        {"spec.experiment.id": "e1"},
        "is each revision's own under Canary; remove it",
        "is each revision's own under Canary; remove it",
        guarded(),
    ),
    Refusal(
        "canary-has-no-objective",
        {"spec.experiment.objective": {"metric": "latency_ms", "minimumEffect": "5%"}},
        "judged by guardrails alone; remove it",
        "judged by guardrails alone; remove it",
        guarded(),
    ),
    Refusal(
        "canary-has-no-covariate",
        {"spec.experiment.covariate": {"feature": "tail_performance:mean_delay_7d"}},
        "which a Canary has none of; remove it",
        "which a Canary has none of; remove it",
        guarded(),
    ),
    Refusal(
        "canary-has-no-maximum-duration",
        {"spec.experiment.maximumDuration": "14d"},
        "a Canary ends with its steps; remove it",
        "a Canary ends with its steps; remove it",
        guarded(),
    ),
    Refusal(
        "canary-compares-two",
        {f"{_STEP}.logistic": 100},
        "must be over 0 and under 100",
        "weights must be over 0 and under 100",
        guarded(),
    ),
    Refusal(
        "canary-compares-two",
        {f"{_STEP}.logistic": 0},
        "must be over 0 and under 100",
        "weights must be over 0 and under 100",
        guarded(),
    ),
    Refusal(
        "experiment-required",
        {"spec.experiment": GONE},
        "is required where rollout.strategy is Experiment; give it an id",
        "is required where rollout.strategy is Experiment; give it an id",
    ),
    Refusal(
        "experiment-has-treatments",
        {"spec.variants": [variant("logistic", "Control"), variant("boosted", "Shadow")], _STEP: {"boosted": 1}},
        "an Experiment needs a Treatment",
        "an Experiment needs a Treatment; add one",
    ),
    Refusal(
        "unit-required",
        {"spec.routing.unit": GONE},
        "say which header, claim or cookie",
        "say which header, claim or cookie names a unit",
    ),
    Refusal("unit-required", {"spec.routing": GONE}, "say which header, claim", "say which header, claim or cookie"),
    Refusal(
        "weights-known", {"spec.rollout.weights": {"bosted": 5}}, "is no variant", "bosted is no variant", manual()
    ),
    Refusal("steps-known", {f"{_STEP}.bosted": 5}, "is no variant", "an entry of weights is no variant; see"),
    Refusal(
        "weights-not-on-control",
        {"spec.rollout.weights.logistic": 5},
        "takes the rest; remove it",
        "logistic is the Control, which takes the rest; remove it",
        manual(),
    ),
    Refusal("steps-not-on-control", {f"{_STEP}.logistic": 5}, "takes the rest", "an entry of weights is the Control"),
    Refusal(
        "weights-not-on-shadow",
        {"spec.rollout.weights.shadow": 5},
        "gets copies only",
        "shadow is a Shadow, which gets copies only; remove it",
        manual(),
    ),
    Refusal("steps-not-on-shadow", {f"{_STEP}.shadow": 5}, "gets copies only", "an entry of weights is a Shadow"),
    Refusal(
        "steps-not-on-shadow", {f"{_STEP}.shadow": 5}, "gets copies only", "an entry of weights is a Shadow", canary()
    ),
    Refusal(
        "weights-in-slot",
        {"spec.rollout.weights.boosted": 50.01},
        "is over 50, the slot of each of 2",
        "boosted is over its slot, which is 100 divided by",
        manual(),
    ),
    Refusal("steps-in-slot", {f"{_STEP}.forest": 100}, "is over 50, the slot", "an entry of weights is over its slot"),
    Refusal(
        "weight: at most 100", {f"{_STEP}.forest": 100.01}, "less than or equal to 100", "less than or equal to 100"
    ),
    Refusal("weight: at least 0", {f"{_STEP}.forest": -1}, "greater than or equal to 0", "greater than or equal to 0"),
    Refusal("weight: two decimals", {f"{_STEP}.forest": 0.125}, "more than two decimals", "more than two decimals"),
    Refusal("weight: two decimals", {f"{_STEP}.forest": 33.333}, "more than two decimals", "more than two decimals"),
    Refusal("weight: a number", {f"{_STEP}.forest": "5"}, "valid number", "must be of type number"),
    Refusal("weights: some", {_STEP: {}}, "at least 1 item", "should have at least 1 properties"),
    Refusal(
        "mirror: per cent", {"spec.routing.mirror.percent": 101}, "less than or equal to 100", "less than or equal"
    ),
    Refusal(
        "fault: per cent",
        {"spec.routing.fault": {"delay": {"percent": 101, "duration": "1s"}}},
        "less than or equal to 100",
        "less than or equal to 100",
    ),
    Refusal(
        "duration: form", {"spec.routing.timeout": "20"}, "should match pattern", "must be a duration such as 20ms"
    ),
    Refusal("duration: form", {"spec.routing.timeout": "٣s"}, "should match pattern", "should match"),
    Refusal("duration: over 0", {"spec.routing.timeout": "0s"}, "must be over 0", "over 0 and at most 10m"),
    Refusal("duration: limit", {"spec.routing.timeout": "10m1ms"}, "at most 600s", "over 0 and at most 10m"),
    Refusal("duration: limit", {"spec.hydration.deadline": "2h"}, "at most 60s", "over 0 and at most 1m"),
    Refusal("duration: limit", {"spec.hydration.maxAge": {"tail": "367d"}}, "at most 3", "at most 366d"),
    Refusal("duration: limit", {"spec.rollout.steps.0.hold": "2161h"}, "at most 7", "at most 90d"),
    Refusal("model: digest", {"spec.variants.0.model.digest": GONE}, "required", "digest: Required value"),
    Refusal("model: digest", {"spec.variants.0.model.digest": "sha256:b"}, "should match pattern", "should match"),
    Refusal("release: exact", {"spec.serving.release": "latest"}, "should match pattern", "should match"),
    Refusal("release: exact", {"spec.serving.release": "0.1"}, "should match pattern", "should match"),
    Refusal("role: one of three", {"spec.variants.0.role": "control"}, "'Control'", '"Control"'),
    Refusal("name: form", {"metadata.name": "arrival.delay"}, "should match pattern", "should match"),
    Refusal("name: length", {"metadata.name": "a" * 35}, "at most 34", "metadata.name"),
    *_of_a_metric("objective", _OBJECTIVE, "minimumEffect"),
    *_of_a_metric("guardrails", _GUARDRAIL, "margin"),
    Refusal("size: form", {f"{_OBJECTIVE}.minimumEffect": "5 %"}, "should match pattern", "should match", judged()),
    Refusal("size: form", {f"{_OBJECTIVE}.minimumEffect": "-5%"}, "should match pattern", "should match", judged()),
    Refusal("size: a text", {f"{_OBJECTIVE}.minimumEffect": 0.05}, "valid string", "must be of type string", judged()),
    Refusal(
        "metrics-differ",
        {f"{_GUARDRAIL}.metric": "brier"},
        "brier is judged twice; name each metric once",
        "the objective is judged twice; name each metric once",
        judged(),
    ),
    Refusal(
        "guardrails: unique",
        {f"{_GUARDRAIL}.metric": "error"},
        " is judged twice; name each metric once",
        'spec.experiment.guardrails[1]: Duplicate value: {"metric":"error"}',
        judged(),
    ),
    Refusal(
        "metrics-of-one-meaning",
        {f"{_GUARDRAIL}.metric": "absolute_error"},
        "squared_error and absolute_error for numbers; keep those of one kind",
        "squared_error and absolute_error for numbers; keep those of one kind",
        judged(),
    ),
    Refusal(
        "outcome-window-required",
        {"spec.experiment.outcomeWindow": GONE},
        "is required where outcomes are waited for; say how long after a prediction they come",
        "is required where outcomes are waited for; say how long after a prediction they come, such as 24h",
        judged(),
    ),
    Refusal(
        "alpha: bounds", {"spec.experiment.alpha": 0.6}, "less than or equal to 0.5", "less than or equal", judged()
    ),
    Refusal(
        "covariate: form",
        {"spec.experiment.covariate.feature": "mean_delay_7d"},
        "should match pattern",
        "should match",
        judged(),
    ),
    *(
        Refusal("ledger: form", {"spec.feedback.ledger.url": url}, "should match pattern", "should match", judged())
        for url in ("ledger", "ftp://ledger", "http://user@ledger", "http://ledger/?a=b")
    ),
    Refusal("experiment: id", {"spec.experiment.id": "E 1"}, "should match pattern", "should match"),
    Refusal("unknown field", {"spec.featureStore.pfad": "x"}, "Extra inputs", 'unknown field "spec.featureStore.pfad"'),
    Refusal("variants: some", {"spec.variants": []}, "at least 1 item", "at least 1 items"),
    Refusal("resources: names", {"spec.variants.0.resources.limits": {"gpu": "1"}}, "'memory'", "unknown field"),
    Refusal(
        "resources: amounts", {"spec.variants.0.resources.limits": {"cpu": "much"}}, "should match", "should match"
    ),
)
"""Every rule of the schema at least once."""

_SUFFIX = ": bump experiment.id, or remove the experiment block to end it"

_STRICT = changed(
    experiment(),
    {
        "spec.hydration": {
            "deadline": "20ms",
            "onStale": "Reject",
            "onStoreError": "LastGood",
            "maxAge": {"tail": "1h"},
        },
        "spec.routing.unit": {"header": "x-user", "cookie": {"name": "ab", "ttl": "90d"}},
    },
)
_REACHED = changed(
    experiment(),
    {"spec.routing.hosts": ["a.example", "b.example"], "spec.routing.gateways": ["ingress/public", "ingress/own"]},
)
_BY_HAND = changed(manual(), {"spec.experiment": {"id": "e1"}})
_JUDGED_BY_HAND = changed(manual(), {"spec.experiment": judged()["spec"]["experiment"]})
_CLAIMED = changed(experiment(), {"spec.routing.unit": {"jwtClaim": "sub"}})

_OF_STRATEGY = ("spec.variants", "spec.rollout", "spec.experiment")

TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        "arms-frozen",
        {"spec.variants.1.role": "Shadow", _STEP: {"forest": 5}, "spec.rollout.steps.1.weights": {"forest": 5}},
        f"experiment e1 has frozen its arms{_SUFFIX}",
    ),
    Transition("arms-frozen", {"spec.variants.0.name": "linear"}, "experiment e1 has frozen its arms"),
    Transition(
        "arms-frozen",
        {"spec.variants.+": variant("tree", "Treatment"), "spec.rollout.steps.1.weights": {"tree": 5}},
        "frozen its arms",
    ),
    Transition(
        "models-frozen", {"spec.variants.1.model.digest": DIGESTS[5]}, f"e1 has frozen the models of its arms{_SUFFIX}"
    ),
    Transition("models-frozen", {"spec.variants.0.model.digest": DIGESTS[5]}, "frozen the models of its arms"),
    Transition("unit-frozen", {"spec.routing.unit.header": "x-user"}, f"e1 has frozen routing.unit{_SUFFIX}"),
    Transition("unit-frozen", {"spec.routing.unit.jwtClaim": "sub"}, "frozen routing.unit"),
    Transition("unit-frozen", {"spec.routing.unit.cookie": {"name": "ab"}}, "frozen routing.unit"),
    Transition("hydration-frozen", {"spec.hydration.deadline": "20ms"}, f"e1 has frozen hydration{_SUFFIX}"),
    Transition("hydration-frozen", {"spec.hydration.onMissing": "Reject"}, "frozen hydration"),
    Transition("hydration-frozen", {"spec.hydration.maxAge": {"tail": "1h"}}, "frozen hydration"),
    Transition(
        "release-frozen",
        {"spec.serving.release": "0.2.0"},
        f"e1 has frozen serving.release{_SUFFIX}",
        changed(experiment(), {"spec.serving.release": "0.1.0"}),
    ),
    *(
        Transition("hydration-frozen", {f"spec.hydration.{field}": value}, "frozen hydration", _STRICT)
        for field, value in (
            ("deadline", GONE),
            ("onMissing", "Null"),
            ("onStale", GONE),
            ("onStoreError", "Null"),
            ("maxAge", GONE),
            ("maxAge.tail", "2h"),
            ("maxAge.other", "2h"),
        )
    ),
    Transition("hydration-frozen", {"spec.hydration": GONE}, "frozen hydration", _STRICT),
    Transition("unit-frozen", {"spec.routing.unit.header": GONE}, "frozen routing.unit", _STRICT),
    Transition("unit-frozen", {"spec.routing.unit.cookie": GONE}, "frozen routing.unit", _STRICT),
    Transition("unit-frozen", {"spec.routing.unit.cookie.name": "ba"}, "frozen routing.unit", _STRICT),
    Transition("unit-frozen", {"spec.routing.unit.jwtClaim": "email"}, "frozen routing.unit", _CLAIMED),
    Transition("unit-frozen", {"spec.routing.unit": {}}, "frozen routing.unit", _CLAIMED),
    Transition(
        "release-frozen",
        {"spec.serving": GONE},
        "frozen serving.release",
        changed(experiment(), {"spec.serving.release": "0.1.0"}),
    ),
    Transition(
        "arms-frozen",
        {
            "spec.variants.1": variant("forest", "Treatment", DIGESTS[2]),
            "spec.variants.2": variant("boosted", "Treatment", DIGESTS[1]),
        },
        "frozen its arms",
    ),
    Transition("how long a cookie lasts", {"spec.routing.unit.cookie.ttl": "120d"}, "", _STRICT),
    Transition(
        "the place of the control",
        {"spec.variants": [*experiment()["spec"]["variants"][1:], experiment()["spec"]["variants"][0]]},
        "",
    ),
    Transition(
        "new-names-fit",
        {"spec.variants.3.name": "a" * 30},
        "together have over 36 letters; shorten one",
        manual(),
    ),
    Transition("a new id", {"spec.experiment.id": "e2", "spec.variants.1.model.digest": DIGESTS[5]}, ""),
    Transition(
        "the experiment's end",
        {"spec.experiment": GONE, "spec.rollout": {"weights": {"boosted": 5}}, "spec.variants.0.name": "linear"},
        "",
    ),
    Transition("a shadow's model", {"spec.variants.3.model.digest": DIGESTS[5]}, ""),
    Transition("a shadow more", {"spec.variants.+": variant("other", "Shadow")}, ""),
    Transition(
        "steps-frozen", {f"{_STEP}.boosted": 20}, f"e1 has frozen the weights of its steps; more may be added{_SUFFIX}"
    ),
    Transition("steps-frozen", {f"{_STEP}.boosted": GONE}, "frozen the weights of its steps"),
    Transition("steps-frozen", {"spec.rollout.steps.0": GONE}, "frozen the weights of its steps"),
    Transition("steps-frozen", {"spec.rollout.steps.1.weights": {"forest": 50}}, "frozen the weights of its steps"),
    Transition("how long steps last", {"spec.rollout.steps.0.hold": "5m", "spec.rollout.steps.1.hold": "1h"}, ""),
    Transition(
        "a step more", {"spec.rollout.steps.1.hold": "1h", "spec.rollout.steps.+": {"weights": {"forest": 5}}}, ""
    ),
    *(
        Transition("design-frozen", {f"spec.experiment.{field}": value}, f"e1 has frozen its design{_SUFFIX}", judged())
        for field, value in {
            "objective": GONE,
            "objective.minimumEffect": "4%",
            "guardrails": GONE,
            "guardrails.1.margin": "0.2pp",
            "alpha": 0.1,
            "requestsPerUnit": GONE,
            "outcomeWindow": "48h",
            "covariate": GONE,
            "maximumDuration": "28d",
        }.items()
    ),
    Transition(
        "design-frozen",
        {"spec.experiment": judged()["spec"]["experiment"]},
        f"e1 has frozen its design{_SUFFIX}",
    ),
    Transition("a new id", {"spec.experiment": {"id": "e2"}}, "", judged()),
    Transition("the address of the ledger", {"spec.feedback.ledger.url": "https://ledger.example.org"}, "", judged()),
    Transition(
        "plan-frozen",
        {"spec.rollout.steps.1.hold": "1h", "spec.rollout.steps.+": {"weights": {"forest": 5}}},
        f"e1 has frozen rollout.strategy, the number of its steps and, under Manual, its weights{_SUFFIX}",
        judged(),
    ),
    Transition(
        "plan-frozen",
        {"spec.rollout": {"strategy": "Manual", "weights": {"boosted": 5}}},
        "e1 has frozen rollout.strategy",
        judged(),
    ),
    Transition("plan-frozen", {"spec.rollout.weights.boosted": 20}, "under Manual, its weights", _JUDGED_BY_HAND),
    Transition("what follows success", {"spec.rollout.onSuccess": "Hold"}, "", judged()),
    Transition("what follows success", {"spec.rollout.onSuccess": "Hold"}, "", _JUDGED_BY_HAND),
    Transition("weights that nobody planned", {"spec.rollout.weights.boosted": 20}, "", _BY_HAND),
    Transition("hosts-frozen", {"spec.routing.hosts": ["a.example"]}, f"e1 has frozen routing.hosts{_SUFFIX}"),
    Transition("hosts-frozen", {"spec.routing.hosts.+": "c.example"}, "frozen routing.hosts", _REACHED),
    Transition("hosts-frozen", {"spec.routing.hosts": GONE}, "frozen routing.hosts", _REACHED),
    Transition("gateways-frozen", {"spec.routing.gateways": ["a/b"]}, f"e1 has frozen routing.gateways{_SUFFIX}"),
    Transition("gateways-frozen", {"spec.routing.gateways.0": "other/public"}, "frozen routing.gateways", _REACHED),
    Transition("gateways-frozen", {"spec.routing": {"unit": {"header": "x-unit-id"}}}, "routing.gateways", _REACHED),
    Transition(
        "hosts between experiments", {"spec.routing.hosts": ["c.example"], "spec.experiment.id": "e2"}, "", _REACHED
    ),
    Transition(
        "a new revision, and all that a canary's next run is compared by",
        {
            "spec.variants.0.model.digest": DIGESTS[5],
            "spec.serving": {"release": "0.2.0"},
            "spec.hydration": {"deadline": "50ms"},
            "spec.routing": {"unit": {"header": "x-other"}},
            "spec.experiment.guardrails.0.margin": "2pp",
            f"{_STEP}.logistic": 20,
        },
        "",
        guarded(),
    ),
    Transition(
        "a canary's end, and an experiment's beginning",
        {field: experiment()["spec"][field.rpartition(".")[2]] for field in _OF_STRATEGY},
        "",
        guarded(),
    ),
    Transition("replicas", {"spec.variants.0.scaling": {"minReplicas": 2}}, ""),
    Transition("the address of the same model", {"spec.variants.0.model.uri": "s3://elsewhere/l.onnx"}, ""),
    Transition("what is the default anyway", {"spec.routing.unit": {}, "spec.hydration": {"deadline": "100ms"}}, ""),
    Transition("the timeout", {"spec.routing.timeout": "2s"}, ""),
)
"""What may change while an experiment runs, and what may not."""
