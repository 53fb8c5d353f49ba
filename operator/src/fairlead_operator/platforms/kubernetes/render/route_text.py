"""A route as text on its VirtualService: the weights in force are kept there and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.kinds import GROUP

ROUTE_ANNOTATION: Final = f"{GROUP}/route"

_ROUTES: Final = TypeAdapter(Route)


def route_text(route: Route) -> str:
    """Return ``route`` as compact JSON."""
    return _ROUTES.dump_json(route).decode()


def read_route(manifest: Mapping[str, Any]) -> Route | None:
    """Return the route that a VirtualService was rendered from; None if it does not say, or not in our words.

    That the rest of the object still says the same is for ``covers`` to find out.
    """
    text = (manifest.get("metadata", {}).get("annotations") or {}).get(ROUTE_ANNOTATION)
    if not isinstance(text, str):
        return None
    try:
        return _ROUTES.validate_json(text)
    except ValidationError:
        return None
