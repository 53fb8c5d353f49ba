"""Revisions and routes to be rendered, plain ones and any that the core can come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from fairlead import BUCKETS, Layout
from fairlead.policy import Hydration
from fairlead.route import RouteKey
from fairlead_operator.api.v1alpha1 import FeatureStore, Model, Resources, Unit
from fairlead_operator.api.v1alpha1.routing import Abort, ConnectionPool, Cookie, Delay, Fault, OutlierDetection
from fairlead_operator.core.desired import Reach, Revision
from fairlead_operator.core.observed import Destination, Observation, Route
from fairlead_operator.platforms.kubernetes.render import Place

SALT = "flights/arrival-delay/e1"
KEY = RouteKey("k1", bytes(range(32)))
PLACE = Place(namespace="flights", name="arrival-delay", uid="0d3c3b2a-7a52-4d6e-9a65-0c7f5a1e9f11")
DIGEST = "sha256:" + "ab" * 32

GATEWAY_NAMESPACE = "istio-ingress"
SELECTOR = {"istio": "ingressgateway"}

COOKIE = Unit(cookie=Cookie(name="ab-unit", ttl="30d"))
CLAIM = Unit(header="x-jwt-sub", jwt_claim="sub")


def revision(
    uri: str = "s3://models/arrival-delay/logistic/3/model.onnx",
    *,
    variant: str = "logistic",
    name: str | None = None,
    storage: Mapping[str, Any] | None = None,
    account: str | None = None,
    feature_store: Mapping[str, Any] | None = None,
    hydration: Hydration | None = None,
    release: str = "0.1.0",
) -> Revision:
    """Return a revision of a model in S3 and a feature store in a ConfigMap."""
    model = {"uri": uri, "digest": DIGEST, "storage": storage, "serviceAccountName": account}
    return Revision(
        name=f"arrival-delay-{variant}-0a1b2c3d" if name is None else name,
        variant=variant,
        model_name="arrival-delay",
        model=Model.model_validate(model),
        resources=Resources(),
        release=release,
        hydration=hydration or Hydration(),
        feature_store=FeatureStore.model_validate(feature_store or {"configMapRef": {"name": "feast-client"}}),
    )


def reach(**changes: Any) -> Reach:
    """Return how requests reach variants: by header, missing units to control."""
    given: dict[str, Any] = {
        "model_name": "arrival-delay",
        "unit": Unit(),
        "on_missing_unit": "Control",
        "override_header": "x-fairlead-variant",
        "timeout_s": 1.5,
        "retry_attempts": 2,
        "hosts": ("arrival-delay.example.org",),
        "gateways": ("istio-ingress/public",),
    }
    return Reach(**{**given, **changes})


def revision_name(variant: str) -> str:
    """Return the name of ``variant``'s revision here."""
    return f"arrival-delay-{variant}-0a1b2c3d"


def split(layout: Layout) -> tuple[Destination, ...]:
    """Return the destinations of ``layout``; two at least."""
    entries = [Destination(piece.arm, revision_name(piece.arm), piece.width) for piece in layout.slices]
    if len(entries) == 1:
        entries.append(Destination("boosted", revision_name("boosted"), 0))
    return tuple(entries)


def route(weights: Mapping[str, int] | None = None, *, observed: bool = True, **changes: Any) -> Route:
    """Return a route with a split of ``weights`` (basis points, by treatment; boosted 10 % if left out).

    Args:
        weights: Of treatments.
        observed: Whether experiment headers are sent.
        changes: Fields of the route, or of its reach.
    """
    layout = Layout.of("logistic", {"boosted": 1000} if weights is None else weights)
    variants = dict.fromkeys(["logistic", *(piece.arm for piece in layout.slices), "boosted"])
    fields: dict[str, Any] = {
        "salt": SALT,
        "split": split(layout),
        "control": Destination("logistic", revision_name("logistic"), BUCKETS),
        "overrides": tuple((variant, revision_name(variant)) for variant in variants),
        "shadows": (),
        "observation": Observation(SALT, 2, layout) if observed else None,
    }
    of_route = {name: value for name, value in changes.items() if name in fields}
    of_reach = {name: value for name, value in changes.items() if name not in fields}
    return Route(**{**fields, **of_route, "reach": reach(**of_reach)})


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Draw a layout of up to five treatments, weights of 0 and whole slots too."""
    count = draw(st.integers(0, 5))
    slot = BUCKETS // max(count, 1)
    weight = st.one_of(st.just(0), st.just(slot), st.integers(0, slot))
    return Layout.of("logistic", {f"t{index}": draw(weight) for index in range(count)})


@st.composite
def splits(draw: st.DrawFn) -> tuple[Destination, ...]:
    """Draw a split: with slots, or of two revisions of one variant, or promoted to one revision."""
    layout = draw(layouts())
    entries = split(layout)
    if draw(st.booleans()):
        winner = draw(st.sampled_from(entries))
        return tuple(Destination(winner.variant, winner.revision, entry.width_bp) for entry in entries)
    return entries


def units() -> st.SearchStrategy[Unit]:
    """Draw where units are found."""
    return st.sampled_from([Unit(), Unit(header="x-user"), COOKIE, CLAIM, Unit(cookie=Cookie(name="A_b", ttl="1h"))])


def reaches() -> st.SearchStrategy[Reach]:
    """Draw how requests reach variants."""
    percents = st.integers(0, BUCKETS).map(lambda bp: bp / 100)
    delays = st.none() | st.builds(Delay, percent=percents, duration=st.sampled_from(["20ms", "1.5s", "1m"]))
    aborts = st.none() | st.builds(Abort, percent=percents, status=st.integers(400, 599))
    return st.builds(
        Reach,
        model_name=st.just("arrival-delay"),
        unit=units(),
        on_missing_unit=st.sampled_from(["Control", "Random", "Reject"]),
        override_header=st.sampled_from(["x-fairlead-variant", "x-tester"]),
        timeout_s=st.floats(0.001, 600),
        retry_attempts=st.integers(0, 10),
        hosts=st.lists(st.sampled_from(["a.example", "b.example"]), min_size=1, unique=True).map(tuple),
        gateways=st.just(("istio-ingress/public",)),
        outlier_detection=st.none() | st.just(OutlierDetection()),
        connection_pool=st.none() | st.just(ConnectionPool()),
        mirror_percent=percents,
        fault=st.none() | st.builds(Fault, delay=delays, abort=aborts),
    )


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """Draw a route such as the core can come to."""
    entries = draw(splits())
    names = sorted({entry.variant for entry in entries} | {"logistic"})
    layout = draw(layouts())
    return Route(
        reach=draw(reaches()),
        salt=draw(st.from_regex(r"[a-z0-9./:-]{1,100}", fullmatch=True)),
        split=entries,
        control=Destination("logistic", revision_name("logistic"), BUCKETS),
        overrides=tuple((name, draw(st.sampled_from([None, revision_name(name)]))) for name in names),
        shadows=draw(st.sampled_from([(), (revision_name("s1"),), (revision_name("s1"), revision_name("s2"))])),
        observation=draw(st.none() | st.builds(Observation, st.just(SALT), st.integers(0, 99), st.just(layout))),
    )
