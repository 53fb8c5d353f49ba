"""The ledger, over HTTP."""

from __future__ import annotations

import asyncio

import httpx

from fairlead.feedback.serving import Feedback
from fairlead_server.exposure.sink import Delivery, Reception

EXPOSURES_PATH = "/v1/exposures"
_LONGEST_WAIT_S = 60.0
"""Of one read or write; the whole is limited by the caller's deadline."""
_REASON_BYTES = 2048
_LONGEST_PAUSE_S = 60.0
"""Up to so long a ledger is left alone when it asks for that."""
_MOST_DIGITS = 5
_REASON_CHARACTERS = 200
_OF_THE_MOMENT = frozenset({408, 425, 429})
"""Client errors that say: later."""
_OF_THE_SENDER = frozenset({401, 403, 404, 405, 407, 421})
"""Client errors that are about address or key, which somebody may put right, rather than about the report."""


class HttpSink:
    """The ledger, over HTTP; one connection that is kept."""

    def __init__(self) -> None:
        """Make the sink; it connects when it first sends."""
        self._client: httpx.AsyncClient | None = None

    async def send(self, feedback: Feedback, body: bytes, deadline_s: float) -> Delivery:
        """Send one report; see :class:`Sink`."""
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        if feedback.api_key is not None:
            headers["authorization"] = f"Bearer {feedback.api_key}"
        try:
            async with asyncio.timeout(deadline_s):
                return await self._post(f"{feedback.ledger}{EXPOSURES_PATH}", body, headers)
        except asyncio.CancelledError:
            await self.close()  # a request broken off may leave its place in the pool taken, and the next one waiting
            raise
        except TimeoutError:
            await self.close()
            return Delivery(Reception.FAILED, f"no answer within {deadline_s:.3g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Delivery(Reception.FAILED, type(error).__name__)

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> Delivery:
        if self._client is None:
            self._client = await asyncio.to_thread(_client)  # for it reads every certificate of the system
        async with self._client.stream("POST", url, content=body, headers=headers) as answer:
            if answer.is_success:
                await _start_of(answer)
                return Delivery(Reception.TAKEN)
            reason = f"{answer.status_code}: {_line(await _start_of(answer))}"
            return Delivery(_reception(answer.status_code), reason, _wait_s(answer.headers.get("retry-after", "")))


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=_LONGEST_WAIT_S, limits=httpx.Limits(max_connections=1))


def _reception(status: int) -> Reception:
    if status in _OF_THE_SENDER or status == httpx.codes.INTERNAL_SERVER_ERROR:
        return Reception.POSTPONED
    if httpx.codes.is_client_error(status) and status not in _OF_THE_MOMENT:
        return Reception.REFUSED
    return Reception.FAILED


async def _start_of(answer: httpx.Response) -> bytes:
    """Return the first bytes of an answer's body; the rest of a long one is not waited for."""
    found = b""
    async for part in answer.aiter_bytes():
        found += part
        if len(found) >= _REASON_BYTES:
            break
    return found[:_REASON_BYTES]


def _line(raw: bytes) -> str:
    text = " ".join(raw.decode("utf-8", "replace").split())
    return "".join(character for character in text if character.isprintable())[:_REASON_CHARACTERS]


def _wait_s(text: str) -> float:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return min(float(text), _LONGEST_PAUSE_S) if is_number else 0.0
