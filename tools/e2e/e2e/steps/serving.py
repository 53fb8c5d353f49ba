"""What is served: to whom, and whether it is right."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping

import grpc
import pandas as pd

from e2e.accounts import wrong_arms
from e2e.errors import see
from e2e.scene import DEPLOYMENT, FLIGHT, FLIGHTS, UNITS, Scene, host_of
from e2e.story import Seen
from fairlead.clock import SystemClock
from flights.cluster import expected
from support.cluster_deployed import Deployed
from support.gateway_asks import ask, call, infer_message, request

_OK = 200
FLIGHTS_ASKED = 5000
_SAME = 1e-6
_PUSHED_WITHIN_US = 5_000_000
"""How late what has become known may be in the online store."""


def units(scene: Scene) -> Seen:
    """Ask for a prediction for 5,000 units over REST and over gRPC, and compare with ``fairlead assign``."""
    with scene.deployed() as deployed:
        wanted = assigned(scene)
        begun_s = time.monotonic()
        rest = _over_rest(scene, deployed)
        rest_s = time.monotonic() - begun_s
        over_grpc = _over_grpc(scene, deployed)
        grpc_s = time.monotonic() - begun_s - rest_s
    for protocol, answers in (("REST", rest), ("gRPC", over_grpc)):
        wrong = wrong_arms(answers, wanted)
        see(not wrong, f"{len(wrong)} of {len(wanted)} over {protocol} land elsewhere: {list(wrong.items())[:5]}")
    split = ", ".join(f"{arm} {count}" for arm, count in Counter(wanted.values()).most_common())
    figures = {"units": len(wanted), "wrong": 0, "rest_s": round(rest_s, 1), "grpc_s": round(grpc_s, 1)}
    text = f"{len(wanted)} units ({split}): 0 wrong over REST ({rest_s:.1f} s), 0 wrong over gRPC ({grpc_s:.1f} s)"
    return Seen(text, figures)


def assigned(scene: Scene) -> dict[str, str]:
    """Return the arm of each unit as the command line computes it from the deployment in the cluster."""
    told = scene.fairlead("assign", DEPLOYMENT, "-n", FLIGHTS, "-o", "json", given="\n".join(UNITS) + "\n")
    found = {one["unit"]: one["arm"] for one in json.loads(told)["assignments"]}
    see(found.keys() == set(UNITS), f"assigned {len(found)} of {len(UNITS)} units")
    return found


def predictions(scene: Scene) -> Seen:
    """Ask about flights of this moment, and compare with what the model files say on point-in-time features."""
    with scene.deployed() as deployed:
        before_us = SystemClock().now_us()
        asked = expected.flights_from(before_us, FLIGHTS_ASKED)
        answers = _predicted(scene, deployed, asked)
        after_us = SystemClock().now_us()
    within_us = (after_us - before_us) // 2 + _PUSHED_WITHIN_US
    told = expected.expected(asked, (before_us + after_us) // 2, within_us=within_us)
    differences = [
        abs(answer - float(told.probability[arm][row]))
        for row, (arm, answer) in enumerate(answers)
        if bool(told.steady[row])
    ]
    see(len(differences) > len(answers) // 2, f"the features of only {len(differences)} flights stood still meanwhile")
    wrong = [difference for difference in differences if difference > _SAME]
    see(not wrong, f"{len(wrong)} of {len(differences)} predictions differ, by up to {max(differences):g}")
    arms = Counter(arm for arm, _ in answers)
    compared = (
        f"{len(differences)} of {len(answers)} flights ({', '.join(f'{arm} {arms[arm]}' for arm in sorted(arms))})"
    )
    text = f"{compared}: equal to the ONNX files' on point-in-time features within {max(differences):.1g}"
    return Seen(text, {"compared": len(differences), "asked": len(answers), "largest_difference": max(differences)})


def _predicted(scene: Scene, deployed: Deployed, asked: pd.DataFrame) -> list[tuple[str, float]]:
    """Return which variant answered about each flight, and what; its plane is the unit."""
    host, path = host_of(deployed), f"/v1/models/{DEPLOYMENT}:predict"
    requests = []
    for row in asked.to_dict("records"):
        unit = [("x-unit-id", str(row["tailnum"]))] if isinstance(row["tailnum"], str) and row["tailnum"] else []
        body = json.dumps({"instances": [expected.instance(row)]}).encode()
        headers = [("content-type", "application/json"), *unit]
        requests.append(request(host, headers, method="POST", path=path, body=body))
    answers = ask(scene.facts.gateway.address, requests)
    refused = [one for one in answers if one.status != _OK]
    see(not refused, f"{len(refused)} refused: {refused[:2]}")
    return [(one.variant, float(json.loads(one.body)["predictions"][0][expected.OUTPUT])) for one in answers]


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
    refused = [end for end in ends if end.code is not grpc.StatusCode.OK]
    see(not refused, f"{len(refused)} refused: {refused[:2]}")
    return {unit: end.variant for unit, end in zip(UNITS, ends, strict=True)}
