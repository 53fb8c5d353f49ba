"""Which state each feature must be found in at each flight's request, computed from the raw data.

It shares the reading of the raw files (``flights.raw``) with the build, and beyond that no code with what publishes
features or with the server that reads them: a key's last row is looked up with an as-of join of the raw landings,
weather and planes. The served states are compared with these.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairlead.features.service import ServiceFeature, describe
from fairlead.policy import FeatureState, Hydration
from flights import raw

if TYPE_CHECKING:
    from feast import FeatureStore

_STEPS = {
    "tail_performance": None,
    "carrier_performance": timedelta(minutes=10),
    "carrier_week": timedelta(hours=1),
    "origin_performance": timedelta(minutes=10),
    "dest_performance": None,
}
"""Grid on which a view stamps landings; None: the landing itself."""

_MEASURED = {
    "temperature_f": "temp",
    "dew_point_f": "dewp",
    "humidity_percent": "humid",
    "wind_speed_mph": "wind_speed",
    "wind_gust_mph": "wind_gust",
    "precipitation_in": "precip",
    "pressure_mbar": "pressure",
    "visibility_mi": "visib",
    "age_years": "year",
}
"""Features that may be without a value, and the raw column whose gaps they have."""


def expected_states(
    store: FeatureStore, service: str, asks: pd.DataFrame, hydration: Hydration | None = None
) -> pd.DataFrame:
    """Return the state in which every stored feature must be found when each flight is asked about.

    Args:
        store: The feature store; only its registry is read.
        service: Name of the feature service.
        asks: Flights as ``raw.load_flights`` returns them, or a part of those: keys and asked_at. A key that is
            missing is found nowhere.
        hydration: Stricter maximum ages of a deployment.

    Returns:
        One row per flight with the index of ``asks``, one column per stored feature by full name, in the service's
        order: ``PRESENT``, ``NULL``, ``STALE`` or ``NOT_FOUND``.
    """
    hydration = hydration or Hydration()
    stored = [feature for feature in describe(store, service).features if not feature.on_demand]
    history = _history()
    last = {
        feature.view: _last_seen(history[feature.view], feature.join_keys[0], asks)
        for feature in {feature.view: feature for feature in stored}.values()
    }
    found = {
        feature.input: _states(feature, last[feature.view], hydration.max_age_of(feature.view, feature.ttl_s))
        for feature in stored
    }
    return pd.DataFrame(found, index=asks.index)


def _history() -> Mapping[str, pd.DataFrame]:
    """Return what each view's key saw when: the key, ``at``, and what was measured."""
    flights, weather, planes = raw.load_flights(), raw.load_weather(), raw.load_planes()
    landed = flights[flights["landed_at"].notna()]
    stamped = {
        view: landed.assign(at=landed["landed_at"].dt.ceil(step) if step else landed["landed_at"])
        for view, step in _STEPS.items()
    }
    known = pd.Timestamp(2013, 1, 1, tz="UTC").as_unit("us")
    return stamped | {
        "origin_weather": weather.assign(at=weather["known_at"]),
        "plane": planes.assign(at=pd.Series(known, index=planes.index)),
    }


def _last_seen(history: pd.DataFrame, key: str, asks: pd.DataFrame) -> pd.DataFrame:
    """Return for each flight, in order, asked_at and its key's last row by then; ``at`` is missing if there is none."""
    measured = [column for column in _MEASURED.values() if column in history]
    seen = history.loc[history[key].notna(), [key, "at", *measured]].sort_values("at", kind="stable")
    asked = asks[[key, "asked_at"]].assign(_order=np.arange(len(asks))).sort_values("asked_at", kind="stable")
    asked[key] = asked[key].fillna("")
    return pd.merge_asof(asked, seen, left_on="asked_at", right_on="at", by=key).sort_values("_order")


def _states(feature: ServiceFeature, last: pd.DataFrame, max_age_s: float | None) -> NDArray[np.object_]:
    measured = _MEASURED.get(feature.name)
    empty = last[measured].isna() if measured else pd.Series(data=False, index=last.index)
    age_s = (last["asked_at"] - last["at"]).dt.total_seconds()
    states = np.select(
        [last["at"].isna(), empty, age_s > (np.inf if max_age_s is None else max_age_s)],
        [FeatureState.NOT_FOUND.value, FeatureState.NULL.value, FeatureState.STALE.value],
        FeatureState.PRESENT.value,
    )
    return states.astype(object)
