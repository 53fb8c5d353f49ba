"""Whether a live object already says what we would apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

_KEYS: Final = {
    "env": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "protocol"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
}
"""By field, what tells the items of a list apart where Kubernetes merges it; all other lists are one value."""

_PLAIN: Final = "istio.io"
"""End of the API groups whose objects are stored as they are applied."""

_QUANTITIES: Final = frozenset({"limits", "requests", "sizeLimit"})

_SUFFIXES: Final = {
    **{letter: Decimal(1000) ** power for power, letter in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{letter: Decimal(1024) ** power for power, letter in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
    "m": Decimal("0.001"),
}


def covers(live: Any, wanted: Any) -> bool:
    """Return whether ``live`` has every field of ``wanted`` with the same value; more than that is no difference.

    Others may add fields, labels, and items of lists that Kubernetes merges by key. Lists that it does not merge are
    compared whole, and for Istio's kinds, to which no admission adds anything, so are the items of these: a fault that
    somebody adds to one of our routes is a difference. Quantities are compared by value, as admission may write them
    otherwise.

    Args:
        live: The object as the API gives it.
        wanted: What we would apply.
    """
    group = str(wanted.get("apiVersion", "")).partition("/")[0] if isinstance(wanted, Mapping) else ""
    if group.endswith(_PLAIN):
        return all(
            (_covers if name == "metadata" else _plainly)(live.get(name), value, name) for name, value in wanted.items()
        )
    return _covers(live, wanted, "")


def _plainly(live: Any, wanted: Any, field: str) -> bool:
    """Return whether ``live`` has every field of ``wanted``, where lists are single values."""
    del field
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(_plainly(live.get(name), value, "") for name, value in wanted.items())
    return _is_same(live, wanted, "")


def _covers(live: Any, wanted: Any, field: str) -> bool:
    if wanted is None or isinstance(wanted, str | int | float):  # as most are
        return _is_same(live, wanted, field)
    if isinstance(wanted, Mapping):
        inherited = field if field in _QUANTITIES else None
        # An object of no fields is as good as none: some writers drop it.
        return (live is None and not wanted) or (
            isinstance(live, Mapping)
            and all(_covers(live.get(name), value, inherited or name) for name, value in wanted.items())
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _covers_list([] if live is None else live, wanted, field)
    return _is_same(live, wanted, field)


def _covers_list(live: Any, wanted: Sequence[Any], field: str) -> bool:
    if not isinstance(live, Sequence) or isinstance(live, str):
        return False
    keys = _KEYS.get(field)
    if keys and _are_told_apart(wanted, keys) and _are_told_apart(live, keys):
        by_key = {_key(item, keys): item for item in live}
        return all(_covers(by_key.get(_key(item, keys)), item, "") for item in wanted)
    return len(live) == len(wanted) and all(_covers(one, other, "") for one, other in zip(live, wanted, strict=True))


def _are_told_apart(items: Sequence[Any], keys: tuple[str, ...]) -> bool:
    if not all(isinstance(item, Mapping) and all(key in item for key in keys) for item in items):
        return False
    return len({_key(item, keys) for item in items}) == len(items)


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(repr(item[key]) for key in keys)


def _is_same(live: Any, wanted: Any, field: str) -> bool:
    if isinstance(wanted, bool) or isinstance(live, bool):
        return live is wanted
    if field in _QUANTITIES:
        return live == wanted or (_quantity(live) is not None and _quantity(live) == _quantity(wanted))
    return bool(live == wanted)


def _quantity(text: Any) -> Decimal | None:
    number = str(text).rstrip("kKMGTPEim")
    suffix = str(text)[len(number) :]
    if suffix not in _SUFFIXES or not number.replace(".", "", 1).isdigit():
        return None
    return Decimal(number) * _SUFFIXES[suffix]
