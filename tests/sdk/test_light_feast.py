"""Feast imported lightly: what it leaves out comes back to whoever asks for it. In a process of its own."""

from __future__ import annotations

import subprocess
import sys

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


def test_what_is_left_out_at_first_is_there_when_it_is_asked_for() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == "as ever\n", ended.stderr
