"""Is each deployment's feature store described, with its secrets, and do servers reach it?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from fairlead_operator.api.v1alpha1 import FeatureStore
from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.objects import Resource, condition, key
from fairlead_operator.doctor.parents import parents
from fairlead_operator.doctor.reader import Found, Reader
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, FEATURE_STORE, SECRET
from fairlead_operator.platforms.kubernetes.render.inference_service import client_config_map

FILE = "feature_store.yaml"
_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^}]*)?\}")
_SECTIONS = ("project", "registry", "online_store")


@dataclass(frozen=True, slots=True)
class FeatureFacts:
    """The feature store of one deployment."""

    deployment: Resource
    config_map: Found
    config_map_name: str
    secret: Found | None = None
    """None if the deployment names none. Only its keys are looked at."""
    feast: Found | None = None
    """The Feast operator's FeatureStore; None if the deployment names none."""
    model_secrets: Mapping[str, Found] = field(default_factory=dict)
    """Secrets of its models' stores, by name."""
    invalid: bool = False
    """Whether its ``spec.featureStore`` is not one of this release."""


@dataclass(frozen=True, slots=True)
class FeatureStores:
    """Feature stores, and the Secrets of model stores."""

    area: str = "feature stores"

    async def gather(self, reader: Reader, scope: Scope) -> tuple[FeatureFacts, ...]:
        """Read what each deployment names."""
        return tuple([await _gathered(reader, one) for one in (await parents(reader, scope)).items])

    def judge(self, facts: tuple[FeatureFacts, ...]) -> Iterator[Finding]:
        """Say what it means."""
        for one in facts:
            yield from _judged(one)


async def _gathered(reader: Reader, deployment: Resource) -> FeatureFacts:
    namespace, spec = deployment["metadata"]["namespace"], deployment["spec"]
    try:
        store = FeatureStore.model_validate(spec["featureStore"])
        name = client_config_map(store)
    except ValueError:
        return FeatureFacts(deployment, Found(), "", invalid=True)
    secrets = {
        variant["model"]["storage"]["secretRef"]["name"]
        for variant in spec["variants"]
        if (variant["model"].get("storage") or {}).get("secretRef")
    }
    return FeatureFacts(
        deployment,
        await reader.one(CONFIG_MAP, namespace, name),
        name,
        await reader.one(SECRET, namespace, store.secret_ref.name) if store.secret_ref else None,
        await reader.one(FEATURE_STORE, namespace, store.feature_store_ref.name) if store.feature_store_ref else None,
        {secret: await reader.one(SECRET, namespace, secret) for secret in sorted(secrets)},
    )


def _judged(facts: FeatureFacts) -> Iterator[Finding]:
    subject, namespace = key(facts.deployment), facts.deployment["metadata"]["namespace"]
    if facts.invalid:
        name = facts.deployment["metadata"]["name"]
        yield bad(
            subject, "its spec.featureStore is not one of this release", f"kubectl -n {namespace} edit mdep {name}"
        )
        return
    if facts.feast is not None and facts.feast.is_absent:
        yield bad(subject, "its FeatureStore is not there", f"kubectl -n {namespace} get featurestores.feast.dev")
    yield from _config_map(facts, subject, namespace)
    if facts.secret is not None:
        name = facts.deployment["spec"]["featureStore"]["secretRef"]["name"]
        yield from _secret(facts.secret, subject, namespace, name, "feature_store.yaml")
        yield from _keys(facts, subject, namespace, name)
    for name, secret in facts.model_secrets.items():
        yield from _secret(secret, subject, namespace, name, "its model's store")
    yield from _servers(facts, subject)


def _config_map(facts: FeatureFacts, subject: str, namespace: str) -> Iterator[Finding]:
    name = facts.config_map_name
    if facts.config_map.problem:
        yield doubt(subject, facts.config_map.problem, f"kubectl -n {namespace} get configmap {name}")
        return
    make = f"kubectl -n {namespace} create configmap {name} --from-file={FILE} --from-file=registry.db"
    if facts.config_map.resource is None:
        yield bad(subject, f"ConfigMap {name} is not in {namespace}: its pods wait for it", make)
        return
    problem = description_problem(facts.config_map.resource)
    if problem is not None:
        yield bad(subject, f"ConfigMap {name}: {problem}", f"kubectl -n {namespace} edit configmap {name}")
    else:
        yield good(subject, f"ConfigMap {name} has a {FILE} that can be read")


def description_problem(config_map: Resource) -> str | None:
    """Return why a server cannot use the ``feature_store.yaml`` of a ConfigMap; None if it looks right."""
    text = (config_map.get("data") or {}).get(FILE)
    if text is None:
        return f"has no key {FILE}"
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return f"{FILE} is not YAML ({' '.join(str(error).split())})"
    lacking = [one for one in _SECTIONS if not isinstance(content, dict) or one not in content]
    if lacking:
        return f"{FILE} has no {', '.join(lacking)}"
    held = {**(config_map.get("data") or {}), **(config_map.get("binaryData") or {})}
    return _registry_problem(content["registry"], held) or _online_problem(content["online_store"])


def _registry_problem(registry: Any, held: Mapping[str, str]) -> str | None:
    given = registry if isinstance(registry, dict) else {"path": registry}
    path = given.get("path")
    if given.get("registry_type", "file") != "file" or not isinstance(path, str) or "://" in path or path in held:
        return None
    return f"its registry is the file {path}, which the ConfigMap does not have"


def _online_problem(online: Any) -> str | None:
    kind = str(online.get("type", "") if isinstance(online, dict) else online).lower()
    if "sqlite" not in kind:
        return None
    return "its online store is SQLite, which pods cannot share; use one that is reached over the network"


def placeholders(config_map: Resource | None) -> set[str]:
    """Return the names that ``feature_store.yaml`` wants filled in, but for those with a default."""
    text = ((config_map or {}).get("data") or {}).get(FILE, "")
    return {found[1] for found in _PLACEHOLDER.finditer(text) if ":-" not in found[0]}


def _secret(secret: Found, subject: str, namespace: str, name: str, of: str) -> Iterator[Finding]:
    if secret.problem:
        yield doubt(subject, secret.problem, f"kubectl -n {namespace} get secret {name}")
    elif secret.resource is None:
        make = f"kubectl -n {namespace} create secret generic {name} --from-literal=NAME=VALUE"
        yield bad(subject, f"Secret {name} of {of} is not in {namespace}: its pods wait for it", make)
    else:
        yield good(subject, f"Secret {name} of {of} is there")


def _keys(facts: FeatureFacts, subject: str, namespace: str, name: str) -> Iterator[Finding]:
    if facts.secret is None or facts.secret.resource is None:
        return
    lacking = sorted(placeholders(facts.config_map.resource) - set(facts.secret.resource.get("data") or {}))
    if lacking:
        said = f"{FILE} wants {', '.join(lacking)}, which Secret {name} does not have"
        yield bad(subject, said, f"kubectl -n {namespace} edit secret {name}")


def _servers(facts: FeatureFacts, subject: str) -> Iterator[Finding]:
    told = condition(facts.deployment, "FeaturesReady")
    if told is not None and told.get("status") == "True":
        yield good(subject, f"servers report: {told.get('message', 'all is well')}")
