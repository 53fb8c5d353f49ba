"""Scalars of the API, and the record that every part of it is.

Weights are per cent, as users write them, with at most two decimals; ``basis_points`` turns them into the
buckets of ``fairlead.Layout``. Durations are texts such as ``20ms``; ``seconds`` turns them into numbers.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from fairlead import BUCKETS

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")

DAY_S = 86400.0


class Record(BaseModel):
    """One object of the API: frozen, camelCase in manifests, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
    )


def seconds(duration: str) -> float:
    """Return a duration such as ``1m30s`` in seconds."""
    return sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION.findall(duration))


def basis_points(per_cent: float) -> int:
    """Return per cent as basis points of ``BUCKETS``."""
    return round(per_cent * BUCKETS / 100)


def broken(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """Return the error for a rule across fields; ``path`` leads from the model to the field in the manifest."""
    return PydanticCustomError("rule", "{message}", {"message": message, "path": path})


def at_most(limit_s: float) -> AfterValidator:
    """Return a validator for durations over 0 and up to ``limit_s`` seconds."""

    def check(duration: str) -> str:
        if not 0 < seconds(duration) <= limit_s:
            raise PydanticCustomError("duration", "{message}", {"message": f"must be over 0 and at most {limit_s:g}s"})
        return duration

    return AfterValidator(check)


def _two_decimals(per_cent: float) -> float:
    if abs(per_cent * 100 - round(per_cent * 100)) > 1e-6:  # noqa: PLR2004 -- far below a basis point, above float noise
        raise PydanticCustomError("weight", "has more than two decimals; the finest step is 0.01 per cent")
    return per_cent


def _tidy(per_cent: float) -> float | int:
    return int(per_cent) if per_cent == int(per_cent) else per_cent


Duration = Annotated[str, StringConstraints(pattern=r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", max_length=32)]
Percent = Annotated[
    float,
    Field(ge=0, le=100),
    AfterValidator(_two_decimals),
    PlainSerializer(_tidy, return_type=float | int),
]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=64)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", max_length=20)]


class Name(Record):
    """A reference by name to an object in the same namespace."""

    name: ObjectName = Field(description="Name of the object, in the ModelDeployment's namespace.")
