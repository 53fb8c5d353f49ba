"""Whatever pydantic accepts the schema accepts, and what one refuses the other refuses."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fairlead_operator.api.objects import from_object
from fairlead_operator.api.v1alpha1 import ModelDeployment
from support.admission import complaints
from support.refusals import DIGESTS, GONE, Object, changed

_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?", fullmatch=True)
_URIS = st.sampled_from(["s3://b/m.onnx", "gs://b/m", "https://x.org/m", "http://x/m", "pvc://claim/m.onnx"])


def _some(**parts: st.SearchStrategy[object]) -> st.SearchStrategy[Object]:
    """Return objects with any of the fields."""
    return st.fixed_dictionaries({}, optional=parts)


def _durations(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["1ms", "0.5s", "1m", "30s20ms", *texts])


_SCALINGS = st.tuples(st.integers(1, 1000), st.integers(1, 1000)).map(
    lambda pair: {"minReplicas": min(pair), "maxReplicas": max(pair), "target": {"cpuPercent": 70}}
)
_RESOURCES = _some(
    requests=_some(cpu=st.sampled_from(["1", "250m", "0.5"]), memory=st.sampled_from(["512Mi", "1Gi"])),
    limits=_some(memory=st.sampled_from(["1Gi", "2G"])),
)
_HYDRATIONS = _some(
    deadline=_durations("60s"),
    onMissing=st.sampled_from(["Default", "Null", "Reject"]),
    onStale=st.sampled_from(["Use", "Default", "Null", "Reject"]),
    onStoreError=st.sampled_from(["Default", "Null", "LastGood", "Reject"]),
    maxAge=st.dictionaries(st.text(min_size=1, max_size=20), _durations("24h", "366d"), max_size=4),
)
_UNITS = st.one_of(
    st.just({}),
    st.just({"header": "x-user"}),
    st.just({"jwtClaim": "sub"}),
    st.builds(lambda ttl: {"cookie": {"name": "ab_unit", "ttl": ttl}}, _durations("400d")),
)
_PERCENTS = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)
_ROUTINGS = _some(
    hosts=st.lists(st.sampled_from(["a.example.org", "b.example.org", "c"]), unique=True),
    gateways=st.lists(st.sampled_from(["istio-ingress/public", "a/b.c"]), unique=True),
    onMissingUnit=st.sampled_from(["Control", "Random", "Reject"]),
    override=_some(header=st.sampled_from(["x-test", "x-fairlead-variant"])),
    timeout=_durations("10m"),
    retries=_some(attempts=st.integers(0, 10)),
    outlierDetection=_some(consecutive5xx=st.integers(1, 1000), interval=_durations("1h")),
    connectionPool=_some(maxRequests=st.integers(1, 1_000_000)),
    mirror=_some(percent=_PERCENTS),
    fault=_some(
        delay=st.builds(lambda percent: {"percent": percent, "duration": "1s"}, _PERCENTS),
        abort=st.builds(lambda percent: {"percent": percent, "status": 503}, _PERCENTS),
    ),
)


_SIZES = st.sampled_from(["5%", "0.5%", "99.9%", "0.02", "3"])
_BUILT_IN = st.sampled_from(["brier", "log_loss", "latency_ms", "error"])
_OWN = st.builds(
    lambda name, kind, better: {"metric": name, "kind": kind, "better": better},
    st.sampled_from(["clicks", "wait_s", "x"]),
    st.sampled_from(["Mean", "Proportion"]),
    st.sampled_from(["Lower", "Higher"]),
)


@st.composite
def _experiments(draw: st.DrawFn) -> Object:
    """Good experiments, judged or not."""
    known: st.SearchStrategy[Object] = st.one_of(_BUILT_IN.map(lambda name: {"metric": name}), _OWN)
    metrics: list[Object] = draw(st.lists(known, max_size=4, unique_by=lambda one: str(one["metric"])))
    has_quantile, has_objective = draw(st.booleans()), draw(st.booleans())
    if metrics and has_quantile:
        metrics[0] = {"metric": "p99", "kind": "Quantile", "better": "Lower", "quantile": 0.99}
    block: Object = {
        "id": "e1",
        "outcomeWindow": draw(_durations("366d")),
        **draw(
            _some(
                alpha=st.sampled_from([0.0001, 0.05, 0.5]),
                requestsPerUnit=st.integers(1, 1_000_000),
                covariate=st.just({"feature": "view:name"}),
                maximumDuration=_durations("366d"),
            )
        ),
    }
    if metrics and has_objective:
        block["objective"] = {**metrics.pop(), "minimumEffect": draw(_SIZES)}
    return {**block, "guardrails": [{**one, "margin": draw(_SIZES)} for one in metrics]}


@st.composite
def _deployments(draw: st.DrawFn) -> Object:
    """Good ModelDeployments of every strategy."""
    strategy = draw(st.sampled_from(["Manual", "Canary", "Experiment"]))
    treatments = 0 if strategy == "Canary" else draw(st.integers(1 if strategy == "Experiment" else 0, 4))
    names = draw(st.lists(_NAMES, min_size=treatments + 1, max_size=treatments + 3, unique=True))
    roles = ["Control", *["Treatment"] * treatments, *["Shadow"] * (len(names) - treatments - 1)]
    spec: Object = {
        "featureStore": {draw(st.sampled_from(["configMapRef", "featureStoreRef"])): {"name": draw(_NAMES)}},
        "variants": [draw(_variants(name, role)) for name, role in zip(names, roles, strict=True)],
        **draw(
            _some(
                modelName=_NAMES, hydration=_HYDRATIONS, paused=st.booleans(), serving=_some(release=st.just("1.2.3"))
            )
        ),
    }
    arms = [names[0]] if strategy == "Canary" else names[1 : treatments + 1]
    spec["rollout"] = draw(_rollouts(strategy, arms, treatments))
    spec["routing"] = draw(_ROUTINGS)
    if strategy == "Experiment" or draw(st.booleans()):
        spec["routing"]["unit"] = draw(_UNITS)
    if strategy == "Experiment" or (strategy == "Manual" and draw(st.booleans())):
        spec["experiment"] = draw(st.one_of(st.builds(lambda name: {"id": name}, _NAMES), _experiments()))
    metadata = {"name": draw(_NAMES), "namespace": draw(_NAMES)}
    return {
        "apiVersion": "serving.fairlead.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata,
        "spec": spec,
    }


def _variants(name: str, role: str) -> st.SearchStrategy[Object]:
    model = st.builds(lambda uri, digest: {"uri": uri, "digest": digest}, _URIS, st.sampled_from(DIGESTS))
    required = {"name": st.just(name), "role": st.just(role), "model": model}
    return st.fixed_dictionaries(required, optional={"scaling": _SCALINGS, "resources": _RESOURCES})


@st.composite
def _rollouts(draw: st.DrawFn, strategy: str, arms: list[str], treatments: int) -> Object:
    weights = st.integers(0, 10_000 // max(treatments, 1)).map(lambda hundredths: hundredths / 100)
    rollout: Object = draw(_some(progressDeadline=_durations("1d"), keepPrevious=_durations("30d")))
    if strategy == "Manual":
        return rollout | {"weights": {arm: draw(weights) for arm in arms if draw(st.booleans())}}
    steps: list[Object] = [
        {"weights": {arm: draw(weights) for arm in arms}, "hold": draw(_durations("90d"))}
        for _ in range(draw(st.integers(1, 4)))
    ]
    if draw(st.booleans()):
        del steps[-1]["hold"]
    return rollout | {"strategy": strategy, "steps": steps}


@given(deployment=_deployments())
@settings(max_examples=150)
def test_what_pydantic_accepts_the_schema_accepts(deployment: Object) -> None:
    parsed = ModelDeployment.model_validate_json(json.dumps(deployment))
    assert list(complaints(deployment)) == []
    assert from_object(deployment) == parsed
    # And what we write back, defaults and all, is as good.
    written = json.loads(parsed.model_dump_json(exclude_none=True))
    assert [one for one in complaints(written) if "unknown field" not in one] == []


def _weighed(deployment: Object, name: str, weight: object) -> Object:
    path = "spec.rollout.steps.0.weights" if "steps" in deployment["spec"]["rollout"] else "spec.rollout.weights"
    return changed(deployment, {f"{path}.{name}": weight})


_MUTATIONS: dict[str, Callable[[Object], Object]] = {
    "no control": lambda d: changed(d, {"spec.variants.0.role": "Shadow"}),
    "two controls": lambda d: changed(
        d, {"spec.variants.+": {**d["spec"]["variants"][0], "name": "zzzzzzzzzzzzzzzzz"}}
    ),
    "a name twice": lambda d: changed(d, {"spec.variants.+": {**d["spec"]["variants"][0], "role": "Shadow"}}),
    "a long name": lambda d: changed(d, {"spec.variants.0.name": "a" * 31}),
    "long names": lambda d: changed(d, {"metadata.name": "a" * 34, "spec.variants.0.name": "abc"}),
    "no digest": lambda d: changed(d, {"spec.variants.0.model.digest": GONE}),
    "an unknown weight": lambda d: _weighed(d, "zzzzzzzzzzzzzzzzz", 1),
    "a fine weight": lambda d: _weighed(d, d["spec"]["variants"][0]["name"], 0.001),
    "a heavy weight": lambda d: _weighed(d, d["spec"]["variants"][0]["name"], 100.01),
    "a long duration": lambda d: changed(d, {"spec.routing.timeout": "601s"}),
    "no duration": lambda d: changed(d, {"spec.routing.timeout": "0ms"}),
    "an unknown field": lambda d: changed(d, {"spec.routing.tiemout": "1s"}),
    "an unknown action": lambda d: changed(d, {"spec.hydration.onMissing": "LastGood"}),
    "two units": lambda d: changed(d, {"spec.routing.unit": {"jwtClaim": "sub", "cookie": {"name": "a"}}}),
    "one header for both": lambda d: changed(
        d, {"spec.routing.override": {"header": "a"}, "spec.routing.unit": {"header": "a"}}
    ),
    "both stores": lambda d: changed(
        d, {"spec.featureStore": {k: {"name": "a"} for k in ("configMapRef", "featureStoreRef")}}
    ),
    "an unknown strategy": lambda d: changed(d, {"spec.rollout.strategy": "Random"}),
    "weights and steps": lambda d: changed(d, {"spec.rollout": {"weights": {}, "steps": [{"weights": {"a": 1}}]}}),
    "replicas upside down": lambda d: changed(d, {"spec.variants.0.scaling": {"minReplicas": 5, "maxReplicas": 4}}),
    "a fraction of replicas": lambda d: changed(d, {"spec.variants.0.scaling": {"minReplicas": 1.5}}),
    "latest": lambda d: changed(d, {"spec.serving": {"release": "latest"}}),
    "a yes": lambda d: changed(d, {"spec.paused": "yes"}),
}


@pytest.mark.parametrize("mutation", _MUTATIONS)
@given(deployment=_deployments())
@settings(max_examples=10)
def test_what_one_refuses_the_other_refuses(mutation: str, deployment: Object) -> None:
    broken = _MUTATIONS[mutation](deployment)
    with pytest.raises(ValidationError):
        ModelDeployment.model_validate_json(json.dumps(broken))
    assert list(complaints(broken)) != []
