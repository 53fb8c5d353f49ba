"""Validation errors in the words of a manifest: the field as users write it, and what to do."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fairlead_operator.api.v1alpha1.fields import DURATION_PATTERN

Field = tuple[str | int, ...]
"""Path of a field, such as ``("spec", "variants", 1, "model")``."""

_HINTS = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
}
_PATTERNS = {
    "digest": "must be sha256: and 64 hexadecimal digits, as `sha256sum FILE` prints them",
    "name": "must be lower-case letters, digits and inner dashes",
    "namespace": "must be lower-case letters, digits and inner dashes",
    "id": "must be lower-case letters, digits and inner dashes",
    "header": "must be a lower-case header name",
    "release": "must be one exact release such as 0.1.0",
    "minimumEffect": 'must be 5% of control, 0.1pp of a proportion, or "0.02" in the metric\'s own unit',
    "margin": 'must be 5% of control, 0.1pp of a proportion, or "0.02" in the metric\'s own unit',
    "feature": "must be view:name, as the model's contract lists it",
    "url": "must be http:// or https://, a host, and nothing but a path behind it",
    "metric": "must be lower-case letters, digits and inner underscores",
}
_SIZES = frozenset({"minimumEffect", "margin"})


def first_complaint(error: ValidationError) -> tuple[Field, str]:
    """Return the field at fault, and what is wrong with it and how to mend it."""
    first = error.errors(include_url=False)[0]
    path = (*first["loc"], *first.get("ctx", {}).get("path", ()))
    return path, _message(first, path)


def spelled(path: Field) -> str:
    """Return a path as users write it, such as ``spec.variants[1].model``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _message(error: ErrorDetails, path: Field) -> str:
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "string_pattern_mismatch":
        if error.get("ctx", {}).get("pattern") == DURATION_PATTERN:
            return "must be a duration such as 20ms, 1s or 24h"
        names = [part for part in path if isinstance(part, str)]
        return _PATTERNS.get(names[-1] if names else "", message)
    if error["type"] == "string_type" and path and path[-1] in _SIZES:
        return _PATTERNS[str(path[-1])]
    return _HINTS.get(error["type"], message)
