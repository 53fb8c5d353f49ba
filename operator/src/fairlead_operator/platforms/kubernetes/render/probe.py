"""The probe: requests that show whether the gateway splits by the assignment law, and touch no user.

A request with the probe header goes to control either way; which of two answers it gets tells how its unit was drawn.
"""

from __future__ import annotations

import hmac
from typing import Final

from fairlead import BUCKETS, Layout
from fairlead.assignment import Slice
from fairlead.route import RouteKey
from fairlead_operator.core.observed import Route

PROBE_HEADER: Final = "x-fairlead-probe"
"""Request header; only its right value reaches the probe's route."""

PROBE_ARM_HEADER: Final = "x-fairlead-probe-arm"
"""Response header: the arm that the request was drawn into."""

PROBE_PATH: Final = "/v2/health/live"

PROBE_LAYOUT: Final = Layout((Slice("a", BUCKETS // 2), Slice("b", BUCKETS // 2)))
"""Where ``fairlead.assign(unit, route.salt, PROBE_LAYOUT)`` says that a probe lands."""

_VALUE_BYTES: Final = 16


def probe_value(route: Route, key: RouteKey) -> str:
    """Return the probe header's value: nobody else knows it, and it is new when salt or key are."""
    return hmac.digest(key.secret, f"probe:{route.salt}".encode(), "sha256")[:_VALUE_BYTES].hex()
