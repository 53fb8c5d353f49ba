"""The flights feature repository: what is known about a departure from New York when its prediction is asked for.

``make features`` builds the sources, applies these definitions and materializes them (``python -m flights.features``).
Views of punctuality cover flights that had landed by a row's event time, within a window that ends there: 12 hours per
plane, 3 hours and 7 days per carrier, 2 hours per origin, 6 hours per destination. A row counts until the next
landing of its key or until its ttl is over, in the point-in-time join and, through Fairlead's server, online.

Online it is SQLite, or Redis where ``FAIRLEAD_REDIS=host:port`` is set (``feature_store.redis.yaml``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int64, String

origin = Entity(
    name="origin", join_keys=["origin"], value_type=ValueType.STRING, description="Airport left: EWR, JFK, LGA"
)
dest = Entity(name="dest", join_keys=["dest"], value_type=ValueType.STRING, description="Airport flown to")
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING, description="Airline, two letters")
tailnum = Entity(
    name="tailnum", join_keys=["tailnum"], value_type=ValueType.STRING, description="Plane, by tail number"
)


def _source(view: str) -> FileSource:
    return FileSource(name=view, path=f"data/{view}.parquet", timestamp_field="event_timestamp")


def _view(name: str, entity: Entity, ttl: timedelta | None, features: dict[str, str]) -> FeatureView:
    fields = [Field(name=feature, dtype=Float32, description=text) for feature, text in features.items()]
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=ttl,
        schema=[Field(name=entity.join_key, dtype=String), *fields],
        source=_source(name),
    )


_PUNCTUALITY = {
    "flights": "Flights landed in the window",
    "mean_arrival_delay": "Mean arrival delay, minutes, negative is early",
    "mean_departure_delay": "Mean departure delay, minutes",
    "share_late": "Share that arrived 15 or more minutes late, 0 to 1",
}

origin_weather = _view(
    "origin_weather",
    origin,
    timedelta(hours=3),
    {
        "temperature_f": "Degrees Fahrenheit",
        "dew_point_f": "Degrees Fahrenheit",
        "humidity_percent": "Relative humidity",
        "wind_speed_mph": "Miles per hour",
        "wind_gust_mph": "Miles per hour; missing where no gust was measured",
        "precipitation_in": "Inches in the hour",
        "pressure_mbar": "At sea level, millibar",
        "visibility_mi": "Miles, at most 10",
    },
)
tail_performance = _view(
    "tail_performance",
    tailnum,
    timedelta(hours=12),
    _PUNCTUALITY | {"last_arrival_delay": "Arrival delay of the plane's last landing, minutes"},
)
carrier_performance = _view("carrier_performance", carrier, timedelta(hours=6), _PUNCTUALITY)
carrier_week = _view("carrier_week", carrier, timedelta(hours=24), _PUNCTUALITY)
origin_performance = _view("origin_performance", origin, timedelta(hours=3), _PUNCTUALITY)
dest_performance = _view("dest_performance", dest, timedelta(hours=12), _PUNCTUALITY)
plane = _view(
    "plane",
    tailnum,
    None,
    {
        "age_years": "Age in 2013; missing where the year of manufacture is",
        "engines": "Number of engines",
        "seats": "Number of seats",
    },
)

schedule = RequestSource(
    name="schedule",
    schema=[
        Field(name="hour", dtype=Int64, description="Scheduled local hour of departure, 0 to 23"),
        Field(name="weekday", dtype=Int64, description="Scheduled local day, 0 is Monday"),
        Field(name="distance", dtype=Float64, description="Miles between the airports"),
    ],
)


@on_demand_feature_view(
    sources=[schedule],
    schema=[
        Field(name="hour", dtype=Int64),
        Field(name="weekday", dtype=Int64),
        Field(name="distance", dtype=Float64),
    ],
    mode="python",
)
def departure(inputs: dict[str, Any]) -> dict[str, Any]:
    """Pass on what only the request knows."""
    return {"hour": inputs["hour"], "weekday": inputs["weekday"], "distance": inputs["distance"]}


# Wind gusts are missing in four of five hours and the plane's other windows in seven of ten requests: they are in their
# views, but a model gains nothing from them, so no service asks for them.
_WEATHER = [
    "temperature_f",
    "dew_point_f",
    "humidity_percent",
    "wind_speed_mph",
    "precipitation_in",
    "pressure_mbar",
    "visibility_mi",
]
_LAST_LANDING = ["last_arrival_delay"]

late_logistic = FeatureService(
    name="late_logistic",
    features=[
        departure,
        tail_performance[_LAST_LANDING],
        carrier_performance[["mean_departure_delay", "share_late"]],
        carrier_week[["mean_arrival_delay", "share_late"]],
        origin_performance[["flights", "mean_departure_delay", "share_late"]],
        dest_performance[["mean_arrival_delay", "share_late"]],
    ],
    description="What the logistic model of late arrivals reads: it knows nothing of the weather",
)
late_boosted = FeatureService(
    name="late_boosted",
    features=[
        departure,
        origin_weather[_WEATHER],
        tail_performance[_LAST_LANDING],
        carrier_performance,
        carrier_week,
        origin_performance,
        dest_performance,
        plane[["age_years", "seats"]],
    ],
    description="What the boosted model of late arrivals reads",
)
