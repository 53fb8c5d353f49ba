"""What answers: feature store, hydration, variants and their models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fairlead.contract import Digest
from fairlead.policy import Action, Hydration
from fairlead_operator.api.v1alpha1.fields import (
    DAY_S,
    Duration,
    Label,
    Name,
    ObjectName,
    Quantity,
    Record,
    at_most,
    broken,
    seconds,
)


class FeatureStore(Record):
    """Where the Feast feature store is described: exactly one of path, configMapRef and featureStoreRef."""

    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="One machine: folder of feature_store.yaml, or the file; relative to the manifest.",
    )
    config_map_ref: Name | None = Field(
        default=None, description="Cluster: ConfigMap with feature_store.yaml, and the registry file if it is one."
    )
    feature_store_ref: Name | None = Field(
        default=None, description="Cluster: FeatureStore of the Feast operator, whose client ConfigMap is mounted."
    )
    secret_ref: Name | None = Field(
        default=None, description="Cluster: Secret whose keys fill the ${NAME} placeholders of feature_store.yaml."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [part for part in (self.path, self.config_map_ref, self.feature_store_ref) if part is not None]
        if len(given) != 1:
            raise broken((), "give exactly one of path (one machine), configMapRef and featureStoreRef (cluster)")
        if self.path is not None and self.secret_ref is not None:
            raise broken(("secretRef",), "is for clusters; on one machine set environment variables")
        return self


class HydrationSpec(Record):
    """How features are looked up for a request that brings keys."""

    deadline: Annotated[Duration, at_most(60)] = Field(
        default="100ms", description="Longest wait for the online store; later features count as STORE_ERROR."
    )
    on_missing: Literal["Default", "Null", "Reject"] | None = Field(
        default=None, description="What the model sees for a feature without a value; the contract decides if unset."
    )
    on_stale: Literal["Use", "Default", "Null", "Reject"] | None = Field(
        default=None, description="What the model sees for a value older than its ttl or maxAge."
    )
    on_store_error: Literal["Default", "Null", "LastGood", "Reject"] | None = Field(
        default=None, description="What the model sees while the store fails."
    )
    max_age: dict[str, Annotated[Duration, at_most(366 * DAY_S)]] = Field(
        default={}, max_length=256, description="Per feature view, an age stricter than its ttl."
    )

    def policy(self) -> Hydration:
        """Return it in the language that the server shares."""
        return Hydration.model_validate(
            {
                "deadline_s": seconds(self.deadline),
                "on_missing": self.on_missing and Action(self.on_missing),
                "on_stale": self.on_stale and Action(self.on_stale),
                "on_store_error": self.on_store_error and Action(self.on_store_error),
                "max_age_s": {view: seconds(age) for view, age in self.max_age.items()},
            }
        )


class Storage(Record):
    """How a cluster reads the model's store."""

    secret_ref: Name | None = Field(
        default=None, description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what the store needs)."
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[A-Za-z0-9.:_\[\]-]+/?$",
        max_length=512,
        description="Address of an S3-compatible server, such as https://minio.storage:9000; AWS if left out.",
    )
    region: str | None = Field(
        default=None, pattern=r"^[a-z0-9-]+$", max_length=64, description="Region of the bucket; us-east-1 if left out."
    )


class Model(Record):
    """Which model file a variant serves."""

    uri: str = Field(
        min_length=1,
        max_length=4096,
        description="Where the ONNX file is: s3://, gs://, https://, http:// or pvc:// in a cluster; "
        "on one machine a path or file:// reference, relative to the manifest.",
    )
    digest: Annotated[Digest, Field(max_length=71)] = Field(
        description="sha256 of the file; the server verifies it before it is ready."
    )
    storage: Storage | None = Field(default=None, description="Cluster: credentials and address of the store.")
    service_account_name: ObjectName | None = Field(
        default=None, description="Cluster: account of the pods, for stores that trust accounts rather than keys."
    )


class ScalingTarget(Record):
    """What the autoscaler keeps up."""

    cpu_percent: int = Field(default=70, ge=1, le=100, description="Mean CPU use of the pods, per cent of requests.")


class Scaling(Record):
    """How many replicas a variant has."""

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Fewest replicas; raised while a share needs more.")
    max_replicas: int | None = Field(
        default=None, ge=1, le=1000, description="Most replicas; the larger of minReplicas and 3 if left out."
    )
    target: ScalingTarget = Field(default=ScalingTarget(), description="What the autoscaler keeps up.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise broken(("maxReplicas",), f"is below minReplicas ({self.min_replicas}); raise it")
        return self

    @property
    def most(self) -> int:
        """Most replicas."""
        return self.max_replicas if self.max_replicas is not None else max(self.min_replicas, 3)


class Resources(Record):
    """What a pod asks for and may use."""

    requests: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity] = Field(
        default={"cpu": "250m", "memory": "512Mi"}, max_length=3, description="What a pod is promised."
    )
    limits: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity] = Field(
        default={"memory": "1Gi"}, max_length=3, description="What a pod may not exceed."
    )


class Variant(Record):
    """One model that answers under the deployment's name."""

    name: Annotated[Label, Field(max_length=30)] = Field(description="Name of the variant, and of its arm.")
    role: Literal["Control", "Treatment", "Shadow"] = Field(
        description="Control takes what nobody else has; a Treatment its weight; a Shadow gets copies only."
    )
    model: Model = Field(description="Which model file it serves.")
    scaling: Scaling = Field(default=Scaling(), description="Cluster: how many replicas it has.")
    resources: Resources = Field(default=Resources(), description="Cluster: what a pod asks for and may use.")


class Serving(Record):
    """Which release of the model server serves."""

    release: str | None = Field(
        default=None,
        pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([.-][a-z0-9.]+)?$",
        max_length=40,
        description="Exact release; set once when the deployment is made if left out, moved by its owner only.",
    )
