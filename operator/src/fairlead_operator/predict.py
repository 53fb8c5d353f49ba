"""Asking a deployment for predictions, as its clients do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from fairlead.cli.errors import CommandError
from fairlead.route import VARIANT_HEADER

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how a deployment is asked."""

    url: str
    """Base, such as ``http://127.0.0.1:8080``."""
    model: str
    unit_header: str


def ask(endpoint: Endpoint, instances: Sequence[dict[str, Any]], unit: str | None) -> dict[str, Any]:
    """Ask for one V1 request; return status, unit, variant, and predictions or error.

    Raises:
        CommandError: Nobody answers there.
    """
    address = f"{endpoint.url.rstrip('/')}/v1/models/{endpoint.model}:predict"
    headers = [(b"content-type", b"application/json")]
    if unit is not None:
        headers.append((endpoint.unit_header.encode(), unit.encode()))
    try:
        answer = httpx.post(
            address,
            content=json.dumps({"instances": list(instances)}),
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError(f"{address}: no answer ({error}); is `fairlead up` running? else give --url") from error
    return {
        "status": answer.status_code,
        "unit": unit,
        "variant": answer.headers.get(VARIANT_HEADER),
        **_body(answer),
    }


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    return body if isinstance(body, dict) else {"error": body}
