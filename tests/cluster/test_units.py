"""Where units come from, at a real gateway: a header, a cookie that the gateway mints, a claim of a verified token."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import pytest

from fairlead import Layout, assign
from fairlead.clock import SystemClock
from fairlead.route import OVERRIDE_HEADER
from fairlead_operator.platforms.kubernetes.kinds import REQUEST_AUTHENTICATION, VIRTUAL_SERVICE
from support.cluster_deployments import Deployed
from support.cluster_scene import CONTROL, FIRST, NAME, SECOND, Scene
from support.gateway_asks import Answer, Called, Headers, ask, call, request
from support.tokens import Issuer

LAYOUT = Layout.of(CONTROL, {FIRST: 5000})
UNITS = [f"unit-{number}" for number in range(400)]
COOKIE = "ab-unit"
BROWSERS = 2000
YEAR_S = 365 * 86400
INVALID_ARGUMENT, PERMISSION_DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED

NO_UNIT = {
    "none": [],
    "empty": [("x-unit-id", "")],
    "257 bytes": [("x-unit-id", "u" * 257)],
    "comma": [("x-unit-id", "a,b")],
    "twice": [("x-unit-id", "a"), ("x-unit-id", "b")],
    "twice the same": [("x-unit-id", "a"), ("x-unit-id", "a")],
}
OF_256_BYTES = "u" * 256


def test_what_is_no_unit_goes_to_control(scene: Scene) -> None:
    deployed = _deploy(scene, {"onMissingUnit": "Control"})
    for name, headers in NO_UNIT.items():
        assert {one.variant for one in _rest(deployed, [headers] * 20)} == {CONTROL}, name
        assert {one.variant for one in _grpc(deployed, [headers] * 20)} == {CONTROL}, name
    odd = [OF_256_BYTES, "ü" * 128, "a b", "\\1 $1", '"quoted"', "100%"]
    expected = _law(deployed, odd)
    assert [one.variant for one in _rest(deployed, [[("x-unit-id", unit)] for unit in odd])] == expected


def test_what_is_no_unit_is_drawn_at_random(scene: Scene) -> None:
    deployed = _deploy(scene, {"onMissingUnit": "Random"})
    for name, headers in NO_UNIT.items():
        for asked in (_rest, _grpc):
            drawn = Counter(one.variant for one in asked(deployed, [headers] * 200))
            assert set(drawn) == {CONTROL, FIRST}, name
            assert 50 < drawn[FIRST] < 150, f"{name}: {drawn}"


def test_what_is_no_unit_is_refused(scene: Scene) -> None:
    deployed = _deploy(scene, {"onMissingUnit": "Reject"})
    deployed.wait(lambda: _rest(deployed, [[]])[0].status == 400, 10)
    for name, headers in NO_UNIT.items():
        (answer,), (called,) = _rest(deployed, [headers]), _grpc(deployed, [headers])
        assert (answer.status, called.code) == (400, INVALID_ARGUMENT), name
        assert b"x-unit-id is required" in answer.body
        assert "x-unit-id is required" in called.details


def test_testers_choose_a_variant_and_only_one_that_is_there(scene: Scene) -> None:
    deployed = _deploy(scene, {})
    for variant in (CONTROL, FIRST, SECOND):
        asked = [[("x-unit-id", unit), (OVERRIDE_HEADER, variant)] for unit in UNITS[:20]]
        assert {one.variant for one in _rest(deployed, asked)} == {variant}
        assert {one.variant for one in _grpc(deployed, asked)} == {variant}
    for wrong in ("nobody", f"{FIRST},{CONTROL}", ""):
        headers = [(OVERRIDE_HEADER, wrong)]
        (answer,), (called,) = _rest(deployed, [headers]), _grpc(deployed, [headers])
        assert (answer.status, called.code) == (400, INVALID_ARGUMENT), wrong
        assert b"variants are" in answer.body


def test_new_browsers_get_a_cookie_and_keep_its_arm(scene: Scene) -> None:
    unit = {"header": "x-unit-id", "cookie": {"name": COOKIE, "ttl": "365d"}}
    deployed = _deploy(scene, {"unit": unit}, "cookie")
    first = _rest(deployed, [[]] * BROWSERS)
    cookies = [_cookie(answer) for answer in first]
    assert len(set(cookies)) == BROWSERS
    expected = _law(deployed, cookies)
    assert [answer.variant for answer in first] == expected
    assert set(expected) == {CONTROL, FIRST}
    again = [[("cookie", f"theme=dark; {COOKIE}={cookie}; lang=de")] for cookie in cookies]
    for _ in range(2):
        answers = _rest(deployed, again)
        assert [answer.variant for answer in answers] == expected
        assert not any(answer.all("set-cookie") for answer in answers)
    both = [[*headers, ("x-unit-id", unit)] for headers, unit in zip(again, UNITS, strict=False)]
    assert [answer.variant for answer in _rest(deployed, both)] == _law(deployed, UNITS)
    forged = _rest(deployed, [[("x-request-id", "00000000-0000-4000-8000-000000000000")]] * 20)
    assert len({_cookie(answer) for answer in forged}) == 20


@pytest.fixture
def issuers(scene: Scene) -> Iterator[tuple[Issuer, Issuer]]:
    """Return whose tokens are for the deployment and whose for another host of the same gateway; none is known yet."""
    names = ("https://login.example.org", "https://partner.example.org")
    yield (Issuer(names[0], secrets.token_bytes(32)), Issuer(names[1], secrets.token_bytes(32)))
    for name in ("users", "partners"):
        scene.stage.api.delete(REQUEST_AUTHENTICATION, scene.stage.cluster.gateway.namespace, _own(scene, name))
    scene.stage.api.delete(VIRTUAL_SERVICE, scene.stage.namespace, "partners")


def test_a_claim_of_a_verified_token_is_the_unit_and_nothing_else_is(
    scene: Scene, issuers: tuple[Issuer, Issuer]
) -> None:
    ours, theirs = issuers
    _serve_partners(scene, theirs)
    scene.stage.api.apply(REQUEST_AUTHENTICATION, _authentication(scene, "users", ours, []))
    routing = {"unit": {"header": "x-unit-id", "jwtClaim": "uid"}}
    deployed = scene.stage.apply(_manifest(scene, routing, "claim"))
    deployed.wait_condition("VariantsReady")
    told = deployed.wait_condition("RoutingReady", "False", reason="UnitClaimUnavailable")
    assert "copies claim uid into header x-unit-id" in told["message"]
    deployed.wait(lambda: deployed.weights_bp().get(FIRST) == 0)

    copied = [{"header": "x-unit-id", "claim": "uid"}]
    scene.stage.api.apply(REQUEST_AUTHENTICATION, _authentication(scene, "users", ours, copied))
    deployed.wait_weights(**{FIRST: 50})
    expected = _law(deployed, UNITS)
    tokens = [_bearer(ours, sub="them", uid=unit) for unit in UNITS]
    deployed.wait(lambda: [one.variant for one in _rest(deployed, [[token] for token in tokens])] == expected, 10)
    assert [one.variant for one in _grpc(deployed, [[token] for token in tokens])] == expected
    forged = [[token, ("x-unit-id", "somebody-else")] for token in tokens]
    assert [one.variant for one in _rest(deployed, forged)] == expected
    assert [one.variant for one in _grpc(deployed, forged)] == expected

    header = ("x-unit-id", UNITS[0])
    refused = {
        "no token": [],
        "a header alone": [header],
        "another issuer's token": [_bearer(theirs, sub="them", uid=UNITS[0])],
        "another issuer's token and a header": [_bearer(theirs, sub="them", uid=UNITS[0]), header],
        "a token without the claim and a header": [_bearer(ours, sub="them"), header],
    }
    for name, headers in refused.items():
        (answer,), (called,) = _rest(deployed, [headers]), _grpc(deployed, [headers])
        assert (answer.status, called.code) == (403, PERMISSION_DENIED), name
    wrong_key = Issuer(ours.name, secrets.token_bytes(32))
    assert _rest(deployed, [[_bearer(wrong_key, sub="them", uid=UNITS[0])]])[0].status == 401

    partners = _partners(scene)
    for headers in ([], [_bearer(theirs, sub="them")], [_bearer(ours, sub="them")], [header]):
        (answer,) = ask(deployed.address, [request(partners, headers)])
        assert (answer.status, answer.body) == (200, b"here")

    scene.stage.api.delete(REQUEST_AUTHENTICATION, scene.stage.cluster.gateway.namespace, _own(scene, "users"))
    deployed.wait_condition("RoutingReady", "False", reason="UnitClaimUnavailable")
    assert deployed.weights_bp()[FIRST] == 0


def _manifest(scene: Scene, routing: Mapping[str, Any], experiment: str) -> dict[str, Any]:
    rollout = {"strategy": "Manual", "weights": {FIRST: 50}}
    return scene.manifest(rollout=rollout, experiment={"id": experiment}, routing=routing, second="Shadow")


def _deploy(scene: Scene, routing: Mapping[str, Any], experiment: str = "header") -> Deployed:
    """Give the deployment this routing, and return once the gateway splits units by its law."""
    deployed = scene.stage.apply(_manifest(scene, routing, experiment))
    deployed.wait_condition("Ready")
    expected = _law(deployed, UNITS)
    headers = [[("x-unit-id", unit)] for unit in UNITS]
    deployed.wait(lambda: [answer.variant for answer in _rest(deployed, headers)] == expected, 10)
    return deployed


def _law(deployed: Deployed, units: Sequence[str]) -> list[str]:
    """Return where these units belong."""
    salt = f"{deployed.namespace}/{NAME}/{deployed.resource()['spec']['experiment']['id']}"
    return [assign(unit, salt, LAYOUT) for unit in units]


def _rest(deployed: Deployed, headers: Sequence[Headers]) -> list[Answer]:
    return ask(deployed.address, [request(deployed.host, one) for one in headers])


def _grpc(deployed: Deployed, metadata: Sequence[Headers]) -> list[Called]:
    return call(deployed.address, deployed.host, metadata)


def _cookie(answer: Answer) -> str:
    """Return the unit in the one cookie that an answer sets."""
    (text,) = answer.all("set-cookie")
    pair, *attributes = text.split("; ")
    assert attributes == ["Path=/", f"Max-Age={YEAR_S}", "HttpOnly", "SameSite=Lax"]
    name, _, value = pair.partition("=")
    assert name == COOKIE
    return value


def _bearer(issuer: Issuer, **claims: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {issuer.token(SystemClock().now_us() // 1_000_000 + 600, **claims)}")


def _own(scene: Scene, name: str) -> str:
    """Return a name in the gateway's namespace that no other test has."""
    return f"{scene.stage.namespace}-{name}"


def _authentication(scene: Scene, name: str, issuer: Issuer, copied: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what a platform gives its gateway: which tokens it believes, and which claims it copies."""
    gateway = scene.stage.cluster.gateway
    rule = {"issuer": issuer.name, "jwks": issuer.jwks, "forwardOriginalToken": True}
    return {
        "apiVersion": REQUEST_AUTHENTICATION.api_version,
        "kind": REQUEST_AUTHENTICATION.kind,
        "metadata": {"name": _own(scene, name), "namespace": gateway.namespace},
        "spec": {
            "selector": {"matchLabels": dict(gateway.selector)},
            "jwtRules": [{**rule, **({"outputClaimToHeaders": list(copied)} if copied else {})}],
        },
    }


def _partners(scene: Scene) -> str:
    return f"partners.{scene.stage.namespace}.example.org"


def _serve_partners(scene: Scene, issuer: Issuer) -> None:
    """Have another host answer on the same gateway, with tokens of another issuer."""
    scene.stage.api.apply(REQUEST_AUTHENTICATION, _authentication(scene, "partners", issuer, []))
    spec = {
        "hosts": [_partners(scene)],
        "gateways": [scene.stage.cluster.gateway.name],
        "http": [{"directResponse": {"status": 200, "body": {"string": "here"}}}],
    }
    named = {"apiVersion": VIRTUAL_SERVICE.api_version, "kind": VIRTUAL_SERVICE.kind}
    metadata = {"name": "partners", "namespace": scene.stage.namespace}
    scene.stage.api.apply(VIRTUAL_SERVICE, {**named, "metadata": metadata, "spec": spec})
