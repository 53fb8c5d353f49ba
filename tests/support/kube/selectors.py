"""Label and field selectors, as LIST and WATCH take them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from support.kube.errors import bad_request

Labels = Mapping[str, str]
Matches = Callable[[Labels], bool]

_SET_TERM = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^)]*)\)$")
_EQUALITY_TERM = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=!\s]*)$")
_EXISTENCE_TERM = re.compile(r"^(?P<no>!?)\s*(?P<key>[^=!\s(),]+)$")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


def label_selector(text: str) -> Matches:
    """Return whether labels match ``text``: ``a=b,c!=d,e in (f,g),h,!i``; all terms must hold.

    Raises:
        ApiError: 400, the text is no selector.
    """
    terms = [_label_term(term.strip()) for term in _COMMA_OUTSIDE_PARENTHESES.split(text) if term.strip()]
    return lambda labels: all(term(labels) for term in terms)


def field_selector(text: str) -> Matches:
    """Return whether ``metadata.name`` and ``metadata.namespace`` match ``text``.

    Raises:
        ApiError: 400, another field is asked for, or the text is no selector.
    """
    terms = [_field_term(term.strip()) for term in text.split(",") if term.strip()]
    return lambda fields: all(term(fields) for term in terms)


def _label_term(term: str) -> Matches:
    if found := _SET_TERM.match(term):
        key, wanted = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["operator"] == "in":
            return lambda labels: labels.get(key) in wanted
        return lambda labels: labels.get(key) not in wanted
    if found := _EQUALITY_TERM.match(term):
        return _equality(found["key"], found["operator"], found["value"])
    if found := _EXISTENCE_TERM.match(term):
        key, absent = found["key"], bool(found["no"])
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"unable to parse requirement: {term!r}")


def _field_term(term: str) -> Matches:
    found = _EQUALITY_TERM.match(term)
    if not found:
        raise bad_request(f"invalid selector: {term!r}; can't understand {term!r}")
    if found["key"] not in {"metadata.name", "metadata.namespace"}:
        raise bad_request(f"field label not supported: {found['key']}")
    return _equality(found["key"], found["operator"], found["value"])


def _equality(key: str, operator: str, value: str) -> Matches:
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value
