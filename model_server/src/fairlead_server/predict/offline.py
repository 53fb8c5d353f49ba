"""The offline store of a server: none. Serving reads the online store alone.

A feature repository's configuration names the store that training reads, a warehouse perhaps, whose client is not
installed where models are served; Feast would import it only to check its settings.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

NO_OFFLINE_STORE: Final = "fairlead_server.predict.offline.NoOfflineStore"
"""What the configuration of a server's feature store names; Feast loads ``NoOfflineStoreConfig`` by it."""


class NoOfflineStoreConfig(BaseModel):
    """Settings of no offline store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["fairlead_server.predict.offline.NoOfflineStore"] = NO_OFFLINE_STORE
