"""On random data our readers give what ``get_online_features`` gives, and the state that the data says.

A few rows per store; ``python tools/conformance`` compares many, under several hash seeds and versions of Feast.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.policy import FeatureState
from support.conformance import WAYS, world_of

ROWS = 60
STORES = [("redis", "redis"), ("redis-wide", "redis"), ("redis-through-feast", "generic"), ("sqlite", "generic")]


@pytest.mark.parametrize(("kind", "reader"), STORES)
def test_values_and_states_of_random_data_are_feasts_and_the_datas(tmp_path: Path, kind: str, reader: str) -> None:
    with world_of(kind, tmp_path) as world:
        compared = WAYS["written"](world, ROWS)
    assert compared.reader == reader
    assert compared.rows == ROWS


@pytest.mark.parametrize(("kind", "reader"), [STORES[0], STORES[-1]])
def test_values_and_states_of_materialized_rows_are_feasts_and_the_datas(
    tmp_path: Path, kind: str, reader: str
) -> None:
    with world_of(kind, tmp_path) as world:
        compared = WAYS["materialized"](world, ROWS)
    assert compared.reader == reader
    assert set(compared.states) == {
        *(FeatureState.PRESENT, FeatureState.NULL, FeatureState.STALE, FeatureState.NOT_FOUND)
    }
