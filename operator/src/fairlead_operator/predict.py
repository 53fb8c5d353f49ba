"""Asking a deployment for predictions, as its clients do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    host: str | None = None
    """Host that requests name, where it is not the one of ``url``: a gateway serves many."""
    advice: str = "is `fairlead up` running? else give --url"
    """What to do where nobody answers."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Asks one endpoint, over one connection."""

    endpoint: Endpoint
    client: httpx.Client

    def ask(self, instances: Sequence[dict[str, Any]], unit: str | None) -> dict[str, Any]:
        """Ask for one V1 request; return status, unit, variant, and predictions or error.

        Raises:
            CommandError: Nobody answers there.
        """
        endpoint = self.endpoint
        address = f"{endpoint.url.rstrip('/')}/v1/models/{endpoint.model}:predict"
        headers = [(b"content-type", b"application/json")]
        if endpoint.host is not None:
            headers.append((b"host", endpoint.host.encode()))
        if unit is not None:
            headers.append((endpoint.unit_header.encode(), unit.encode()))
        # A certificate is the deployment's, whatever address its gateway has.
        extensions = {} if endpoint.host is None else {"sni_hostname": endpoint.host}
        content = json.dumps({"instances": list(instances)})
        try:
            answer = self.client.post(address, content=content, headers=headers, extensions=extensions)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(f"{address}: no answer ({error}); {endpoint.advice}") from error
        return {
            "status": answer.status_code,
            "unit": unit,
            "variant": answer.headers.get(VARIANT_HEADER),
            **_body(answer),
        }


@contextmanager
def calling(endpoint: Endpoint) -> Iterator[Caller]:
    """Yield what asks ``endpoint``."""
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
        yield Caller(endpoint, client)


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    return body if isinstance(body, dict) else {"error": body}
