"""Do the pods of deployments and operator start, from images of which release?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.installation import installation
from fairlead_operator.doctor.objects import Resource, condition, holds, images, key, labels, quoted
from fairlead_operator.doctor.parents import parents, places
from fairlead_operator.doctor.reader import Listed, Reader
from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT,
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    OURS,
    POD,
)

_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_BLOCKED = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Pods, and the Deployments that make them."""

    pods: tuple[Resource, ...]
    deployments: tuple[Resource, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods of deployments, and of the operator."""

    area: str = "pods"

    async def gather(self, reader: Reader, scope: Scope) -> PodFacts:
        """Read them."""
        found = await parents(reader, scope)
        pods: list[Resource] = []
        deployments: list[Resource] = []
        problems: list[str] = []
        for place in places(found, scope):
            for kind, into in ((POD, pods), (DEPLOYMENT, deployments)):
                listed: Listed = await reader.all(kind, place, OURS)
                into += [one for one in listed.items if _is_meant(one, scope)]
                problems += [listed.problem] if listed.problem else []
        installed = await installation(reader, scope)
        if installed.deployment is not None:
            selector = installed.deployment["spec"]["selector"].get("matchLabels") or {}
            pods += (await reader.all(POD, installed.namespace, selector)).items
            deployments.append(installed.deployment)
        return PodFacts(tuple(pods), tuple(deployments), tuple(dict.fromkeys(problems)))

    def judge(self, facts: PodFacts) -> Iterator[Finding]:
        """Name what does not start, and why."""
        for problem in facts.problems:
            yield doubt("pods", problem, "kubectl auth can-i list pods")
        troubles = [[*_troubles(pod)] for pod in facts.pods]
        for trouble in troubles:
            yield from trouble
        well = [pod for pod, trouble in zip(facts.pods, troubles, strict=True) if not trouble]
        for deployment in facts.deployments:
            failure = condition(deployment, "ReplicaFailure")
            if failure is not None and failure.get("status") == "True":
                look = f"kubectl -n {deployment['metadata']['namespace']} get events --field-selector type=Warning"
                yield bad(key(deployment), f"pods cannot be made: {failure.get('message', '')}", look)
        if well:
            used = sorted({image for pod in well for image in images(pod["spec"])})
            yield good("images", f"{len(well)} pods without trouble run {quoted(used)}")


def _is_meant(resource: Resource, scope: Scope) -> bool:
    of = labels(resource)
    return scope.has(of.get(DEPLOYMENT_NAMESPACE_LABEL, ""), of.get(DEPLOYMENT_LABEL, ""))


def _troubles(pod: Resource) -> Iterator[Finding]:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    if pod["metadata"].get("deletionTimestamp"):
        return
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        said = f"finds no node: {scheduled.get('message', scheduled.get('reason', ''))}"
        yield bad(key(pod), said, "lower resources.requests, or add nodes; kubectl describe nodes")
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _PULLS:
            said = f"image {container.get('image', '?')} cannot be pulled ({reason}): {message}"
            yield bad(
                key(pod), said.rstrip(": "), f"kubectl -n {namespace} describe pod {name}; push it, or mend its name"
            )
        elif reason in _BLOCKED:
            yield bad(
                key(pod), f"{container['name']}: {reason}: {message}", f"kubectl -n {namespace} describe pod {name}"
            )
        elif reason == "CrashLoopBackOff":
            last = ((container.get("lastState") or {}).get("terminated")) or {}
            said = (
                f"{container['name']} ended {container.get('restartCount', 0)} times, code {last.get('exitCode', '?')}"
            )
            words = f"{said}: {last['message'].strip()}" if last.get("message") else said
            yield bad(key(pod), words, f"kubectl -n {namespace} logs {name} -c {container['name']} --previous")
    if status.get("phase") == "Running" and not holds(pod, "Ready") and not status.get("reason"):
        started = all(one.get("started", True) for one in status.get("containerStatuses") or ())
        waiting = any("waiting" in (one.get("state") or {}) for one in status.get("containerStatuses") or ())
        if started and not waiting:
            yield doubt(key(pod), "runs and is not ready", f"kubectl -n {namespace} logs {name} --tail=50")
