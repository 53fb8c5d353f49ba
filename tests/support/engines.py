"""The engines that speak gRPC, and which of them are there."""

from __future__ import annotations

import pytest

from fairlead_server.native import native

ENGINES = ("native", "python")


def require_engine(name: str) -> None:
    """Skip if the engine is not built here."""
    if name == "native" and native is None:
        pytest.skip("the native gRPC engine is not built: make setup builds it where cargo is")
