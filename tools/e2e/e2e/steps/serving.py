"""What is served: to whom, and whether it is right."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping

from e2e.accounts import wrong_arms
from e2e.errors import see
from e2e.scene import DEPLOYMENT, FLIGHT, FLIGHTS, UNITS, Scene, host_of
from e2e.story import Seen
from support.cluster_deployed import Deployed
from support.gateway_asks import ask, call, infer_message, request

_OK = 200


def units(scene: Scene) -> Seen:
    """Ask for a prediction for 5,000 units over REST and over gRPC, and compare with ``fairlead assign``."""
    with scene.deployed() as deployed:
        expected = assigned(scene)
        begun_s = time.monotonic()
        rest = _over_rest(scene, deployed)
        rest_s = time.monotonic() - begun_s
        grpc = _over_grpc(scene, deployed)
        grpc_s = time.monotonic() - begun_s - rest_s
    for protocol, answers in (("REST", rest), ("gRPC", grpc)):
        wrong = wrong_arms(answers, expected)
        see(not wrong, f"{len(wrong)} of {len(expected)} over {protocol} land elsewhere: {list(wrong.items())[:5]}")
    split = ", ".join(f"{arm} {count}" for arm, count in Counter(expected.values()).most_common())
    figures = {"units": len(expected), "wrong": 0, "rest_s": round(rest_s, 1), "grpc_s": round(grpc_s, 1)}
    text = f"{len(expected)} units ({split}): 0 wrong over REST ({rest_s:.1f} s), 0 wrong over gRPC ({grpc_s:.1f} s)"
    return Seen(text, figures)


def assigned(scene: Scene) -> dict[str, str]:
    """Return the arm of each unit as the command line computes it from the deployment in the cluster."""
    told = scene.fairlead("assign", DEPLOYMENT, "-n", FLIGHTS, "-o", "json", given="\n".join(UNITS) + "\n")
    found = {one["unit"]: one["arm"] for one in json.loads(told)["assignments"]}
    see(found.keys() == set(UNITS), f"assigned {len(found)} of {len(UNITS)} units")
    return found


def _over_rest(scene: Scene, deployed: Deployed) -> Mapping[str, str]:
    host, path = host_of(deployed), f"/v1/models/{DEPLOYMENT}:predict"
    body = json.dumps({"instances": [dict(FLIGHT)]}).encode()
    headers = [("content-type", "application/json")]
    asked = [request(host, [*headers, ("x-unit-id", unit)], method="POST", path=path, body=body) for unit in UNITS]
    answers = ask(scene.facts.gateway.address, asked)
    refused = [one for one in answers if one.status != _OK]
    see(not refused, f"{len(refused)} refused: {refused[:2]}")
    return {unit: answer.variant for unit, answer in zip(UNITS, answers, strict=True)}


def _over_grpc(scene: Scene, deployed: Deployed) -> Mapping[str, str]:
    metadata = [[("x-unit-id", unit)] for unit in UNITS]
    message = infer_message(DEPLOYMENT, FLIGHT)
    ends = call(scene.facts.gateway.address, host_of(deployed), metadata, method="ModelInfer", message=message)
    return {unit: end.variant for unit, end in zip(UNITS, ends, strict=True)}
