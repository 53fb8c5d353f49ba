"""The route in a cluster: what is written whole, can be read back, and never meets the filter with one destination."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from fairlead import BUCKETS
from fairlead.route import EXPERIMENT_HEADER, UNIT_PATTERN, cookie_pattern, verify
from fairlead_operator.api.v1alpha1.routing import Abort, Delay, Fault
from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes import render
from support.rendering import COOKIE, GATEWAY_NAMESPACE, KEY, PLACE, SELECTOR, revision_name, route, routes

GO_DURATION = re.compile(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+")


def rendered(of: Route) -> dict[str, Any]:
    return render.virtual_service(PLACE, of, KEY)


def http(of: Route) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = rendered(of)["spec"]["http"]
    return entries


def named(of: Route, end: str) -> dict[str, Any]:
    return next(entry for entry in http(of) if entry["name"] == f"flights.arrival-delay.{end}")


def filtered(of: Route) -> list[str]:
    patches = render.envoy_filter(PLACE, of, GATEWAY_NAMESPACE, SELECTOR)["spec"]["configPatches"]
    return [patch["match"]["routeConfiguration"]["vhost"]["route"]["name"] for patch in patches]


def durations(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, part in value.items():
            if name in {"timeout", "fixedDelay"}:
                yield part
            yield from durations(part)
    elif isinstance(value, list):
        for part in value:
            yield from durations(part)


@given(routes())
@settings(max_examples=60, deadline=None)
def test_no_route_that_the_filter_hashes_has_one_destination_or_no_weight(of: Route) -> None:
    by_name = {entry["name"]: entry for entry in http(of)}
    assert len(by_name) == len(http(of)), "names of routes are unique"
    for name in filtered(of):
        entries = by_name[name]["route"]
        assert len(entries) > 1
        assert sum(entry["weight"] for entry in entries) == BUCKETS
        assert "directResponse" not in by_name[name]


@given(routes())
@settings(max_examples=60, deadline=None)
def test_what_istio_does_not_check_is_right(of: Route) -> None:
    for entry in http(of):
        assert ("route" in entry) != ("directResponse" in entry)
        assert "mirror" not in entry
        for destination in entry.get("route", []):
            assert 0 <= destination["weight"] <= BUCKETS
            assert destination["destination"]["host"].endswith(".flights.svc.cluster.local")
            assert destination["destination"]["port"]["number"] == (8081 if ".grpc." in entry["name"] else 80)
        if "route" in entry:
            assert sum(destination["weight"] for destination in entry["route"]) == BUCKETS
        for share in [*entry.get("mirrors", []), *entry.get("fault", {}).values()]:
            assert 0 <= share["percentage"]["value"] <= 100
        for match in entry.get("match", []):
            for part in [match.get("uri", {}), *match.get("headers", {}).values()]:
                assert len(part.get("regex", "")) <= 1024, "istiod refuses longer ones"
                re.compile(part.get("regex", ""))
    assert all(GO_DURATION.fullmatch(text) for text in durations(http(of)))


@given(routes())
@settings(max_examples=60, deadline=None)
def test_a_route_is_read_back_as_it_was_written(of: Route) -> None:
    assert render.read_route(json.loads(json.dumps(rendered(of)))) == of
    assert rendered(of) == rendered(of)


@given(routes())
@settings(max_examples=50, deadline=None)
def test_every_experiment_header_of_a_client_is_taken_off_and_ours_verify(of: Route) -> None:
    for entry in http(of):
        for destination in entry.get("route", []):
            request = destination["headers"]["request"]
            assert {EXPERIMENT_HEADER, "x-fairlead-variant", of.reach.override_header} <= {*request["remove"]}
            signed = request.get("set", {}).get(EXPERIMENT_HEADER)
            if not entry["name"].endswith((".unit", ".cookie", ".new")) or of.observation is None:
                assert signed is None
                continue
            told = verify(signed, {KEY.id: KEY})
            assert destination["destination"]["host"].startswith(f"{told.revision}-predictor.")
            assert told.variant == request["set"]["x-variant"]
            assert (told.salt, told.phase, told.layout) == (
                of.observation.salt,
                of.observation.phase,
                of.observation.layout,
            )


@pytest.mark.parametrize(
    "annotations", [None, {}, {render.ROUTE_ANNOTATION: "no JSON"}, {render.ROUTE_ANNOTATION: '{"salt": "s"}'}]
)
def test_a_virtual_service_that_does_not_say_its_route_has_none(annotations: dict[str, str] | None) -> None:
    assert render.read_route({"metadata": {"annotations": annotations}}) is None


def test_order_and_names_of_routes() -> None:
    assert [entry["name"].removeprefix("flights.arrival-delay.") for entry in http(route(unit=COOKIE))] == [
        "http.probe",
        *("grpc.override.logistic", "grpc.override.boosted", "grpc.override.unknown", "grpc.unit", "grpc.missing"),
        *("http.override.logistic", "http.override.boosted", "http.override.unknown", "http.unit", "http.missing"),
        *("http.cookie", "http.new", "grpc.none", "http.none"),
    ]


def test_slots_keep_their_order_and_zero_widths() -> None:
    split = named(route({"a": 0, "b": 2500}), "http.unit")["route"]
    assert [(entry["headers"]["request"]["set"]["x-variant"], entry["weight"]) for entry in split] == [
        ("logistic", 5000),
        ("b", 2500),
        ("logistic", 2500),
    ]


def test_a_split_of_one_gets_a_second_destination_without_weight() -> None:
    alone = route()
    one = named(route(split=(alone.control,)), "http.unit")["route"]
    assert [entry["weight"] for entry in one] == [BUCKETS, 0]
    assert {entry["destination"]["host"] for entry in one} == {PLACE.host(revision_name("logistic"))}


def test_a_tester_is_told_when_a_variant_is_unknown_or_not_ready() -> None:
    of = route(overrides=(("logistic", revision_name("logistic")), ("boosted", None)))
    refused, unknown = named(of, "http.override.boosted"), named(of, "grpc.override.unknown")
    assert refused["directResponse"]["status"] == 503
    assert json.loads(refused["directResponse"]["body"]["string"]) == {"error": "variant boosted is not ready"}
    assert unknown["directResponse"]["status"] == 400
    assert unknown["headers"]["response"]["set"] == {"grpc-status": "3"}


def test_testers_meet_neither_faults_nor_copies() -> None:
    fault = Fault(delay=Delay(percent=10, duration="20ms"), abort=Abort(percent=1, status=503))
    of = route(shadows=(revision_name("shade"),), mirror_percent=12.5, fault=fault)
    expected = [
        {
            "destination": {"host": PLACE.host(revision_name("shade")), "port": {"number": 80}},
            "percentage": {"value": 12.5},
        }
    ]
    for end in ("http.unit", "http.missing"):
        assert named(of, end)["mirrors"] == expected
        assert named(of, end)["fault"]["delay"] == {"percentage": {"value": 10}, "fixedDelay": "0.02s"}
        assert named(of, end)["fault"]["abort"] == {"percentage": {"value": 1}, "httpStatus": 503}
    for end in ("http.probe", "http.override.logistic"):
        assert not {"mirrors", "fault"} & named(of, end).keys()


@pytest.mark.parametrize(
    ("policy", "destinations"),
    [("Control", [("logistic", BUCKETS)]), ("Random", [("boosted", 1000), ("logistic", 9000)])],
)
def test_requests_without_a_unit_go_where_the_policy_says(policy: str, destinations: list[tuple[str, int]]) -> None:
    entries = named(route(on_missing_unit=policy), "grpc.missing")["route"]
    assert [(entry["headers"]["request"]["set"]["x-variant"], entry["weight"]) for entry in entries] == destinations
    assert not any(EXPERIMENT_HEADER in entry["headers"]["request"]["set"] for entry in entries)


def test_requests_without_a_unit_are_refused_where_the_policy_says_so() -> None:
    assert named(route(on_missing_unit="Reject"), "http.missing")["directResponse"]["status"] == 400


def test_no_retries_means_none() -> None:
    assert named(route(retry_attempts=0), "http.unit")["retries"] == {"attempts": 0}


def test_a_probe_reaches_control_alone_and_its_value_is_new_with_the_salt() -> None:
    of = route()
    entries = named(of, "http.probe")["route"]
    assert {entry["destination"]["host"] for entry in entries} == {PLACE.host(revision_name("logistic"))}
    assert [entry["headers"]["response"]["set"]["x-fairlead-probe-arm"] for entry in entries] == ["a", "b"]
    assert render.probe_value(of, KEY) != render.probe_value(route(salt="flights/arrival-delay/e2"), KEY)


def test_only_browsers_get_cookies() -> None:
    of = route(unit=COOKIE)
    cookies = Counter(
        entry["name"].rpartition(".")[2]
        for entry in http(of)
        for destination in entry.get("route", [])
        if "add" in destination["headers"].get("response", {})
    )
    assert cookies == {"new": 2}
    assert named(of, "http.new")["route"][0]["headers"]["response"]["add"] == {
        "set-cookie": "ab-unit=%REQ(x-request-id)%; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"
    }


@pytest.mark.parametrize(
    ("cookie", "unit"),
    [
        ("ab-unit=u1", "u1"),
        ("a=b; ab-unit=u1; c=d", "u1"),
        ("a=b;ab-unit=u1 ; c=d", "u1"),
        ("ab-unit=u1; ab-unit=u2", "u2"),
        ("ab-unit=; ab-unit=u2", "u2"),
        ("ab-unit=u2; ab-unit=", "u2"),
        ("xab-unit=u1", None),
        ("a=ab-unit=u1", None),
        ("ab-unit=", None),
        ("ab-unit=a,b", None),
        ("ab-unit=" + "x" * 256, "x" * 256),
        ("ab-unit=" + "x" * 257, None),
    ],
)
def test_the_unit_in_a_cookie(cookie: str, unit: str | None) -> None:
    found = re.fullmatch(cookie_pattern("ab-unit"), cookie)
    assert (found and found[1]) == unit
    assert unit is None or re.fullmatch(UNIT_PATTERN, unit)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        *((path, True) for path in ("/v1/models", "/v1/models/m", "/v1/models/m:predict", "/v1/models/m:explain")),
        *((path, True) for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/m")),
        *((path, True) for path in ("/v2/models/m/infer", "/v2/models/m/ready", "/v2/models/m/versions/1/infer")),
        *((path, True) for path in ("/v2/repository/index",)),
        *((path, False) for path in ("/", "/metrics", "/v1", "/v2/models/m/unload", "/v2/repository/models/m/load")),
        *((path, False) for path in ("/v1/models/m:retrain", "/v2x", "/v2/models/m/infer/more")),
    ],
)
def test_only_predictions_explanations_metadata_and_health_are_reached(path: str, known: bool) -> None:
    pattern = named(route(), "http.unit")["match"][0]["uri"]["regex"]
    assert bool(re.fullmatch(pattern, path)) == known
