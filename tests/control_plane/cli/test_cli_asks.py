"""``fairlead assign`` and ``fairlead predict`` in a cluster: by the route in force, and through the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead import Layout, assign, bucket_of
from fairlead_operator.platforms.kubernetes.entrance import addresses
from fairlead_operator.platforms.kubernetes.law import LawUnknown, law_of
from support.cluster_world import HOST, Scene, experiment, manual, scene_of
from support.commands import Ran, commands_of, here
from support.kube.faults import Refuse, calls

HERE = ("-n", "flights")
SALT = "flights/delay/e1"
UNITS = [f"unit-{number}" for number in range(500)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """An experiment in its first step."""
    async with scene_of(tmp_path, experiment()) as scene:
        async with scene.life() as life:
            await life.rest()
        yield scene


def landed(scene: Scene, unit: str) -> tuple[str, str]:
    """Return the arm and the revision that the gateway sends a unit to."""
    found = scene.gateway.land(HOST, "/v1/models/delay:predict", {"x-unit-id": unit})
    return found.headers["x-variant"], found.revision


def rows_of(ran: Ran) -> list[tuple[str, str]]:
    return [(arm, revision) for _, _, arm, revision in (line.split("\t") for line in ran.out.splitlines())]


async def test_units_are_assigned_as_the_gateway_sends_them(scene: Scene, tmp_path: Path) -> None:
    commands = commands_of(scene.server, tmp_path)
    file = tmp_path / "units.txt"
    file.write_text("\n".join(UNITS) + "\n")
    truth = [landed(scene, unit) for unit in UNITS]
    assert rows_of(await commands.run("assign", "delay", *HERE, given="\n".join(UNITS))) == truth
    assert rows_of(await commands.run("assign", "delay", *HERE, "--units", str(file))) == truth
    assert rows_of(await commands.run("assign", *HERE, "delay", *UNITS[:9])) == truth[:9]
    told = json.loads((await commands.run("assign", "delay", *UNITS[:2], *HERE, "-o", "json")).out)
    layout = Layout.of("logistic", {"boosted": 1000})
    assert told["salt"] == SALT
    assert [(row["bucket"], row["arm"]) for row in told["assignments"]] == [
        (bucket_of(unit, SALT), assign(unit, SALT, layout)) for unit in UNITS[:2]
    ]


async def test_what_somebody_made_of_the_weights_counts_and_is_said(scene: Scene, tmp_path: Path) -> None:
    route: Any = scene.route
    for one in route["spec"]["http"]:
        if one["name"].endswith(".http.unit"):
            one["route"][0]["weight"], one["route"][1]["weight"] = 4000, 6000
    scene.server.patch("VirtualService", "flights", "delay", {"spec": route["spec"]})
    ran = await commands_of(scene.server, tmp_path).run("assign", "delay", *HERE, given="\n".join(UNITS))
    assert "somebody has changed the weights of VirtualService delay; the operator restores them" in ran.err
    assert rows_of(ran) == [landed(scene, unit) for unit in UNITS]


async def test_assign_says_why_it_cannot(scene: Scene, tmp_path: Path) -> None:
    commands = commands_of(scene.server, tmp_path)
    scene.server.create(manual(name="fresh"))
    for words, code, reason in (
        (("fresh", "u"), 1, "flights/fresh: no route is in force yet; `fairlead status fresh -n flights` says why"),
        (("none", "u"), 1, "no ModelDeployment flights/none in this cluster"),
        (("delay", "a,b"), 2, "UNIT: 'a,b' is none"),
        (("delay", "--units", "none.txt"), 1, "--units: none.txt cannot be read as text"),
        ((), 2, "--file: give -f FILE, or -n NAMESPACE and the NAME"),
        (("delay", "-f", "m.yaml"), 2, "--namespace: -f is given too"),
    ):
        ran = await commands.run("assign", *words, *HERE)
        assert (ran.code, reason in ran.reason) == (code, True), ran


def test_a_virtual_service_that_is_not_ours_has_no_law() -> None:
    with pytest.raises(LawUnknown, match="a/b: is not one that this version writes"):
        law_of({"metadata": {"name": "b", "namespace": "a"}, "spec": {"http": [{"route": []}]}})


async def test_predictions_are_asked_for_through_the_gateway(scene: Scene, tmp_path: Path) -> None:
    commands = commands_of(scene.server, tmp_path)
    asked = await commands.run("predict", "delay", *HERE, "-d", "{}", "--unit", UNITS[0])
    answer = json.loads(asked.out)
    assert (asked.code, answer["status"], answer["variant"]) == (0, 200, landed(scene, UNITS[0])[0])
    data = json.dumps([{"plane": unit} for unit in UNITS[:20]])
    many = await commands.run("predict", "delay", *HERE, "-d", data, "--unit-from", "plane")
    said = [json.loads(line) for line in many.out.splitlines()]
    assert [(one["unit"], one["variant"]) for one in said] == [(unit, landed(scene, unit)[0]) for unit in UNITS[:20]]
    by_url = await commands.run(
        "predict", "delay", *HERE, "-d", "{}", "--url", f"http://127.0.0.1:{scene.gateway.port}"
    )
    assert (by_url.code, json.loads(by_url.out)["status"]) == (0, 200)
    elsewhere = await commands.run("predict", "delay", *HERE, "-d", "{}", "--url", "http://127.0.0.1:9")
    assert (elsewhere.code, "kubectl port-forward" in elsewhere.reason) == (1, True)


async def test_a_gateway_out_of_reach_is_named_with_the_way_to_it(scene: Scene, tmp_path: Path) -> None:
    commands = commands_of(scene.server, tmp_path)
    port = scene.gateway.port
    forward = f"run `kubectl port-forward -n istio-ingress service/public 8080:{port}` and --url http://127.0.0.1:8080"
    scene.server.faults.inject(Refuse(403, "Forbidden"), calls("get", "services"))
    refused = await commands.run("predict", "delay", *HERE, "-d", "{}")
    assert (refused.code, refused.reason.endswith(forward)) == (1, True)
    assert "the gateway's Service cannot be read" in refused.reason
    scene.server.patch("Service", "istio-ingress", "public", {"spec": {"clusterIP": "None"}})
    none = await commands.run("predict", "delay", *HERE, "-d", "{}")
    assert none.reason == f"error: no address of the gateway istio-ingress/public answers here (tried none); {forward}"
    scene.server.create(manual(name="fresh"))
    fresh = await commands.run("predict", "fresh", *HERE, "-d", "{}")
    assert "flights/fresh: has no address yet; `fairlead status fresh -n flights` says why" in fresh.reason
    unnamed = await commands.run("predict", *HERE, "-d", "{}")
    assert (unnamed.code, "NAME: say which deployment" in unnamed.reason) == (2, True)


def test_addresses_for_outsiders_come_first() -> None:
    service = {
        "spec": {"clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.7"]},
        "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.org"}, {"ip": "192.0.2.1"}]}},
    }
    assert addresses(service) == ["lb.example.org", "192.0.2.1", "192.0.2.7", "10.0.0.1"]
    assert addresses({"spec": {"clusterIP": "None"}}) == []


def test_many_units_are_assigned_by_a_manifest_from_a_file(tmp_path: Path) -> None:
    manifest, units = tmp_path / "m.yaml", tmp_path / "units.txt"
    manifest.write_text(yaml.safe_dump(manual(30)))
    units.write_text("\r\n".join(UNITS))
    rows = [line.split("\t") for line in here("assign", "-f", str(manifest), "--units", str(units)).out.splitlines()]
    layout = Layout.of("logistic", {"boosted": 3000})
    assert [(unit, arm) for unit, _, arm in rows] == [
        (unit, assign(unit, "flights/delay/rollout", layout)) for unit in UNITS
    ]
