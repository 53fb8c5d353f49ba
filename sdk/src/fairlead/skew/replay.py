"""Point-in-time features of the rows of a log, by Feast's own join."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairlead import prediction_log as form
from fairlead.contract import Contract
from fairlead.skew.compare import Mask
from fairlead.skew.errors import SkewError, said

if TYPE_CHECKING:
    from feast import FeatureStore

_AT = "event_timestamp"
_PLACE = "fairlead_place"
_VERSION = re.compile(r"@v\d+__")
_ROWS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was joined to the rows of a log."""

    features: pd.DataFrame
    """By input name, in the order of the log."""
    present: Mask
    """Where the join gave a row: Feast's file store leaves out rows of which some view is older than its ttl."""
    computed: Mask
    """Where on-demand features were computed of the row's own request features."""


def replay(store: FeatureStore, contract: Contract, rows: pd.DataFrame, advance: Callable[[int], None]) -> Replayed:
    """Join features to the rows of a log, as of the time at which each was served.

    Rows with the same keys and time are joined once, with the request features of the first: stored features are the
    same for all, and Feast's file store takes only one of them.

    Args:
        store: The feature store.
        contract: Of the model that served them.
        rows: Of the log, in the order of serving.
        advance: Told of rows that are done.

    Raises:
        SkewError: The offline store failed, or lacks a feature.
    """
    asked = [*contract.key_inputs, _AT]
    given = rows[[*(form.KEY + name for name in contract.key_inputs), form.SERVED_AT]].set_axis(asked, axis="columns")
    keys = [*(entity.join_key for entity in contract.entities), _AT]
    place = given.groupby(keys, sort=False, dropna=False).ngroup()
    distinct = given[~place.duplicated()].reset_index(drop=True)
    distinct[_PLACE] = distinct.index
    service = store.get_feature_service(contract.feature_service)
    joined: list[pd.DataFrame] = []
    for start in range(0, len(distinct), _ROWS_AT_ONCE):
        part = distinct.iloc[start : start + _ROWS_AT_ONCE]
        try:
            frame = store.get_historical_features(part, service, full_feature_names=True).to_df()
        except Exception as error:
            raise SkewError(f"the offline store failed ({said(error)})") from error
        joined.append(_checked(frame, contract))
        advance(int(place.isin(part[_PLACE]).sum()))
    found = pd.concat(joined, ignore_index=True).set_index(_PLACE)
    present = place.isin(found.index).to_numpy(bool)
    own = (given[asked].reset_index(drop=True) == distinct[asked].iloc[place].reset_index(drop=True)).all(
        axis="columns"
    )
    return Replayed(found.reindex(place).set_axis(rows.index), present, present & own.to_numpy(bool))


def _checked(frame: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    names: list[Any] = [feature.input for feature in contract.features]
    # Feast's DuckDB store leaves a view's version out of its columns' names (and fails where there are two of a view).
    frame = frame.rename(columns={_VERSION.sub("__", name): name for name in names if name not in frame})
    missing = [name for name in names if name not in frame]
    if missing:
        raise SkewError(
            f"feature service {contract.feature_service}: has no {missing[0]} now; compare with the feature repository "
            "of the model's time, or package the model again"
        )
    return frame[[_PLACE, *names]]
