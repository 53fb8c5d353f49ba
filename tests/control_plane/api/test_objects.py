"""Objects from the API are read strictly, and never crash the reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_operator.api.objects import from_object
from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION
from fairlead_operator.errors import ManifestError
from support.refusals import GONE, Object, changed, experiment

FROM_API = changed(
    experiment(),
    {
        "metadata.uid": "4b8f6f0e-6c1c-4a5e-9b0e-1d2c3b4a5968",
        "metadata.resourceVersion": "812",
        "metadata.generation": 7,
        "metadata.creationTimestamp": "2026-01-01T00:00:00Z",
        "metadata.finalizers": ["serving.fairlead.dev/routes"],
        "metadata.ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}],
        "metadata.managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}],
        "metadata.labels": {f"example.org/{number}": "x" for number in range(100)},
        "metadata.annotations": {PAUSED_ANNOTATION: "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
)


def test_metadata_that_the_platform_adds_is_left_out() -> None:
    deployment = from_object(FROM_API)
    assert (deployment.metadata.name, deployment.metadata.namespace) == ("arrival-delay", "default")
    assert deployment.metadata.generation == 7
    assert deployment.metadata.annotations == {PAUSED_ANNOTATION: "true"}
    assert deployment.metadata.labels == {}
    assert deployment.paused


def test_a_status_of_another_version_counts_as_none() -> None:
    known = {"observedGeneration": 3, "conditions": [], "servingRelease": "0.1.0"}
    read = from_object(changed(FROM_API, {"status": known})).status
    assert read is not None
    assert read.observed_generation == 3
    for unknown in ({}, {**known, "weather": "fine"}, {**known, "conditions": [{"type": "New"}]}, "x", [1]):
        assert from_object(changed(FROM_API, {"status": unknown})).status is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spec.variants.1.weather": "fine"}, r"spec\.variants\[1\]\.weather: is not a known field"),
        ({"spec.variants.0.model.digest": GONE}, r"spec\.variants\[0\]\.model\.digest: is required"),
        ({"spec": GONE}, "spec: is required"),
        ({"spec.rollout.steps.0.hold": "30"}, r"steps\[0\]\.hold: must be a duration such as 20ms"),
        ({"spec.featureStore": {"path": "x"}}, r"spec\.featureStore\.path: is for one machine .* give configMapRef"),
        ({"spec.variants.0.model.uri": "a.onnx"}, r"spec\.variants\[0\]\.model\.uri: is for one machine; put the file"),
        ({"spec.variants.0.model": {"uri": "pvc://a", "digest": "x", "storage": {}}}, "model.digest: must be sha256"),
        (
            {"spec.variants.0.model.uri": "pvc://a/b", "spec.variants.0.model.storage": {}},
            r"model\.storage: .* remove storage",
        ),
    ],
)
def test_an_object_that_an_older_schema_let_in_is_refused_by_field_and_fix(changes: Object, says: str) -> None:
    with pytest.raises(ManifestError, match=says) as caught:
        from_object(changed(FROM_API, changes))
    assert str(caught.value).startswith("default/arrival-delay: ")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_PATHS = [
    *("metadata", "metadata.name", "metadata.namespace", "metadata.generation", "metadata.labels", "spec", "status"),
    *("spec.variants", "spec.variants.0", "spec.variants.0.model.uri", "spec.rollout.steps", "spec.routing.unit"),
    *("spec.rollout.steps.0.weights", "spec.experiment", "spec.hydration", "kind"),
]


@given(path=st.sampled_from(_PATHS), value=_JSON)
def test_whatever_stands_in_an_object_it_is_read_or_refused(path: str, value: object) -> None:
    try:
        from_object(changed(FROM_API, {path: value}))
    except ManifestError as error:
        assert "\n" not in error.field  # noqa: PT017 -- reading may also succeed
