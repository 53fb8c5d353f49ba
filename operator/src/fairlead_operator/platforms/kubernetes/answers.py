"""What an answer of the API means when it is not a success: pure, from status code and body to the error's class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fairlead_operator.platforms.kubernetes.errors import (
    AlreadyExists,
    Expired,
    Forbidden,
    Invalid,
    KindMissing,
    KubeError,
    NotFound,
    OwnedByOther,
    Stale,
    Unauthorized,
    Unavailable,
)

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TIMEOUT, CONFLICT, GONE = 400, 401, 403, 404, 408, 409, 410
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500

_REFUSED_APPLIES = ("failed to create typed patch object", "failed to convert new object")
_MESSAGE_LIMIT = 1000
"""Characters of the API's message that are kept: a webhook may answer with pages."""


def error_from(call: str, code: int, content: bytes, *, is_secret: bool = False) -> KubeError:
    """Return the error that an HTTP answer stands for.

    Args:
        call: What was asked, such as ``apply services a/b``; starts the message.
        code: HTTP status.
        content: Body: a ``Status``, or whatever something in between says.
        is_secret: The message may quote what was sent; it is left out.
    """
    status = _status(content)
    error = error_from_status(call, {**status, "code": code}) if status else _from_stranger(call, code, content)
    if is_secret:
        return type(error)(f"{call}: HTTP {code} {error.reason}", code=code, reason=error.reason)
    return error


def error_from_status(call: str, status: Mapping[str, Any]) -> KubeError:
    """Return the error that a ``Status`` object stands for, be it an answer or a line of a watch."""
    code, reason = int(status.get("code") or 0), str(status.get("reason") or "")
    told = str(status.get("message") or reason)
    message = f"{call}: {told[:_MESSAGE_LIMIT]}"
    return _class_of(code, reason, told, status.get("details") or {})(message, code=code, reason=reason)


def retry_after_s(header: str | None, content: bytes) -> float | None:
    """Return how long the API asks us to wait; None if it does not say."""
    seconds = header or (_status(content).get("details") or {}).get("retryAfterSeconds")
    try:
        return float(seconds) if seconds is not None else None
    except ValueError:  # an HTTP date; the API server never sends one
        return None


def _class_of(code: int, reason: str, message: str, details: Mapping[str, Any]) -> type[KubeError]:
    if code == NOT_FOUND:
        return NotFound if details.get("name") else KindMissing
    if code == CONFLICT:
        return _conflict(reason, details)
    if code == FORBIDDEN:
        return Invalid if "admission webhook" in message else Forbidden
    if _is_refused_apply(code, message):
        return Invalid
    plain = {UNAUTHORIZED: Unauthorized, GONE: Expired, TIMEOUT: Unavailable, TOO_MANY_REQUESTS: Unavailable}
    if code in plain:
        return plain[code]
    return Invalid if BAD_REQUEST <= code < SERVER_ERROR else Unavailable


def _conflict(reason: str, details: Mapping[str, Any]) -> type[KubeError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    causes = {cause.get("reason") for cause in details.get("causes") or ()}
    return OwnedByOther if "FieldManagerConflict" in causes else Stale


def _is_refused_apply(code: int, message: str) -> bool:
    # The API server answers 500 to a server-side apply of an unknown field or a wrong type; trying again won't help.
    return code == SERVER_ERROR and any(words in message for words in _REFUSED_APPLIES)


def _from_stranger(call: str, code: int, content: bytes) -> KubeError:
    """Return the error of an answer that is no ``Status``: an unknown path, or something between us and the API."""
    words = content[:200].decode(errors="replace").strip()
    return _class_of(code, "", words, {})(f"{call}: HTTP {code} {words}", code=code)


def _status(content: bytes) -> dict[str, Any]:
    try:
        status = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}
