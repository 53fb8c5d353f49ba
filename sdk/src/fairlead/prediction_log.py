"""The form of the prediction log: what the model server writes, and ``fairlead skew`` reads.

A log is Parquet files, one row for each row of a sampled request. A column's name says what it holds, then of what:

====================== ======================================================= ==================================
column                 holds                                                   type
====================== ======================================================= ==================================
``served_at``          when features were looked up, by the server's clock     timestamp[us, UTC]
``model``, ``version`` as clients call them                                    dictionary of text
``variant``            of the ModelDeployment; empty without one               dictionary of text
``revision``           the server's; empty without one                         dictionary of text
``key.NAME``           what the request brought: join keys, request features   the contract's
``feature.VIEW__NAME`` what the model saw; NaN for a missing value             the contract's
``state.VIEW__NAME``   how a stored feature was found (``FeatureState``)       dictionary of text
``event_time.VIEW``    event time of the view's row; null without one          timestamp[us, UTC]
``output.NAME``        what the model answered                                 the contract's
====================== ======================================================= ==================================

A row's age is ``served_at`` less ``event_time``. Each file's metadata has the model's contract and the deployment's
choices of hydration, so that a file explains itself.
"""

from __future__ import annotations

from typing import Final

SUFFIX: Final = ".parquet"
"""How a whole file's name ends."""
UNFINISHED: Final = ".part"
"""What follows while it is being written."""

SERVED_AT: Final = "served_at"
MODEL: Final = "model"
VERSION: Final = "version"
VARIANT: Final = "variant"
REVISION: Final = "revision"
KEY: Final = "key."
FEATURE: Final = "feature."
STATE: Final = "state."
EVENT_TIME: Final = "event_time."
OUTPUT: Final = "output."

FORMAT: Final = "fairlead.dev/prediction-log/v1"
FORMAT_KEY: Final = b"fairlead.format"
CONTRACT_KEY: Final = b"fairlead.contract"
"""Metadata: the contract's canonical JSON."""
HYDRATION_KEY: Final = b"fairlead.hydration"
"""Metadata: JSON of ``fairlead.policy.Hydration``."""
