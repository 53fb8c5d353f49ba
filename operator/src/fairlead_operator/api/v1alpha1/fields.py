"""Scalars of the API, and the record that every part of it is.

Weights are per cent, as users write them, with at most two decimals; ``basis_points`` turns them into the
buckets of ``fairlead.Layout``. Durations are texts such as ``20ms``; ``seconds`` turns them into numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    StringConstraints,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fairlead import BUCKETS

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")

DAY_S = 86400.0

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
"""What a duration looks like (RE2 and Python)."""

LIMIT_KEY = "x-fairlead-at-most-seconds"
"""Key of the JSON schema for the longest duration."""

DECIMALS_KEY = "x-fairlead-decimals"
"""Key of the JSON schema for the most decimals of a number."""


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


@dataclass(frozen=True, slots=True)
class AtMost:
    """Mark of durations over 0 and up to a limit; the CRD reads the limit from the JSON schema."""

    limit_s: float

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the limit after the form."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Carry the limit."""
        return {**handler(core), LIMIT_KEY: self.limit_s}

    def _checked(self, duration: str) -> str:
        if not 0 < seconds(duration) <= self.limit_s:
            message = f"must be over 0 and at most {self.limit_s:g}s"
            raise PydanticCustomError("duration", "{message}", {"message": message})
        return duration


def at_most(limit_s: float) -> AtMost:
    """Return the mark of durations over 0 and up to ``limit_s`` seconds."""
    return AtMost(limit_s)


def _two_decimals(per_cent: float) -> float:
    if abs(per_cent * 100 - round(per_cent * 100)) > 1e-6:  # noqa: PLR2004 -- far below a basis point, above float noise
        raise PydanticCustomError("weight", "has more than two decimals; the finest step is 0.01 per cent")
    return per_cent


def _tidy(per_cent: float) -> float | int:
    return int(per_cent) if per_cent == int(per_cent) else per_cent


Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, max_length=32)]
Percent = Annotated[
    float,
    Field(ge=0, le=100, json_schema_extra={DECIMALS_KEY: 2}),
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
