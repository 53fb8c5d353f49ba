"""Is KServe there, alive, and set up in the way that we need?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.kinds import DEFINITION, MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS
from fairlead_operator.doctor.objects import Resource, images, key, quoted, release, tag
from fairlead_operator.doctor.reader import Found, Listed, Reader, Trial
from fairlead_operator.doctor.webhooks import Answering, answering, client_configs
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, INFERENCE_SERVICE

GROUP = "serving.kserve.io"
CONTROLLER = {"control-plane": "kserve-controller-manager"}
CONFIG = "inferenceservice-config"
OLDEST = (0, 18)
"""Of the controller: what we are made for; 0.19 and 0.20 were tried."""

NEEDED = ("inferenceservices", "servingruntimes")
ALSO = {
    "clusterstoragecontainers": "models cannot be fetched: every revision fails with `no matches for kind`",
    "trainedmodels": "KServe's controller ends two minutes after each start",
    "inferencegraphs": "KServe's controller ends two minutes after each start",
}
"""Definitions besides, and what goes wrong without each."""
_INSTALL = "install KServe 0.18 or newer: https://kserve.github.io/website/docs/install"


@dataclass(frozen=True, slots=True)
class KServeFacts:
    """What there is of KServe."""

    definitions: Mapping[str, Found]
    """By plural."""
    controllers: Listed = field(default_factory=Listed)
    webhook: Answering | None = None
    pod_webhook: Answering | None = None
    """What mutates pods: without it nothing is fetched."""
    webhooks_known: bool = True
    """Whether the webhooks could be read."""
    trial: Trial | None = None
    """Of an InferenceService."""
    config: Found = field(default_factory=Found)
    namespace: str = "kserve"


@dataclass(frozen=True, slots=True)
class KServe:
    """KServe."""

    area: str = "KServe"

    async def gather(self, reader: Reader, scope: Scope) -> KServeFacts:
        """Read definitions, controller, webhooks and settings, and have it check an InferenceService."""
        definitions = {one: await reader.one(DEFINITION, "", f"{one}.{GROUP}") for one in (*NEEDED, *ALSO)}
        controllers = await reader.all(DEPLOYMENT, labels=CONTROLLER)
        mutating = await reader.all(MUTATING_WEBHOOKS)
        validating = await reader.all(VALIDATING_WEBHOOKS)
        of_services = client_configs((*mutating.items, *validating.items), GROUP)
        of_pods = [
            webhook["clientConfig"]
            for configuration in mutating.items
            for webhook in configuration.get("webhooks") or ()
            if str(webhook.get("name", "")).endswith("pod-mutator") or "pod-mutator" in str(webhook.get("name", ""))
        ]
        webhook = await answering(reader, of_services)
        pod_webhook = await answering(reader, of_pods)
        namespace = _namespace(controllers, webhook)
        return KServeFacts(
            definitions=definitions,
            controllers=controllers,
            webhook=webhook,
            pod_webhook=pod_webhook,
            webhooks_known=not (mutating.problem or validating.problem or mutating.kind_missing),
            trial=await reader.attempt(INFERENCE_SERVICE, example(scope.namespace or "default")),
            config=await reader.one(CONFIG_MAP, namespace, CONFIG),
            namespace=namespace,
        )

    def judge(self, facts: KServeFacts) -> Iterator[Finding]:
        """Say what they mean."""
        missing = [plural for plural in NEEDED if facts.definitions[plural].is_absent]
        if missing:
            yield bad("CRDs", f"{quoted(f'{one}.{GROUP}' for one in missing)} not installed", _INSTALL)
            return
        yield from _definitions(facts)
        yield from _controller(facts)
        yield from _alive(facts)
        yield from _pods(facts)
        yield from _config(facts)


def example(namespace: str) -> dict[str, Any]:
    """Return an InferenceService that only KServe's webhooks look at (dry run)."""
    model = {"modelFormat": {"name": "onnx"}, "storageUri": "https://example.invalid/model.onnx"}
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": {
            "name": "fairlead-doctor",
            "namespace": namespace,
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": {"model": model}},
    }


def _namespace(controllers: Listed, webhook: Answering | None) -> str:
    if controllers.items:
        return str(controllers.items[0]["metadata"]["namespace"])
    return webhook.address.partition("/")[0] if webhook and not webhook.outside else "kserve"


def _definitions(facts: KServeFacts) -> Iterator[Finding]:
    unknown = [found.problem for found in facts.definitions.values() if found.problem]
    lacking = {plural: trouble for plural, trouble in ALSO.items() if facts.definitions[plural].is_absent}
    if unknown:
        yield doubt("CRDs", unknown[0], f"kubectl get crd | grep {GROUP}")
    elif not lacking:
        yield good("CRDs", f"{len(facts.definitions)} of {len(facts.definitions)} are there")
    for plural, trouble in lacking.items():
        yield bad("CRDs", f"{plural}.{GROUP} is missing: {trouble}", _INSTALL)


def _controller(facts: KServeFacts) -> Iterator[Finding]:
    if not facts.controllers.items:
        outside = facts.webhook is not None and facts.webhook.outside
        where = (
            f"its webhooks are at {facts.webhook.address}: it runs outside the cluster"
            if outside and facts.webhook
            else ""
        )
        said = where or facts.controllers.problem or "no Deployment is labelled control-plane=kserve-controller-manager"
        yield doubt("controller", said, "kubectl get deployments -A -l control-plane=kserve-controller-manager")
        return
    controller = facts.controllers.items[0]
    available = controller.get("status", {}).get("availableReplicas", 0)
    namespace, name = controller["metadata"]["namespace"], controller["metadata"]["name"]
    if not available:
        said = f"{key(controller)}: no pod is available; new model pods cannot be made, running ones go on"
        yield bad("controller", said, f"kubectl -n {namespace} describe deployment {name}")
    else:
        yield good("controller", f"{key(controller)}: {available} available")
    yield _version(controller)


def _version(controller: Resource) -> Finding:
    found = [tag(image) for image in images(controller["spec"]["template"]["spec"]) if "kserve" in image]
    told = next((text for text in found if release(text)), "")
    version = release(told)
    if version is None:
        return doubt(
            "version", f"image {quoted(found) or '?'} tells none", "use a released image of KServe, 0.18 or newer"
        )
    if version[:2] < OLDEST:
        return bad("version", f"{told}; Fairlead needs 0.18 or newer", "upgrade KServe")
    return good("version", told)


def _alive(facts: KServeFacts) -> Iterator[Finding]:
    if facts.webhook is None:
        said = "no webhook for InferenceServices, so nobody can be asked whether the controller lives"
        if facts.webhooks_known:
            yield doubt("webhooks", said, "reinstall KServe with its webhooks; mistakes are found late without them")
        else:
            yield doubt("webhooks", "you may not look at webhooks", "run it as an administrator")
        return
    if facts.webhook.endpoints == 0:
        said = f"Service {facts.webhook.address} has no ready endpoint: InferenceServices cannot be written"
        yield bad("webhooks", said, "kubectl get pods -A -l control-plane=kserve-controller-manager")
        return
    if facts.trial is None:
        yield doubt("webhooks", "you may not try an InferenceService (dry run)", "run it as somebody who may")
    elif facts.trial.accepted:
        yield good("webhooks", "answered: an InferenceService was checked and accepted (dry run)")
    elif facts.trial.refused_by_webhook:
        yield doubt(
            "webhooks", f"answered, and refused a plain InferenceService: {facts.trial.words}", "see the message"
        )
    else:
        said = f"do not answer: {facts.trial.words}"
        yield bad(
            "webhooks", said, "start KServe's controller; kubectl -n kserve logs deployment/kserve-controller-manager"
        )


def _pods(facts: KServeFacts) -> Iterator[Finding]:
    if facts.webhooks_known and facts.pod_webhook is None:
        said = "no pod mutator is registered: pods start without their model"
        yield bad("pod mutator", said, "reinstall KServe with its MutatingWebhookConfiguration")
    elif facts.pod_webhook is not None:
        yield good("pod mutator", f"registered at {facts.pod_webhook.address}")


def _config(facts: KServeFacts) -> Iterator[Finding]:
    where = f"{facts.namespace}/{CONFIG}"
    if facts.config.problem:
        yield doubt("settings", facts.config.problem, f"kubectl -n {facts.namespace} get configmap {CONFIG}")
        return
    if facts.config.resource is None:
        yield bad("settings", f"no ConfigMap {where}: the controller does not start without it", _INSTALL)
        return
    troubles = list(config_troubles(facts.config.resource.get("data") or {}))
    edit = f"kubectl -n {facts.namespace} edit configmap {CONFIG}"
    for trouble in troubles:
        said = f"ConfigMap {where}, key {trouble.name}: {trouble.words}"
        yield (bad if trouble.grave else doubt)("settings", said, edit)
    if not troubles:
        yield good("settings", f"ConfigMap {where} has what we need")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a key of the settings."""

    name: str
    words: str
    grave: bool


def config_troubles(data: Mapping[str, str]) -> Iterator[Trouble]:
    """Yield what is wrong with ``inferenceservice-config``: each key, and the trouble that it makes."""
    parsed = {name: _parsed(text) for name, text in data.items() if not name.startswith("_")}
    for name, words, grave in _KEYS:
        if parsed.get(name) is None:
            yield Trouble(
                name, f"is missing: {words}" if name not in parsed else f"is no JSON object: {words}", grave=grave
            )
    initializer, ingress, deploy = (parsed.get(name) for name in ("storageInitializer", "ingress", "deploy"))
    lacking = [one for one in _QUANTITIES if initializer is not None and not initializer.get(one)]
    if lacking:
        yield Trouble("storageInitializer", f"lacks {quoted(lacking, 4)}: nothing is reconciled", grave=True)
    if ingress is not None:
        yield from _ingress_troubles(ingress)
    mode = (deploy or {}).get("defaultDeploymentMode")
    if deploy is not None and mode not in {"Standard", "RawDeployment"}:
        words = f"defaultDeploymentMode is {mode}: ours say Standard themselves, others of this cluster may not"
        yield Trouble("deploy", words, grave=False)


def _ingress_troubles(ingress: Mapping[str, Any]) -> Iterator[Trouble]:
    if not ingress.get("ingressGateway"):
        yield Trouble("ingress", "lacks ingressGateway: nothing is reconciled", grave=True)
    if not ingress.get("disableIstioVirtualHost"):
        words = "disableIstioVirtualHost is not true: KServe may write routes of its own, or warn at every reconcile"
        yield Trouble("ingress", words, grave=False)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


_KEYS = (
    ("deploy", "nothing is reconciled", True),
    ("ingress", "nothing is reconciled", True),
    ("storageInitializer", "nothing is reconciled", True),
    ("logger", "no pod of a model can be made", True),
    ("batcher", "no pod of a model can be made", True),
    ("agent", "no pod of a model can be made", True),
    ("inferenceService", "annotations leak into pods, and every client-side apply rolls them", True),
    ("security", "the account's token is taken from pods by default", False),
)
_QUANTITIES = ("memoryRequest", "memoryLimit", "cpuRequest", "cpuLimit")
