"""The contract: what a model needs to be asked and what its answer means, stored inside the ONNX file.

A contract is one JSON document in the model's metadata, under the key ``fairlead.contract``. It names every
feature the graph takes (one ONNX input each, called ``view__name``), where the feature comes from, what happens
when it is missing, and what the outputs mean. The packager writes it, the server binds by it, by name only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fairlead.policy import Policy

METADATA_KEY = "fairlead.contract"
"""Key of the contract in an ONNX model's metadata properties."""

DType = Literal["float32", "float64", "int64", "int32", "bool", "string"]
"""Names of element types, as numpy spells them (``string`` is UTF-8 text)."""

Scalar = bool | int | float | str
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=253)]
ViewName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(@v[0-9]+)?$", max_length=260)]
"""Of a view in a feature service, with its version where the service names one."""
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class ContractError(ValueError):
    """A model has no contract, or one that cannot be read; the message says what is wrong and what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Entity(_Record):
    """A key that a request brings so that features can be looked up."""

    name: Name
    """Feast's name of the entity."""
    join_key: Name
    """Name of the key in a request."""
    dtype: DType


class RequestFeature(_Record):
    """A value that only the request knows; input of an on-demand view."""

    name: Name
    dtype: DType


class Statistics(_Record):
    """How a feature was distributed in training; what drift is measured against."""

    count: int = Field(ge=0)
    """Rows, missing ones included."""
    missing: int = Field(ge=0)
    """Rows without a value."""
    mean: float | None = None
    std: float | None = None
    """Standard deviation (population)."""
    quantiles: dict[str, float] = {}
    """Value by quantile, keys "0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1"."""
    categories: dict[str, int] = {}
    """Rows by value, for text and for numbers that are categories; at most 100 of the most frequent."""


class Feature(_Record):
    """One input of the model's graph."""

    view: ViewName
    name: Name
    dtype: DType
    on_demand: bool = False
    """Computed at request time by an on-demand feature view."""
    join_keys: tuple[Name, ...] = ()
    """Join keys of the view; empty for on-demand features that need none."""
    ttl_s: float | None = Field(default=None, gt=0)
    """Age in seconds beyond which a value is STALE; None never expires."""
    default: Scalar | None = None
    """What the model sees when the policy says Default; None is a missing value (NaN)."""
    policy: Policy = Policy()
    statistics: Statistics | None = None

    @property
    def input(self) -> str:
        """Name of the graph's input, and Feast's full feature name."""
        return f"{self.view}__{self.name}"

    @property
    def takes_missing(self) -> bool:
        """Whether the model may be fed a missing value (NaN) for this feature; parity was then checked with it."""
        if not self.dtype.startswith("float"):
            return False
        return self.policy.feeds_missing or (self.default is None and self.policy.feeds_default)

    @property
    def needs_default(self) -> bool:
        """Whether the policy asks for what this feature lacks: a default, or a type with a missing value."""
        if self.on_demand or self.dtype.startswith("float"):
            return False
        return self.policy.feeds_missing or (self.default is None and self.policy.feeds_default)


class Output(_Record):
    """One output of the model's graph, shape [n]."""

    name: Name
    dtype: DType
    meaning: Literal["probability", "label", "value"]
    """probability: of the event that the name says, 0 to 1; label: a class; value: a regression's estimate."""


class Evaluation(_Record):
    """Metrics of the packaged model on held-out rows, for one slice of them."""

    slice: str
    """``all``, or a condition such as ``origin=EWR``."""
    rows: int = Field(ge=0)
    metrics: dict[str, float]


class Training(_Record):
    """Where the model comes from."""

    start: str
    """First moment of the training window, ISO 8601, included."""
    end: str
    """End of the training window, ISO 8601, excluded."""
    rows: int = Field(ge=0)
    data_digest: Digest
    """SHA-256 over the source data."""


class Contract(_Record):
    """Everything a server needs to ask the model, and a person needs to judge it."""

    format: Literal["fairlead.dev/contract/v1"] = "fairlead.dev/contract/v1"
    model: Name
    version: str = Field(min_length=1, max_length=128)
    project: Name
    """Feast project of the feature service."""
    feature_service: Name
    fingerprint: Digest
    """Of the feature service as registered when the model was packaged; see ``fairlead.features``."""
    entities: tuple[Entity, ...]
    request_features: tuple[RequestFeature, ...]
    features: tuple[Feature, ...] = Field(min_length=1)
    outputs: tuple[Output, ...] = Field(min_length=1)
    training: Training
    packages: dict[str, str]
    """Versions of what trained and converted the model."""
    evaluation: tuple[Evaluation, ...] = ()
    example: dict[Name, Scalar] = {}
    """A hydrated request to try: a value for each join key and request feature; empty if none was given."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        keys = [e.join_key for e in self.entities] + [r.name for r in self.request_features]
        for what, names in (
            ("feature", [f.input for f in self.features]),
            ("request input", keys),
            ("output", [o.name for o in self.outputs]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]} is listed twice")
        if self.example and set(self.example) != set(keys):
            raise ValueError(
                f"the example has {', '.join(sorted(self.example))}, a request has {', '.join(sorted(keys))}"
            )
        return self

    @property
    def key_inputs(self) -> dict[str, DType]:
        """What a hydrated request brings: join keys and request features, by name, with their types."""
        return {e.join_key: e.dtype for e in self.entities} | {r.name: r.dtype for r in self.request_features}

    @property
    def tensor_inputs(self) -> dict[str, DType]:
        """What a full request brings: the graph's inputs by name, with their types."""
        return {f.input: f.dtype for f in self.features}

    @property
    def primary_output(self) -> Output | None:
        """The number that a prediction token carries and metrics of prediction and actual are computed from.

        The first probability; without one the first value. None for a model that answers labels alone.
        """
        for meaning in ("probability", "value"):
            for output in self.outputs:
                if output.meaning == meaning and output.dtype != "string":
                    return output
        return None

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no blanks; the same contract always gives the same bytes."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        """``sha256:…`` over the canonical JSON."""
        return sha256(self.to_json().encode())

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> Contract:
        """Read the contract out of an ONNX model's metadata properties.

        Args:
            metadata: The properties, as ``onnxruntime`` gives them in ``custom_metadata_map``.
            source: Name of the file, for messages.

        Raises:
            ContractError: There is none, or it is not one this version reads.
        """
        text = metadata.get(METADATA_KEY)
        if text is None:
            raise ContractError(f"{source}: no contract in the model's metadata; package it with fairlead.package()")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "contract"
            raise ContractError(f"{source}: contract field {where}: {first['msg']}; package the model again") from error


def sha256(content: bytes) -> str:
    """Return the digest of ``content`` as ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
