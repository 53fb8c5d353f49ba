"""Whether a model's contract fits the feature service in the registry, and if not, which feature differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fairlead.contract import Contract, Feature
from fairlead.features.service import ServiceDescription, ServiceFeature
from fairlead_server.errors import ContractMismatch

_COMPARED = ("on_demand", "join_keys", "ttl_s")

_NARROWED = {"float64": "float32"}
"""Registered types that a graph may take narrowed: the packager feeds all numbers as float32."""


def check_fits(contract: Contract, registered: ServiceDescription) -> None:
    """Compare the service that the model was packaged with to the one that is registered.

    Raises:
        ContractMismatch: They differ; the message names the first feature, key or view that does.
    """
    found = tuple(_differences(contract, registered))
    if not found and contract.fingerprint == registered.fingerprint:
        return
    differences = found or (_unnamed(contract, registered),)
    raise ContractMismatch(
        f"feature service {registered.name} of project {registered.project} is not the one that model "
        f"{contract.model} {contract.version} was packaged with: {differences[0]}; register the service that it was "
        "packaged with, or train and package the model again",
        differences,
        registered.fingerprint,
    )


def _differences(contract: Contract, registered: ServiceDescription) -> Iterator[str]:
    if contract.project != registered.project:
        yield f"project is {registered.project}, the contract says {contract.project}"
    found = {feature.input: feature for feature in registered.features}
    for feature in contract.features:
        if feature.input not in found:
            yield f"feature {feature.input} is not registered"
        else:
            yield from _feature_differences(feature, found[feature.input])
    known = {feature.input for feature in contract.features}
    yield from (f"feature {name} is registered, but not in the contract" for name in found if name not in known)
    yield from _order(contract, registered)
    yield from _keys("entity", contract.entities, registered.entities)
    yield from _keys("request feature", contract.request_features, registered.request_features)


def _feature_differences(contract: Feature, registered: ServiceFeature) -> Iterator[str]:
    if contract.dtype not in {registered.dtype, _NARROWED.get(registered.dtype)}:
        yield (
            f"feature {contract.input} is registered with dtype {registered.dtype}, the contract says {contract.dtype}"
        )
    for field in _COMPARED:
        ours, theirs = getattr(contract, field), getattr(registered, field)
        if ours != theirs:
            yield f"feature {contract.input} is registered with {field} {theirs}, the contract says {ours}"


def _order(contract: Contract, registered: ServiceDescription) -> Iterator[str]:
    for ours, theirs in zip(contract.features, registered.features, strict=False):
        if ours.input != theirs.input:
            yield f"feature {theirs.input} is registered where the contract has {ours.input}"


def _keys(what: str, ours: Iterable[Any], theirs: Iterable[Any]) -> Iterator[str]:
    mine, registered = {one.name: one for one in ours}, {one.name: one for one in theirs}
    for name in mine.keys() | registered.keys():
        if mine.get(name) != registered.get(name):
            yield f"{what} {name} is registered as {registered.get(name)}, the contract says {mine.get(name)}"


def _unnamed(contract: Contract, registered: ServiceDescription) -> str:
    """Say what the fingerprint covers and the contract does not carry."""
    asked = {feature.input: feature.dtype for feature in contract.features}
    narrowed = [f"type of {f.input} ({f.dtype})" for f in registered.features if asked.get(f.input) != f.dtype]
    sources = [f"source text of on-demand view {view}" for view, _ in registered.transformations]
    return f"one of these changed: {', '.join([*narrowed, *sources]) or 'the order of features'}"
