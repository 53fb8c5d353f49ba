"""Feast imported lightly: what it leaves out comes back to whoever asks for it. In a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from fairlead.features import light_feast
light_feast.install()
light_feast.install()
import typeguard
checked = typeguard.typechecked
import feast
from feast import Entity, FeatureStore
assert typeguard.typechecked is checked
left_out = {"fastapi.applications", "sqlalchemy", "jwt", "prometheus_client", "feast.infra.registry.sql"}
assert not left_out & sys.modules.keys(), left_out & sys.modules.keys()

from feast.errors import FeastProviderNotImplementedError
from feast.feature_store import SqlRegistry as at_hand
assert not isinstance(Entity(name="e"), at_hand)
from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig
assert isinstance(SqlRegistry.__new__(SqlRegistry), at_hand)
try:
    at_hand(None, "project", None)
except AssertionError as error:
    assert "needs a valid registry_config" in str(error), error
from fastapi import FastAPI, status
assert FastAPI(title="t").title == "t"
assert status.HTTP_404_NOT_FOUND == 404
assert callable(feast.feature_server.get_app)
assert callable(feast.ui_server.get_app)
print("as ever")
"""

LATE = """
import sys
from fairlead.features import light_feast
from fairlead.features.late_package import is_late, run_named_by
light_feast.install()
import feast
from feast import FeatureStore
from feast.infra.offline_stores.offline_utils import Timestamp
late = {"pandas", "pyarrow.dataset", "pyarrow.parquet", "jinja2", "dill"}
assert not [name for name in late if not is_late(sys.modules[name])]
assert "pandas.core" not in sys.modules
named = FeatureStore.get_historical_features.__annotations__["entity_df"]
assert "pandas.DataFrame" in str(named), named
assert not isinstance(1, Timestamp) and is_late(sys.modules["pandas"])

import pandas
import pandas as pd
def asked(rows):
    return pd.DataFrame(rows)
assert is_late(pandas)
run_named_by(asked)
assert not is_late(pandas) and pandas is sys.modules["pandas"]
import pandas.api.types
assert pandas.api.types is pd.api.types and pandas.api.types.__spec__.name == "pandas.api.types"
assert isinstance(pd.Timestamp("2013-01-01"), Timestamp) and issubclass(pd.Timestamp, Timestamp)
assert type(Timestamp("2013-01-01")) is pd.Timestamp and Timestamp.fromtimestamp(0).year == 1970
try:
    pd.nothing
except AttributeError as error:
    assert "has no attribute 'nothing'" in str(error)
import pyarrow as pa
import pyarrow.parquet as pq
assert pa.Table.from_pandas(asked({"a": [1]})).to_pandas().a.tolist() == [1]
assert callable(pq.read_table)
print("as ever")
"""

WITHIN = """
import sys
from fairlead.features import light_feast
light_feast.install()
import feast
from pandas.api.types import is_bool_dtype
import pandas
assert pandas.__version__ and pandas.api.types.is_bool_dtype is is_bool_dtype
assert sys.modules["pandas.api.types"] is pandas.api.types
print("as ever")
"""


@pytest.mark.parametrize("program", [PROGRAM, LATE, WITHIN], ids=["left out", "late", "late, by a module of it"])
def test_what_is_left_out_at_first_is_there_when_it_is_asked_for(program: str) -> None:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == "as ever\n", ended.stderr
