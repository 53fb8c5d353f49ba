"""What the server refuses, as the Status objects that kube-apiserver sends.

``ApiError`` is the only exception; the functions below it are the reasons, in the words of the real server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from support.kube.kinds import Kind


class ApiError(Exception):
    """A request was refused; ``status()`` is the answer's body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        """Say what the answer is: HTTP ``code``, machine-readable ``reason``, ``message`` and ``details``."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s

    def status(self) -> dict[str, Any]:
        """Return the ``v1.Status``."""
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        if self.reason:
            body["reason"] = self.reason
        details = self.details
        if self.retry_after_s is not None:
            details = {**(details or {}), "retryAfterSeconds": self.retry_after_s}
        return body | ({} if details is None else {"details": details}) | {"code": self.code}


@dataclass(frozen=True, slots=True)
class Cause:
    """One fault in an object: where it is, of which sort, and in words."""

    reason: str
    field: str
    message: str


def bad_request(message: str) -> ApiError:
    """Return 400: the request cannot be read."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """Return 401: the bearer token is not, or no longer, valid."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def not_found(kind: Kind, name: str) -> ApiError:
    """Return 404: there is no such object."""
    return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found', _of(kind, name))


def not_served() -> ApiError:
    """Return 404: the group is there, the resource is not."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> ApiError:
    """Return 405: the resource does not know this verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message)


def already_exists(kind: Kind, name: str, *, is_going: bool = False) -> ApiError:
    """Return 409: the name is taken, be it by an object that ``is_going``."""
    message = f'{"object is being deleted: " if is_going else ""}{kind.resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _of(kind, name))


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    """Return 409: the object is not the one that the writer had seen."""
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, _of(kind, name))


def modified(kind: Kind, name: str) -> ApiError:
    """Return 409: the resourceVersion is not the newest."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def expired(message: str) -> ApiError:
    """Return 410: what was asked for is no longer remembered."""
    return ApiError(410, "Expired", message)


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    """Return 415: this sort of body is not taken here."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> ApiError:
    """Return 422: the object breaks its schema or the rules of metadata."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    what = f"[{', '.join(texts)}]" if len(texts) > 1 else texts[0]
    subject = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = ({"name": name} if name else {}) | ({"group": kind.group} if kind.group else {}) | {"kind": kind.kind}
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return ApiError(422, "Invalid", f'{subject} "{name}" is invalid: {what}', details | {"causes": listed})


def forbidden(kind: Kind, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    """Return 403: an admission rule is against it."""
    details = _of(kind, name)
    if causes:
        details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return ApiError(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', details)


def _of(kind: Kind, name: str) -> dict[str, Any]:
    return {"name": name} | ({"group": kind.group} if kind.group else {}) | {"kind": kind.plural}
