"""A route means the same behind Istio and on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings

from fairlead.route import EXPERIMENT_HEADER, VARIANT_HEADER
from fairlead_operator.api.v1alpha1 import Unit
from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes import render
from fairlead_operator.platforms.local import xds
from support.rendering import KEY, PLACE, routes

ONLY_HERE = (".probe", ".grpc.none")
"""Routes that one machine does not need: its splits are by hash as they are, and it has one answer to the unknown."""


def header(added: list[Mapping[str, Any]], name: str) -> str | None:
    return next((one["header"]["value"] for one in added if one["header"]["key"] == name), None)


def on_one_machine(of: Route) -> list[Any]:
    (host,) = xds.routes(of, KEY)["virtual_hosts"]
    told: list[Any] = []
    for entry in host["routes"]:
        if "direct_response" in entry:
            told.append(entry["direct_response"]["status"])
            continue
        action = entry["route"]
        told.append(
            {
                "timeout": action["timeout"],
                "retries": action["retry_policy"]["num_retries"],
                "hashed": action["weighted_clusters"].get("use_hash_policy", False),
                "shadows": len(action.get("request_mirror_policies", [])),
                "split": [
                    (
                        cluster["name"].rpartition(".")[0],
                        cluster["weight"],
                        header(cluster["request_headers_to_add"], VARIANT_HEADER),
                        header(cluster["request_headers_to_add"], EXPERIMENT_HEADER),
                    )
                    for cluster in action["weighted_clusters"]["clusters"]
                ],
            }
        )
    return told


def behind_istio(of: Route) -> list[Any]:
    patches = render.envoy_filter(PLACE, of, "istio-ingress", {})["spec"]["configPatches"]
    hashed = {patch["match"]["routeConfiguration"]["vhost"]["route"]["name"] for patch in patches}
    told: list[Any] = []
    for entry in render.virtual_service(PLACE, of, KEY)["spec"]["http"]:
        if entry["name"].endswith(ONLY_HERE):
            continue
        if "directResponse" in entry:
            told.append(entry["directResponse"]["status"])
            continue
        told.append(
            {
                "timeout": entry["timeout"],
                "retries": entry["retries"]["attempts"],
                "hashed": entry["name"] in hashed,
                "shadows": len(entry.get("mirrors", [])),
                "split": [
                    (
                        one["destination"]["host"].partition("-predictor.")[0],
                        one["weight"],
                        one["headers"]["request"]["set"][VARIANT_HEADER],
                        one["headers"]["request"]["set"].get(EXPERIMENT_HEADER),
                    )
                    for one in entry["route"]
                ],
            }
        )
    return told


@given(routes())
@settings(max_examples=100, deadline=None)
def test_a_route_means_the_same_behind_istio_and_on_one_machine(of: Route) -> None:
    # Cookies, tokens and faults are for clusters; a mirror of no share is left out there.
    reach = replace(of.reach, unit=Unit(), fault=None, mirror_percent=max(of.reach.mirror_percent, 1))
    shared = replace(of, reach=reach)
    assert behind_istio(shared) == on_one_machine(shared)
