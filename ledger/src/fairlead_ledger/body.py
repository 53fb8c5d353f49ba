"""Bodies of requests: bounded as they come and as they are inflated, then read as messages."""

from __future__ import annotations

import zlib
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from fairlead_ledger.errors import TooLarge, Unreadable

_GZIP_WBITS = 16 + zlib.MAX_WBITS

M = TypeVar("M", bound=BaseModel)


async def read(request: Request, most_bytes: int) -> bytes:
    """Return a request's body as it was sent.

    Raises:
        TooLarge: It is longer than ``most_bytes``.
        Unreadable: The client went away before its end.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > most_bytes:
        raise TooLarge(f"the body has more than {most_bytes} bytes; send less at once")
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > most_bytes:
                raise TooLarge(f"the body has more than {most_bytes} bytes; send less at once")
    except ClientDisconnect:
        raise Unreadable("the body has no end") from None
    return bytes(body)


def inflated(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """Return a body without its content encoding.

    Args:
        body: As sent.
        encoding: The header content-encoding; gzip, identity or none.
        most_bytes: Longest result.

    Raises:
        TooLarge: It is longer than that.
        Unreadable: It is not so encoded, or the encoding is another one.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip":
            return _gunzipped(body, most_bytes)
        case _:
            raise Unreadable("content-encoding is neither gzip nor identity")


def parsed(body: bytes, message: type[M]) -> M:
    """Return a body as a message.

    Raises:
        Unreadable: It is not one; the error names the field, and nothing that was sent.
    """
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise Unreadable(f"{place}: {first['msg']}") from None


def _gunzipped(body: bytes, most_bytes: int) -> bytes:
    inflating = zlib.decompressobj(_GZIP_WBITS)
    try:
        whole = inflating.decompress(body, most_bytes + 1)
    except zlib.error:
        raise Unreadable("the body is not gzip") from None
    if len(whole) > most_bytes:
        raise TooLarge(f"the body has more than {most_bytes} bytes when inflated; send less at once")
    if not inflating.eof or inflating.unused_data:
        raise Unreadable("the body is not one whole gzip member")
    return whole
