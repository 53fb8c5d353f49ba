"""What becomes of a pod: the stories that tests tell, and the status that each shows after some time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support.kube.store import Object

MODEL_CONTAINER, INITIALIZER = "kserve-container", "storage-initializer"
_RESTART_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Ready:
    """Runs, and answers its readiness probe ``after_s`` seconds later."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class NeverReady:
    """Runs and never answers its readiness probe."""


@dataclass(frozen=True, slots=True)
class Crash:
    """The model container ends, again and again; it is ready in between never."""

    exit_code: int = 1
    message: str = ""


@dataclass(frozen=True, slots=True)
class ImageAbsent:
    """The image cannot be pulled."""


@dataclass(frozen=True, slots=True)
class InitFailure:
    """The storage initializer ends with an error, again and again."""

    exit_code: int = 1
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node has room for it."""


Fate = Ready | NeverReady | Crash | ImageAbsent | InitFailure | Unschedulable


def pod_status(pod: Object, fate: Fate, age_s: float, now: str) -> Object:
    """Return the status of ``pod`` at ``age_s`` seconds, as the kubelet (or the scheduler) would write it."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    initializers = [container["name"] for container in pod["spec"].get("initContainers", ())]
    restarts = 1 + int(age_s // _RESTART_EVERY_S)
    running = {"state": {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}}}
    done: Object = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "ready": True}
    before: Object = {"state": {"waiting": {"reason": "PodInitializing"}}, "ready": False}
    match fate:
        case Unschedulable():
            why = "0/1 nodes are available: 1 Insufficient cpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
            return {"phase": "Pending", "conditions": [condition]}
        case InitFailure(exit_code, message):
            failed = _back_off(exit_code, message, restarts)
            return _status("Pending", now, _each(initializers, failed), _each(names, before), is_ready=False)
        case ImageAbsent():
            why = 'Back-off pulling image: ErrImagePull: "not found"'
            absent: Object = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": why}}, "ready": False}
            return _status("Pending", now, _each(initializers, done), _each(names, absent), is_ready=False)
        case Crash(exit_code, message):
            failed = _back_off(exit_code, message, restarts)
            return _status("Running", now, _each(initializers, done), _each(names, failed), is_ready=False)
    is_ready = isinstance(fate, Ready) and age_s >= fate.after_s
    own: Object = running | {"ready": is_ready, "started": True}
    return _status("Running", now, _each(initializers, done), _each(names, own), is_ready=is_ready)


def _back_off(exit_code: int, message: str, restarts: int) -> Object:
    ended: Object = {"exitCode": exit_code, "reason": "Error"} | ({"message": message} if message else {})
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
    return {
        "state": {"waiting": waiting},
        "lastState": {"terminated": ended},
        "restartCount": restarts,
        "ready": False,
    }


def _each(names: list[str], shared: Object) -> list[Object]:
    return [{"name": name, "restartCount": 0, "image": "", "imageID": ""} | shared for name in names]


def _status(phase: str, now: str, initializers: list[Object], containers: list[Object], *, is_ready: bool) -> Object:
    verdicts: dict[str, bool] = {
        "PodScheduled": True,
        "Initialized": all(one["ready"] for one in initializers),
        "ContainersReady": is_ready,
        "Ready": is_ready,
    }
    conditions: list[dict[str, Any]] = [
        {"type": sort, "status": str(holds), "lastTransitionTime": now} for sort, holds in verdicts.items()
    ]
    status: Object = {"phase": phase, "conditions": conditions, "containerStatuses": containers}
    return status | ({"initContainerStatuses": initializers} if initializers else {})
