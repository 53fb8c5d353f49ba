"""The ledger beside the operator, and an experiment of it to its verdict."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from e2e.errors import NotSeen, see
from e2e.helm import CHARTS
from e2e.scene import CONTROL, DEPLOYMENT, FLIGHTS, SYSTEM, TREATMENT, VERSION, Scene, host_of, said
from e2e.steps.install import RELEASE, values
from e2e.steps.rollout import fresh_id, is_ready
from e2e.story import Seen
from e2e.trial import pods_of
from fairlead import BUCKETS
from fairlead.clock import SystemClock
from fairlead.experiment.evidence import Evidence
from fairlead.feedback.token import PREDICTION_HEADER
from flights.cluster import expected
from support.cluster_deployed import Deployed
from support.gateway_asks import Answer, ask, request

LEDGER, PORT = "fairlead-ledger", 8080
CLAIM = "data-fairlead-postgres-0"
KEY_ID = "e2e"
FLIGHTS_ASKED, AT_ONCE = 2000, 250
WINDOW_S = 10
"""How long after a prediction its outcome may come: long beside the time that a batch takes."""
SHARE = 50
_KEY = "ledger_key"
_ROLLOUT = {
    "strategy": "Experiment",
    "steps": [{"weights": {TREATMENT: SHARE}}],
    "onSuccess": "Promote",
    "keepPrevious": "1s",
}
_METRIC = "brier"
_JUDGED = {
    "objective": {"metric": _METRIC, "minimumEffect": "5%"},
    "guardrails": [{"metric": "error", "margin": "5pp"}],
    "outcomeWindow": f"{WINDOW_S}s",
}
_PARTS = ("ledger", "postgres")


@dataclass(frozen=True, slots=True)
class Told:
    """A prediction of the experiment, and what became of the flight."""

    prediction_id: str
    variant: str
    unit: str
    actual: int

    @property
    def outcome(self) -> Mapping[str, Any]:
        """What the application tells."""
        return {"prediction_id": self.prediction_id, "actual": self.actual}


def ledger(scene: Scene) -> Seen:
    """Enable the ledger with the bundled PostgreSQL, by an upgrade: no model pod is replaced."""
    secret = secrets.token_urlsafe(24)
    scene.notes[_KEY] = f"{KEY_ID}.{secret}"
    scene.cluster.make_volume(SYSTEM, CLAIM)
    with scene.deployed() as deployed:
        before = pods_of(deployed)
        begun_s = time.monotonic()
        scene.helm.upgrade(RELEASE, CHARTS / RELEASE, {**values(VERSION), **enabled(scene)})
        took_s = time.monotonic() - begun_s
        see(pods_of(deployed) == before, "model pods were replaced")
    pods = [pod for part in _PARTS for pod in _pods(scene, part)]
    states = [state for pod in pods for state in pod["status"]["containerStatuses"]]
    see(not sum(state["restartCount"] for state in states), "a pod of the ledger or its database had to start again")
    text = f"ledger and PostgreSQL ready, tables migrated {took_s:.0f} s after helm upgrade began"
    return Seen(text, {"ledger_s": round(took_s, 1)})


def experiment(scene: Scene) -> Seen:
    """Run an experiment: the ledger's pods are deleted on the way, the operator promotes, the record is verified."""
    id_ = fresh_id("judged")
    salt = f"{FLIGHTS}/{DEPLOYMENT}/{id_}"
    with scene.deployed() as deployed:
        begin(scene, deployed, id_)
        # Nothing is decided before all of it was told.
        scene.fairlead("pause", DEPLOYMENT, "-n", FLIGHTS)
        told = replay(scene, deployed, partial(_post, scene))
        lost_s = _delete_ledger(scene)
        mature_s = wait_for_all(scene, salt, told)
        decided_s, said_ = decide(scene, deployed)
    with scene.cluster.reached(SYSTEM, LEDGER, PORT) as url:
        verified = _verified(scene, f"{url}/v1/experiments/{salt}/record")
    arms = Counter(one.variant for one in told)
    figures = {
        "predictions": len(told),
        "units": len({one.unit for one in told}),
        "ledger_away_s": round(lost_s, 1),
        "mature_s": round(mature_s, 1),
        "decided_s": round(decided_s, 1),
    }
    counted = ", ".join(f"{name} {arms[name]}" for name in (CONTROL, TREATMENT))
    text = (
        f"{len(told)} outcomes ({counted}) all kept while ledger and PostgreSQL were deleted ({lost_s:.0f} s away);"
        f" {said_}, {TREATMENT} promoted {decided_s:.1f} s after resuming; verify: “{verified}”"
    )
    return Seen(text, figures)


def decide(scene: Scene, deployed: Deployed) -> tuple[float, str]:
    """Resume, and wait until the treatment is promoted; return the seconds it took and what was decided.

    Raises:
        NotSeen: It was decided by something else.
    """
    begun_s = time.monotonic()
    scene.fairlead("resume", DEPLOYMENT, "-n", FLIGHTS)
    scene.wait("experiment", lambda: said(deployed), lambda: deployed.weights_bp().get(TREATMENT) == BUCKETS)
    decided_s = time.monotonic() - begun_s
    decision = deployed.status()["rollout"]["decision"]
    found = f"{decision['analysis']} ({decision['reason']})"
    see(found == "Pass (Superior)", f"the operator decided by {found}")
    return decided_s, found


def enabled(scene: Scene) -> dict[str, object]:
    """Return the values of a release with a ledger that knows the run's API key."""
    hashed = hashlib.sha256(str(scene.notes[_KEY]).partition(".")[2].encode()).hexdigest()
    key = {"id": KEY_ID, "hash": hashed, "roles": ["application", "reader"]}
    chosen = {"ledger.enabled": True, "postgres.enabled": True, "operator.settings.analysisIntervalS": 2}
    return {**chosen, "ledger.apiKeys.more": [key]}


def begin(scene: Scene, deployed: Deployed, id_: str) -> None:
    """Begin the experiment, and wait until the ledger knows it."""
    deployed.patch(rollout={**_ROLLOUT, "weights": None}, experiment={"id": id_, **_JUDGED})

    def observes() -> bool:
        found = deployed.status().get("experiment", {})
        return found.get("id") == id_ and bool(found.get("observing"))

    scene.wait("experiment", lambda: said(deployed), lambda: deployed.weights_bp().get(TREATMENT) == SHARE * 100)
    scene.wait("experiment", lambda: said(deployed), observes)


def replay(scene: Scene, deployed: Deployed, tell: Callable[[Sequence[Told]], None]) -> list[Told]:
    """Ask about flights of this moment until so many were answered with tokens, and ``tell`` what became of each."""
    flights = expected.flights_from(SystemClock().now_us(), FLIGHTS_ASKED).to_dict("records")
    waiting = iter(_endless([flights[first : first + AT_ONCE] for first in range(0, len(flights), AT_ONCE)]))
    told: list[Told] = []

    def enough() -> bool:
        batch = [one for flight, answer in _asked(scene, deployed, next(waiting)) for one in _told(flight, answer)]
        tell(batch)
        told.extend(batch)
        return len(told) >= FLIGHTS_ASKED

    scene.wait("experiment", lambda: f"{len(told)} of {FLIGHTS_ASKED} predictions are part of it", enough)
    return told


def _endless(batches: Sequence[list[dict[Any, Any]]]) -> Iterator[list[dict[Any, Any]]]:
    while True:
        yield from batches


def _asked(
    scene: Scene, deployed: Deployed, flights: Sequence[Mapping[Any, Any]]
) -> list[tuple[Mapping[Any, Any], Answer]]:
    """Ask about flights whose plane is known, which is their unit; return each with its answer."""
    host, path = host_of(deployed), f"/v1/models/{DEPLOYMENT}:predict"
    known = [flight for flight in flights if isinstance(flight["tailnum"], str) and flight["tailnum"]]
    requests = [
        request(
            host,
            [("content-type", "application/json"), ("x-unit-id", flight["tailnum"])],
            method="POST",
            path=path,
            body=json.dumps({"instances": [expected.instance(flight)]}).encode(),
        )
        for flight in known
    ]
    answers = ask(scene.facts.gateway.address, requests)
    refused = [one for one in answers if one.status != HTTPStatus.OK]
    see(not refused, f"{len(refused)} refused: {refused[:2]}")
    return list(zip(known, answers, strict=True))


def _told(flight: Mapping[Any, Any], answer: Answer) -> Iterator[Told]:
    """Yield what is told of a flight, if its answer is part of the experiment.

    The difference is planted, so that few flights decide: the treatment's come true as it said, control's as they did.
    """
    for token in answer.all(PREDICTION_HEADER):
        probability = float(json.loads(answer.body)["predictions"][0][expected.OUTPUT])
        came_true = round(probability) if answer.variant == TREATMENT else int(flight["late"] == 1)
        yield Told(token, answer.variant, flight["tailnum"], came_true)


def _post(scene: Scene, batch: Sequence[Told]) -> None:
    """Tell outcomes, as an application does.

    Raises:
        NotSeen: One was not taken.
    """
    if not batch:
        return
    answer = _ask_ledger(scene, "POST", "/v1/outcomes", {"outcomes": [one.outcome for one in batch]})
    accepted = answer.json()["accepted"]
    see(accepted == len(batch), f"of {len(batch)} outcomes {accepted} were taken: {answer.text[:500]}")


def _delete_ledger(scene: Scene) -> float:
    """Delete the pods of the ledger and of its database; return the seconds until others are ready."""
    before = {pod["metadata"]["uid"] for part in _PARTS for pod in _pods(scene, part)}
    begun_s = time.monotonic()
    selector = f"app.kubernetes.io/component in ({','.join(_PARTS)})"
    scene.kubectl("delete", "pods", f"--namespace={SYSTEM}", f"--selector={selector}", "--wait=false")

    def is_back() -> bool:
        found = [_pods(scene, part) for part in _PARTS]
        fresh = before.isdisjoint(pod["metadata"]["uid"] for pods in found for pod in pods)
        return fresh and all(pods and all(is_ready(pod) for pod in pods) for pods in found)

    scene.wait("experiment", lambda: "other pods of the ledger and its database", is_back)
    return time.monotonic() - begun_s


def wait_for_all(scene: Scene, salt: str, told: Sequence[Told]) -> float:
    """Wait until everything that was told counts, to the last outcome and unit; return the seconds it took."""
    arms = {name: [one for one in told if one.variant == name] for name in (CONTROL, TREATMENT)}
    wanted = {name: (len(those), len({one.unit for one in those})) for name, those in arms.items()}
    found: dict[str, tuple[int, int]] = {}

    def counted() -> bool:
        found.update(_counted(scene, salt))
        return found == wanted

    return scene.wait("experiment", lambda: f"outcomes and units: {found} of {wanted}", counted)


def _counted(scene: Scene, salt: str) -> dict[str, tuple[int, int]]:
    """Return by arm how many outcomes count, and how many units were exposed."""
    answer = _ask_ledger(scene, "GET", f"/v1/experiments/{salt}/evidence")
    phases = Evidence.model_validate_json(answer.content).phases
    return {
        name: (round(arm.metrics[_METRIC].n) if _METRIC in arm.metrics else 0, arm.units)
        for phase in phases
        for name, arm in phase.arms.items()
    }


def _ask_ledger(scene: Scene, method: str, path: str, content: object = None) -> httpx.Response:
    """Return what the ledger answers an application.

    Raises:
        NotSeen: It refuses.
    """
    with scene.cluster.reached(SYSTEM, LEDGER, PORT) as url:
        headers = {"authorization": f"Bearer {scene.notes[_KEY]}"}
        answer = httpx.request(method, f"{url}{path}", json=content, headers=headers, trust_env=False, timeout=60)
    if answer.status_code != HTTPStatus.OK:
        raise NotSeen(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
    return answer


def _verified(scene: Scene, record: str) -> str:
    """Have the command line verify a decision record against the ledger; return what it says last."""
    with _key(scene) as key:
        told = scene.fairlead("experiment", "verify", record, "--api-key", str(key))
    see("agrees" in told, told)
    return " ".join(told.strip().splitlines()[-1].split())


@contextmanager
def _key(scene: Scene) -> Iterator[Path]:
    path = scene.folder / "ledger-key"
    path.touch(mode=0o600)
    path.write_text(scene.notes[_KEY])
    try:
        yield path
    finally:
        path.unlink()


def _pods(scene: Scene, part: str) -> list[dict[str, Any]]:
    """Return the pods of a part of the chart that are not about to go."""
    found = scene.facts.get("pods", namespace=SYSTEM, selector=f"app.kubernetes.io/component={part}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
