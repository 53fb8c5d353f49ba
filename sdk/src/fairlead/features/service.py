"""A Feast feature service, described once: ordered features with types, keys, ttl, and a fingerprint.

The packager writes the description into the contract, the server compares the registry's with it, and both get
it here, so that they cannot disagree on what a fingerprint covers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from fairlead.contract import DType, Entity, RequestFeature, sha256

if TYPE_CHECKING:
    from feast import FeatureStore

_DTYPES: dict[str, DType] = {
    "Float32": "float32",
    "Float64": "float64",
    "Int64": "int64",
    "Int32": "int32",
    "Bool": "bool",
    "String": "string",
}


class FeatureServiceError(ValueError):
    """A feature service is missing, or has something a contract cannot express."""


@dataclass(frozen=True, slots=True)
class ServiceFeature:
    """One feature of a feature service, in the service's order."""

    view: str
    name: str
    dtype: DType
    on_demand: bool
    join_keys: tuple[str, ...]
    ttl_s: float | None

    @property
    def input(self) -> str:
        """Feast's full feature name, ``view__name``."""
        return f"{self.view}__{self.name}"


@dataclass(frozen=True, slots=True)
class ServiceDescription:
    """A feature service as the registry has it."""

    project: str
    name: str
    features: tuple[ServiceFeature, ...]
    entities: tuple[Entity, ...]
    request_features: tuple[RequestFeature, ...]
    transformations: tuple[tuple[str, str], ...]
    """(on-demand view, source text) in the service's order."""

    @property
    def fingerprint(self) -> str:
        """``sha256:…`` over everything here: renamed, retyped, reordered or rewritten features change it."""
        content = {
            "project": self.project,
            "name": self.name,
            "features": [asdict(f) for f in self.features],
            "entities": [e.model_dump() for e in self.entities],
            "request_features": [r.model_dump() for r in self.request_features],
            "transformations": self.transformations,
        }
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def describe(store: FeatureStore, service: str) -> ServiceDescription:
    """Describe feature service ``service`` from the store's registry.

    Raises:
        FeatureServiceError: No such service, or a type or view that a contract cannot express.
    """
    from feast.errors import FeatureServiceNotFoundException  # noqa: PLC0415 -- feast takes 2 s to import

    try:
        registered = store.get_feature_service(service)
    except FeatureServiceNotFoundException as error:
        known = ", ".join(sorted(s.name for s in store.list_feature_services())) or "none"
        raise FeatureServiceError(
            f"feature service {service} is not in the registry of project {store.project} (registered: {known}); "
            "run `feast apply` in the feature repository"
        ) from error
    views = [(projection, view_of(store, projection)) for projection in registered.feature_view_projections]
    entities = _entities(store, views)
    return ServiceDescription(
        project=store.project,
        name=service,
        features=tuple(f for projection, view in views for f in _features(store, projection, view)),
        entities=entities,
        request_features=_request_features(views),
        transformations=tuple((p.name_to_use(), _source_of(view)) for p, view in views if _is_on_demand(view)),
    )


def view_of(store: FeatureStore, projection: Any) -> Any:
    """Return the registered view behind a projection of a feature service, in the version that the service names."""
    version = projection.version_tag
    if version is None:
        return store.registry.get_any_feature_view(projection.name, store.project)
    view = store.registry.get_feature_view_by_version(projection.name, store.project, version)
    view.projection.version_tag = version  # by which an online store finds its table, as Feast itself does it
    return view


def _features(store: FeatureStore, projection: Any, view: Any) -> list[ServiceFeature]:
    on_demand = _is_on_demand(view)
    ttl = None if on_demand or not view.ttl else view.ttl.total_seconds()
    keys = () if on_demand else tuple(_join_keys(store, projection, view))
    return [
        ServiceFeature(
            view=projection.name_to_use(),
            name=field.name,
            dtype=_dtype(field.dtype, f"{projection.name_to_use()}:{field.name}"),
            on_demand=on_demand,
            join_keys=keys,
            ttl_s=ttl,
        )
        for field in projection.features
    ]


def _join_keys(store: FeatureStore, projection: Any, view: Any) -> list[str]:
    own = [store.get_entity(name).join_key for name in view.entities if name != "__dummy"]
    return [projection.join_key_map.get(key, key) for key in own]


def _entities(store: FeatureStore, views: list[tuple[Any, Any]]) -> tuple[Entity, ...]:
    found: dict[str, Entity] = {}
    for projection, view in views:
        if _is_on_demand(view):
            continue
        types = {column.name: column.dtype for column in view.entity_columns}
        for name in view.entities:
            if name == "__dummy":
                continue
            entity = store.get_entity(name)
            key = projection.join_key_map.get(entity.join_key, entity.join_key)
            dtype = _dtype(types[entity.join_key], f"entity {name}")
            found.setdefault(key, Entity(name=name, join_key=key, dtype=dtype))
    return tuple(found.values())


def _request_features(views: list[tuple[Any, Any]]) -> tuple[RequestFeature, ...]:
    found: dict[str, RequestFeature] = {}
    for _, view in views:
        if not _is_on_demand(view):
            continue
        if view.source_feature_view_projections:
            raise FeatureServiceError(
                f"on-demand view {view.name} reads other feature views; a contract carries on-demand views of request "
                "values only: move the join into a feature view"
            )
        for source in view.source_request_sources.values():
            for field in source.schema:
                dtype = _dtype(field.dtype, f"request value {field.name}")
                found.setdefault(field.name, RequestFeature(name=field.name, dtype=dtype))
    return tuple(found.values())


def _is_on_demand(view: Any) -> bool:
    from feast import OnDemandFeatureView  # noqa: PLC0415 -- feast takes 2 s to import

    return isinstance(view, OnDemandFeatureView)


def _source_of(view: Any) -> str:
    return f"{view.mode}:{view.singleton}:{view.feature_transformation.udf_string}"


def _dtype(feast_type: Any, what: str) -> DType:
    name = str(feast_type)
    try:
        return _DTYPES[name]
    except KeyError:
        known = ", ".join(get_args(DType))
        raise FeatureServiceError(
            f"{what}: Feast type {name} has no place in a contract (use one of: {known})"
        ) from None
