"""Experiment headers that clients make up expose nobody: through every route, and straight to a pod; REST and gRPC.

What was exposed is what the servers themselves report, in the parameters of their model metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from fairlead import Layout, assign
from fairlead.route import EXPERIMENT_HEADER, OVERRIDE_HEADER, ExperimentRoute, RouteKey
from fairlead.serving import ExperimentCounts
from fairlead_operator.platforms.kubernetes.kinds import REVISION_LABEL, SECRET
from fairlead_operator.platforms.kubernetes.render import read_keys
from support.cluster_deployments import MODEL_NAME, Deployed
from support.cluster_scene import CONTROL, FIRST, NAME, SECOND, Scene
from support.gateway_asks import Answer, Called, Headers, ask, call, infer_message, request
from support.server_process import ROW

ID = "forged"
WEIGHT = 30
LAYOUT = Layout.of(CONTROL, {FIRST: WEIGHT * 100})
COOKIE = "ab-unit"
UNITS = [f"unit-{number}" for number in range(40)]
ANOTHER_KEY = RouteKey("k1", b"a key that somebody else has made")
BODY = json.dumps({"instances": [ROW]}).encode()


@dataclass(frozen=True, slots=True)
class Forger:
    """Knows all that a client can know, and a key that is not the deployment's."""

    deployed: Deployed
    key: RouteKey

    @property
    def salt(self) -> str:
        return f"{self.deployed.namespace}/{NAME}/{ID}"

    def header(self, unit: str, *, salt: str | None = None, source: str = "header:x-unit-id") -> str:
        """Return a header that is right in everything but its signature."""
        arm = assign(unit, salt or self.salt, LAYOUT)
        route = self.deployed.route()
        assert route is not None
        revision = str(route.revision_of(arm))
        return ExperimentRoute(salt or self.salt, 0, revision, arm, LAYOUT, source).sign(self.key)

    def headers(self, unit: str) -> list[str]:
        """Return headers of every kind that a server could be told."""
        signed = self.header(unit)
        head, _, mac = signed.rpartition(".")
        unsigned, another = f"{head}.", f"{head}.{mac[::-1]}"
        other_salt = self.header(unit, salt=f"{self.deployed.namespace}/other/{ID}")
        return [signed, unsigned, another, other_salt, self.header(unit, source="cookie:x"), "v1.k1.x.y", "1", "%%"]


@pytest.fixture
def deployed(scene: Scene) -> Deployed:
    """An experiment that is observed, with a cookie for browsers."""
    unit = {"header": "x-unit-id", "cookie": {"name": COOKIE}}
    rollout = {"strategy": "Manual", "weights": {FIRST: WEIGHT}}
    deployed = scene.deploy(rollout=rollout, experiment={"id": ID}, routing={"unit": unit}, second="Shadow")
    deployed.wait_weights(**{FIRST: WEIGHT})
    deployed.wait_condition("ExperimentHealthy", reason="Observing")
    expected = [assign(unit, f"{deployed.namespace}/{NAME}/{ID}", LAYOUT) for unit in UNITS]
    deployed.wait(lambda: [a.variant for a in _predict(deployed, [[("x-unit-id", u)] for u in UNITS])] == expected, 10)
    return deployed


def test_forged_headers_expose_nothing_on_routes_that_are_no_experiment(deployed: Deployed) -> None:
    forger = Forger(deployed, ANOTHER_KEY)
    forged = [(EXPERIMENT_HEADER, value) for unit in UNITS[:5] for value in forger.headers(unit)]
    before = _counts(deployed)
    for variant in (CONTROL, FIRST, SECOND):
        tested = [[one, (OVERRIDE_HEADER, variant), ("x-unit-id", UNITS[0])] for one in forged]
        assert {answer.variant for answer in _predict(deployed, tested)} == {variant}
        assert {called.variant for called in _infer(deployed, tested)} == {variant}
    missing = [[one, ("x-unit-id", "a,b")] for one in forged]
    assert {answer.variant for answer in _predict(deployed, missing)} == {CONTROL}
    assert {called.variant for called in _infer(deployed, [[one] for one in forged])} == {CONTROL}
    assert _counts(deployed) == before


def test_a_forged_header_is_replaced_by_the_routes_own_where_there_is_an_experiment(deployed: Deployed) -> None:
    forger = Forger(deployed, ANOTHER_KEY)
    by_header = [[(EXPERIMENT_HEADER, h), ("x-unit-id", unit)] for unit in UNITS[:5] for h in forger.headers(unit)]
    by_cookie = [[(EXPERIMENT_HEADER, h), ("cookie", f"{COOKIE}={u}")] for u in UNITS[:5] for h in forger.headers(u)]
    by_new_cookie = [[(EXPERIMENT_HEADER, h)] for h in forger.headers(UNITS[0])]
    before = _counts(deployed)
    answers = [answer for asked in (by_header, by_cookie, by_new_cookie) for answer in _predict(deployed, asked)]
    calls = _infer(deployed, by_header)
    asked = len(answers) + len(calls)
    assert {len(answer.all(EXPERIMENT_HEADER)) for answer in answers} == {0}, "a client sees the header"
    assert _counts(deployed) == before.model_copy(update={"exposed": before.exposed + asked})


def test_forged_headers_straight_to_a_pod_expose_nothing(deployed: Deployed) -> None:
    forger = Forger(deployed, ANOTHER_KEY)
    for pod in deployed.pods().values():
        before, address = _counts(deployed), pod["status"]["podIP"]
        forged = [[(EXPERIMENT_HEADER, h), ("x-unit-id", u)] for u in UNITS[:5] for h in forger.headers(u)]
        assert {answer.status for answer in _predict(deployed, forged, f"{address}:8080")} == {200}
        assert {called.code.name for called in _infer(deployed, forged, f"{address}:8081")} == {"OK"}
        asked = 2 * len(forged)
        assert _counts(deployed) == before.model_copy(update={"rejected": before.rejected + asked})


def test_a_unit_given_twice_straight_to_a_pod_exposes_nothing_even_with_the_right_signature(
    deployed: Deployed,
) -> None:
    secret = deployed.api.get(SECRET, deployed.namespace, f"{NAME}-serving")
    (key,) = read_keys(secret)
    forger = Forger(deployed, key)
    route = deployed.route()
    assert route is not None
    revision = route.revision_of(assign(UNITS[0], forger.salt, LAYOUT))
    (pod,) = (p for p in deployed.pods().values() if p["metadata"]["labels"][REVISION_LABEL] == revision)
    genuine = (EXPERIMENT_HEADER, forger.header(UNITS[0]))
    before = _counts(deployed)
    twice = [[genuine, ("x-unit-id", UNITS[0]), ("x-unit-id", UNITS[0])], [genuine]]
    _predict(deployed, twice, f"{pod['status']['podIP']}:8080")
    _infer(deployed, twice, f"{pod['status']['podIP']}:8081")
    assert _counts(deployed) == before.model_copy(update={"rejected": before.rejected + 4})


def test_shadows_get_copies_that_expose_nobody(scene: Scene, deployed: Deployed) -> None:
    scene.stage.apply(
        scene.manifest(
            rollout={"strategy": "Manual", "weights": {FIRST: WEIGHT}},
            experiment={"id": ID},
            routing={"unit": {"header": "x-unit-id", "cookie": {"name": COOKIE}}, "mirror": {"percent": 100}},
            second="Shadow",
        )
    )
    deployed.wait_condition("Ready")
    deployed.wait(lambda: bool(_asked_of_shadow(deployed)), 10)
    before = _counts(deployed)
    _predict(deployed, [[("x-unit-id", unit)] for unit in UNITS])
    _infer(deployed, [[("x-unit-id", unit)] for unit in UNITS])
    added = {"exposed": 2 * len(UNITS), "shadow": 2 * len(UNITS)}
    wanted = before.model_copy(update={name: getattr(before, name) + count for name, count in added.items()})
    deployed.wait(lambda: _counts(deployed) == wanted, 10)


def _asked_of_shadow(deployed: Deployed) -> int:
    """Ask once, and return how many copies have come to the shadow so far."""
    _predict(deployed, [[("x-unit-id", UNITS[0])]])
    return _counts(deployed).shadow


def _counts(deployed: Deployed) -> ExperimentCounts:
    """Return what all servers together have counted."""
    every = [report.requests.model_dump() for report in deployed.reports().values()]
    return ExperimentCounts(**{name: sum(counts[name] for counts in every) for name in every[0]})


def _predict(deployed: Deployed, headers: Sequence[Headers], address: str | None = None) -> list[Answer]:
    path = f"/v1/models/{MODEL_NAME}:predict"
    kind = ("content-type", "application/json")
    asked = [request(deployed.host, [*one, kind], method="POST", path=path, body=BODY) for one in headers]
    return ask(address or deployed.address, asked)


def _infer(deployed: Deployed, metadata: Sequence[Headers], address: str | None = None) -> list[Called]:
    message = infer_message(MODEL_NAME)
    return call(address or deployed.address, deployed.host, metadata, method="ModelInfer", message=message)
