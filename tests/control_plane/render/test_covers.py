"""Whether a live object already says what we would apply."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes import render
from fairlead_operator.platforms.kubernetes.render import covers
from support.rendering import GATEWAY_NAMESPACE, KEY, PLACE, SELECTOR, revision, route, routes

SCALARS = st.one_of(st.text(max_size=5), st.integers(-5, 5), st.booleans())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=4),
    max_leaves=15,
)
OBJECTS = st.dictionaries(st.text(min_size=1, max_size=4), VALUES, max_size=5)


def all_manifests() -> list[dict[str, Any]]:
    of = route()
    return [
        render.serving_runtime(PLACE, "0.1.0"),
        render.inference_service(PLACE, revision(), min_replicas=1, max_replicas=3, cpu_percent=70),
        render.storage_container("fairlead.local/server:0.1.0"),
        render.virtual_service(PLACE, of, KEY),
        render.envoy_filter(PLACE, of, GATEWAY_NAMESPACE, SELECTOR),
        *render.destination_rules(PLACE, of.reach, ["r1"]),
        render.network_policy(PLACE, ["istio-ingress"]),
        render.pod_disruption_budget(PLACE, "logistic", "r1"),
        render.authorization_policy(PLACE, of, KEY, GATEWAY_NAMESPACE, SELECTOR),
        render.serving_secret(PLACE, [KEY]),
        render.serving_config_map(PLACE, {"serving.json": "{}"}),
    ]


def add_defaults(value: Any, *, in_lists: bool = True) -> Any:
    """Return ``value`` as others would leave it: further fields in every object."""
    if isinstance(value, dict):
        return {
            **{name: add_defaults(part, in_lists=in_lists) for name, part in value.items()},
            "addedByOthers": "x",
        }
    return [add_defaults(part) for part in value] if isinstance(value, list) and in_lists else value


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all scalars."""
    if isinstance(value, dict):
        return [found for name, part in value.items() for found in paths(part, (*path, name))]
    if isinstance(value, list):
        return [found for index, part in enumerate(value) for found in paths(part, (*path, index))]
    return [path]


def parent(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path[:-1]:
        value = value[part]
    return value


@given(OBJECTS)
def test_an_object_covers_itself(wanted: dict[str, Any]) -> None:
    assert covers(copy.deepcopy(wanted), wanted)


@given(OBJECTS)
def test_what_others_add_is_no_difference(wanted: dict[str, Any]) -> None:
    assert covers(add_defaults(wanted), wanted)


@given(OBJECTS, OBJECTS)
def test_covering_both_ways_is_being_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    if covers(one, other) and covers(other, one):
        assert drop_empty(one) == drop_empty(other)


def drop_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: drop_empty(part) for name, part in value.items()}
        return {name: part for name, part in kept.items() if part not in ({}, [])}
    return [drop_empty(part) for part in value] if isinstance(value, list) else (type(value), value)


@pytest.mark.parametrize("manifest", all_manifests(), ids=lambda manifest: manifest["kind"])
def test_every_field_that_we_apply_is_seen_when_it_changes_or_goes(manifest: dict[str, Any]) -> None:
    live = add_defaults(json.loads(json.dumps(manifest)), in_lists="istio.io" not in manifest["apiVersion"])
    assert covers(live, manifest)
    for path in paths(manifest):
        for edit in ("change", "remove"):
            edited = copy.deepcopy(live)
            holder = parent(edited, path)
            if edit == "change":
                holder[path[-1]] = f"{holder[path[-1]]}?"
            else:
                del holder[path[-1]]
            assert not covers(edited, manifest), f"{edit} {path}"


def test_what_somebody_adds_to_a_route_of_istio_s_is_a_difference() -> None:
    wanted = render.virtual_service(PLACE, route(), KEY)
    live = copy.deepcopy(wanted)
    live["spec"]["http"][-1]["fault"] = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}
    assert not covers(live, wanted)
    live = {**wanted, "spec": {**wanted["spec"], "addedByOthers": "x"}}
    assert covers(live, wanted)


@given(routes(), routes())
@settings(max_examples=50, deadline=None)
def test_two_routes_are_covered_by_one_object_only_if_they_are_the_same(one: Route, other: Route) -> None:
    live = render.virtual_service(PLACE, one, KEY)
    assert covers(live, render.virtual_service(PLACE, other, KEY)) == (one == other)


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        ("1", "1000m", True),
        ("500m", "0.5", True),
        ("1Gi", "1024Mi", True),
        ("1G", "1Gi", False),
        ("2", "1", False),
        (1, "1", True),
        (None, "1", False),
        ("one", "1", False),
    ],
)
def test_quantities_are_compared_by_value(live: Any, wanted: str, same: bool) -> None:
    resources = {"resources": {"requests": {"cpu": wanted}}}
    assert covers({"resources": {"requests": {"cpu": live}}}, resources) is same


def test_lists_that_kubernetes_merges_are_compared_by_key_and_all_others_whole() -> None:
    variables = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert covers({"env": [*variables[::-1], {"name": "C", "value": "3"}]}, {"env": variables})
    assert not covers({"env": variables[:1]}, {"env": variables})
    assert covers({"args": ["a", "b"]}, {"args": ["a", "b"]})
    assert not covers({"args": ["a", "b", "c"]}, {"args": ["a", "b"]})
    assert not covers({"args": ["b", "a"]}, {"args": ["a", "b"]})


def test_another_owner_is_no_difference() -> None:
    owner = {"uid": "1", "kind": "ModelDeployment"}
    assert covers({"ownerReferences": [{"uid": "0"}, owner]}, {"ownerReferences": [owner]})


def test_another_owner_of_a_route_of_istio_s_is_no_difference() -> None:
    wanted = render.virtual_service(PLACE, route(), KEY)
    live = copy.deepcopy(wanted)
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "0"}
    live["metadata"]["ownerReferences"].insert(0, other)
    assert covers(live, wanted)
    live["metadata"]["ownerReferences"] = [other]
    assert not covers(live, wanted)


def test_a_number_is_no_boolean() -> None:
    assert not covers({"optional": 1}, {"optional": True})


def test_an_empty_object_may_be_left_out() -> None:
    assert covers({}, {"emptyDir": {}})
    assert covers({"ingress": None}, {"ingress": []})
