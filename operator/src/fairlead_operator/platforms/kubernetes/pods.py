"""Why a revision's pods do not answer: read from pods, Deployment and InferenceService, the way people would. Pure.

KServe's own status cannot be relied on for it: a server that crash-loops, an image that is absent or a probe that never
passes leave it Pending for ever, or Ready while an older pod lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_operator.api.conditions import Reason
from fairlead_operator.core.observed import Failure, Health

REFUSED_EXIT_CODE = 3
"""A server ends so when model, contract or digest are not what it was told to serve; so does ``fairlead fetch``."""

FETCHER = "storage-initializer"
"""The init container that fetches the model."""

_BLOCKED = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
_MESSAGE_MAX = 1024
_LOG_MAX = 900

Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a revision from answering."""

    health: Health
    failure: Failure


def trouble(pods: Sequence[Resource], deployment: Resource | None, service: Resource) -> Trouble | None:
    """Return the gravest thing that keeps a revision from answering; None if it may simply need more time.

    Args:
        pods: The revision's pods.
        deployment: The Deployment that KServe made of it; None before it has.
        service: The InferenceService.
    """
    found = [*_of_pods(pods), *_of_deployment(deployment), *_of_service(service)]
    return min(found, key=lambda one: _GRAVITY.index(one.health), default=None)


_GRAVITY = (Health.REFUSED, Health.BLOCKED, Health.CRASHED, Health.UNREADY)


def restarts(pods: Iterable[Resource]) -> int:
    """Return how often containers of these pods were started again."""
    return sum(int(status.get("restartCount", 0)) for pod in pods for status in _containers(pod))


def _of_pods(pods: Iterable[Resource]) -> Iterator[Trouble]:
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        for status in _containers(pod):
            found = _of_container(status)
            if found is not None:
                yield found
        yield from _of_scheduling(pod)


def _of_container(status: Resource) -> Trouble | None:
    state, name = status.get("state", {}), status.get("name", "")
    waiting = state.get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in _BLOCKED:
        why = f"{reason}: {waiting.get('message', 'no message')}"
        return Trouble(Health.BLOCKED, Failure(Reason.PODS_BLOCKED, _short(f"container {name}: {why}")))
    ended = state.get("terminated") or (status.get("lastState", {}).get("terminated") if _is_tried(status) else None)
    if ended is None or ended.get("exitCode", 0) == 0:
        return None
    return _of_end(name, ended)


def _is_tried(status: Resource) -> bool:
    """Return whether a container waits for its next start, or has not got over its last end yet."""
    if "waiting" in status.get("state", {}):
        return True
    return not status.get("ready") and (status.get("name") == FETCHER or not status.get("started"))


def _of_end(name: str, ended: Resource) -> Trouble:
    code = int(ended.get("exitCode", 0))
    message = str(ended.get("message", "")).strip() or str(ended.get("reason", "")) or "no message"
    if name == FETCHER:
        text = _short(f"the model could not be fetched (exit code {code}): {message}")
        health = Health.REFUSED if code == REFUSED_EXIT_CODE else Health.CRASHED
        return Trouble(health, Failure(Reason.MODEL_UNAVAILABLE, text))
    if code == REFUSED_EXIT_CODE:
        return Trouble(Health.REFUSED, Failure(Reason.MODEL_REFUSED, _short(message)))
    text = f"container {name} ended with {code}: {_end(message)}"
    return Trouble(Health.CRASHED, Failure(Reason.CRASHED, _short(text)))


def _of_scheduling(pod: Resource) -> Iterator[Trouble]:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            text = f"no node has room: {condition.get('message', '')}"
            yield Trouble(Health.BLOCKED, Failure(Reason.PODS_BLOCKED, _short(text)))


def _of_deployment(deployment: Resource | None) -> Iterator[Trouble]:
    for condition in (deployment or {}).get("status", {}).get("conditions", []):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            text = f"pods cannot be made: {condition.get('message', '')}"
            yield Trouble(Health.BLOCKED, Failure(Reason.PODS_BLOCKED, _short(text)))


def _of_service(service: Resource) -> Iterator[Trouble]:
    status = service.get("status", {})
    model = status.get("modelStatus", {})
    if model.get("transitionStatus") == "InvalidSpec":
        told = model.get("lastFailureInfo", {})
        text = f"KServe refuses the InferenceService: {told.get('reason', '')} {told.get('message', '')}"
        yield Trouble(Health.BLOCKED, Failure(Reason.PODS_BLOCKED, _short(text)))
    for condition in status.get("conditions", []):
        if condition.get("type") == "PredictorReady" and condition.get("reason") == "ReconcileFailed":
            text = f"KServe cannot carry out the InferenceService: {condition.get('message', '')}"
            yield Trouble(Health.BLOCKED, Failure(Reason.PODS_BLOCKED, _short(text)))


def _containers(pod: Resource) -> Iterator[Resource]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", [])
    yield from status.get("containerStatuses", [])


def _short(text: str) -> str:
    return text.strip()[:_MESSAGE_MAX]


def _end(log: str) -> str:
    """Return the last lines of a log: what ended a program stands there."""
    if len(log) <= _LOG_MAX:
        return log
    end = log[-_LOG_MAX:]
    whole_lines = end.partition("\n")[2]
    return f"... {whole_lines or end}"
