"""What stands beside the servers: rules, policies and what running servers are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fairlead.route import RouteKey
from fairlead_operator.api.v1alpha1.routing import OutlierDetection, Unit
from fairlead_operator.platforms.kubernetes import render
from fairlead_server.exposure.keys import RouteKeys
from support.rendering import GATEWAY_NAMESPACE, KEY, PLACE, SELECTOR, reach, route

SECOND = RouteKey("k0", b"\xff" * 16)


def test_the_server_reads_the_keys_that_the_secret_has(tmp_path: Path) -> None:
    secret = render.serving_secret(PLACE, [KEY, SECOND])
    assert render.read_keys(secret) == (KEY, SECOND)
    assert render.read_keys({}) == ()
    assert render.read_keys({"data": {"route-keys.json": "e30="}}) == ()
    from base64 import b64decode  # noqa: PLC0415 -- as the kubelet does

    (tmp_path / "route-keys.json").write_bytes(b64decode(secret["data"]["route-keys.json"]))
    assert RouteKeys(tmp_path).current() == {KEY.id: KEY, SECOND.id: SECOND}


def test_no_destination_rule_hashes_or_leaves_a_connection_idle_for_longer_than_servers_do() -> None:
    (rule,) = render.destination_rules(PLACE, reach(outlier_detection=OutlierDetection(interval="1m30s")), ["r1"])
    policy = rule["spec"]["trafficPolicy"]
    assert policy["loadBalancer"] == {"simple": "LEAST_REQUEST"}
    assert policy["connectionPool"]["http"]["idleTimeout"] == "3s"
    assert policy["outlierDetection"]["interval"] == "90s"


def test_a_request_without_a_token_of_the_right_issuer_or_without_the_claim_is_refused_on_our_hosts_alone() -> None:
    of = route(unit=Unit(jwt_claim="user.id"))
    policy = render.authorization_policy(PLACE, of, KEY, GATEWAY_NAMESPACE, SELECTOR, issuers=["https://i"])
    untrusted = [{"source": {"notRequestPrincipals": ["https://i/*"]}}]
    unnamed = {"key": "request.auth.claims[user][id]", "notValues": ["*"]}
    assert policy["spec"]["action"] == "DENY"
    for rule in policy["spec"]["rules"]:
        assert (rule.get("from") == untrusted) != (unnamed in rule.get("when", []))
        assert rule["to"][0]["operation"]["hosts"] == ["arrival-delay.example.org", "arrival-delay.example.org:*"]
    anyone = render.authorization_policy(PLACE, of, KEY, GATEWAY_NAMESPACE, SELECTOR)
    assert anyone["spec"]["rules"][0]["from"] == [{"source": {"notRequestPrincipals": ["*"]}}]


def test_no_two_deployments_share_an_object_in_the_gateways_namespace() -> None:
    names = {
        render.envoy_filter(replace(PLACE, namespace=space, name=name), route(), GATEWAY_NAMESPACE, SELECTOR)[
            "metadata"
        ]["name"]
        for space, name in (("a", "b-c"), ("a-b", "c"), ("a-b-c", "d"))
    }
    assert len(names) == 3


def test_nothing_is_owned_across_namespaces() -> None:
    filters = render.envoy_filter(PLACE, route(), GATEWAY_NAMESPACE, SELECTOR)
    assert "ownerReferences" not in filters["metadata"]
    assert filters["metadata"]["labels"] == PLACE.labels
    owned = render.network_policy(PLACE, ["istio-ingress"])
    assert owned["metadata"]["ownerReferences"][0]["uid"] == PLACE.uid
