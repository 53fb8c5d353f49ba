"""The feature repository: what is known about a customer, and what only the request knows about the order."""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int64, String

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)

customer_history = FeatureView(
    name="customer_history",
    entities=[customer],
    ttl=timedelta(days=35),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="orders_90d", dtype=Float32, description="Orders in the last 90 days"),
        Field(name="mean_basket_eur", dtype=Float32, description="Mean value of these orders, euro"),
        Field(name="return_share_90d", dtype=Float32, description="Share of them that was sent back, 0 to 1"),
    ],
    source=FileSource(name="customers", path="data/customers.parquet", timestamp_field="event_timestamp"),
)

asked = RequestSource(
    name="asked",
    schema=[
        Field(name="basket_eur", dtype=Float64, description="Value of this order, euro"),
        Field(name="items", dtype=Int64, description="Pieces in it"),
    ],
)


@on_demand_feature_view(
    sources=[asked],
    schema=[Field(name="basket_eur", dtype=Float64), Field(name="items", dtype=Int64)],
    mode="python",
)
def basket(inputs: dict[str, Any]) -> dict[str, Any]:
    """Pass on what only the request knows."""
    return {"basket_eur": inputs["basket_eur"], "items": inputs["items"]}


returns_v1 = FeatureService(name="returns_v1", features=[customer_history, basket])

OBJECTS = [customer, customer_history, basket, returns_v1]
