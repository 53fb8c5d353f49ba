"""A FeatureStore resource and its registry through a life of their own, beside the tests that others write.

The Feast operator is stood in for by what it makes: the FeatureStore's status and the client ConfigMap. Feast itself
is real: definitions are applied to a real registry. Servers read theirs once a minute, so the story takes some minutes
and runs in a thread while other tests do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from feast import FeatureService, FeatureView, Field
from feast.types import Float64

from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, FEATURE_STORE, POD, SECRET, Kind
from support.cluster import wait_for
from support.cluster_api import ApiError, ClusterApi
from support.cluster_deployments import Deployed, Stage
from support.cluster_store import feature_store_config_map, make_cluster_repo
from support.servers import RedisServer
from support.store import FeatureRepo, definitions

DEFINITION = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
NAME = "flights"
_STEP_S = 150.0
_VIEW, _FEATURE = "origin_weather", "temp"


@dataclass
class FeatureStory:
    """What a deployment told of its features, step by step."""

    deployed: Deployed
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """FeaturesReady by step: ``uninstalled``, ``absent``, ``pending``, ``ready``, ``changed``, ``back``."""
    servable_while_changed: str = ""
    """Status of Servable while the features have changed."""
    at_s: dict[str, float] = field(default_factory=dict)
    """When each was told, by the monotonic clock."""
    problem: str = ""
    thread: threading.Thread | None = None

    def join(self) -> None:
        """Wait for the end of the story.

        Raises:
            AssertionError: It went wrong.
        """
        assert self.thread is not None
        self.thread.join(3 * _STEP_S)
        assert not self.thread.is_alive(), self.told
        assert not self.problem, self.problem

    def note(self, step: str, *, status: str, reason: str | None = None, said: str = "") -> None:
        """Wait until FeaturesReady is so, and note it."""

        def so() -> bool:
            found = self.deployed.condition("FeaturesReady")
            self.told[step] = found
            return found.get("status") == status and reason in {None, found["reason"]} and said in found["message"]

        self.deployed.wait(so, _STEP_S)
        self.at_s[step] = time.monotonic()


@contextmanager
def feature_story(stage: Stage, redis: RedisServer, folder: Path) -> Iterator[FeatureStory]:
    """Tell the story in a thread while it is entered."""
    with ClusterApi(stage.cluster.kubeconfig) as api:
        own = replace(stage, api=api)  # a client is for one thread
        variant = own.variant("logistic")
        store = {"featureStoreRef": {"name": NAME}, "secretRef": {"name": "online"}}
        manifest = own.manifest("registered", [variant], featureStore=store)
        story = FeatureStory(Deployed(own, "registered"))

        def run() -> None:
            try:
                _tell(story, own, redis, folder, manifest)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the test tells it
                story.problem = f"{error!r} after {list(story.at_s)}"

        story.thread = threading.Thread(target=run, daemon=True, name="feature story")
        story.thread.start()
        try:
            yield story
        finally:
            story.thread.join(3 * _STEP_S)
            api.delete(DEFINITION, None, _definition()["metadata"]["name"])


def _tell(story: FeatureStory, stage: Stage, redis: RedisServer, folder: Path, manifest: dict[str, Any]) -> None:
    api, definition = stage.api, _definition()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "online", "namespace": stage.namespace}}
    api.apply(SECRET, {**secret, "stringData": {"ONLINE_STORE": redis.address}})
    repo = make_cluster_repo(folder, redis.address)
    stage.apply(manifest)
    story.note("uninstalled", status="False", reason="FeatureStoreNotFound", said="is not installed")
    api.apply(DEFINITION, definition)
    wait_for(lambda: _is_served(stage))
    story.note("absent", status="False", reason="FeatureStoreNotFound", said="is not there")
    metadata = {"name": NAME, "namespace": stage.namespace}
    head = {"apiVersion": FEATURE_STORE.api_version, "kind": FEATURE_STORE.kind, "metadata": metadata}
    api.apply(FEATURE_STORE, {**head, "spec": {"feastProject": "small"}})
    _set_phase(stage, "Pending")
    story.note("pending", status="False", reason="FeatureStoreNotFound", said="is Pending")
    _publish(stage, repo, redis)
    _set_phase(stage, "Ready")
    story.note("ready", status="True")
    _alter(repo, Float64)
    _publish(stage, repo, redis)
    story.note("changed", status="False", reason="FeaturesChanged")
    story.servable_while_changed = story.deployed.condition("Servable")["status"]
    _alter(repo, None)
    _publish(stage, repo, redis)
    story.note("back", status="True")


def _alter(repo: FeatureRepo, dtype: Any) -> None:
    """Apply the definitions with another type of one feature; None for the one it had at first."""
    objects = definitions(repo.path)
    view = next(one for one in objects if isinstance(one, FeatureView) and one.name == _VIEW)
    service = next(one for one in objects if isinstance(one, FeatureService))
    if dtype is not None:
        view.features = [Field(name=f.name, dtype=dtype if f.name == _FEATURE else f.dtype) for f in view.features]
        for projection in service.feature_view_projections:
            projection.features = view.features if projection.name == _VIEW else projection.features
    repo.store.apply(objects)


def _publish(stage: Stage, repo: FeatureRepo, redis: RedisServer) -> None:
    """Give pods the registry as it is now; the address of the online store comes from a Secret."""
    config = feature_store_config_map(repo, f"feast-{NAME}-client", stage.namespace)
    text = config["data"]["feature_store.yaml"].replace(redis.address, "${ONLINE_STORE}")
    stage.api.apply(CONFIG_MAP, {**config, "data": {"feature_store.yaml": text}})
    for pod in Deployed(stage, "registered").pods().values():  # the kubelet looks at volumes of a changed pod at once
        stage.api.annotate(POD, stage.namespace, pod["metadata"]["name"], looked=f"{time.monotonic()}")


def _set_phase(stage: Stage, phase: str) -> None:
    change = {"status": {"phase": phase, "clientConfigMap": f"feast-{NAME}-client"}}
    stage.api.patch(FEATURE_STORE, stage.namespace, NAME, change, "status")


def _is_served(stage: Stage) -> bool:
    try:
        stage.api.items(FEATURE_STORE, stage.namespace)
    except ApiError:
        return False
    return True


def _definition() -> dict[str, Any]:
    """Return the CRD of FeatureStore with the fields that are documented and matter here."""
    text, open_ = {"type": "string"}, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    status = {"type": "object", "properties": {"phase": text, "clientConfigMap": text}}
    schema = {"type": "object", "properties": {"spec": open_, "status": status}}
    version = {
        "name": FEATURE_STORE.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": DEFINITION.api_version,
        "kind": DEFINITION.kind,
        "metadata": {"name": f"{FEATURE_STORE.plural}.{FEATURE_STORE.group}"},
        "spec": {
            "group": FEATURE_STORE.group,
            "names": {"kind": FEATURE_STORE.kind, "plural": FEATURE_STORE.plural, "singular": "featurestore"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }
