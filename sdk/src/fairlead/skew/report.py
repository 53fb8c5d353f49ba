"""What a comparison found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fairlead.skew.cause import Cause


@dataclass(frozen=True, slots=True)
class Example:
    """One value that differs; without its keys, which may be somebody's."""

    served_at: str
    served: Any
    joined: Any
    cause: Cause


@dataclass(frozen=True, slots=True)
class FeatureSkew:
    """One feature."""

    feature: str
    """``view__name``."""
    compared: int
    causes: Mapping[Cause, int]
    """How many values differ, by why."""
    example: Example | None
    """The first that differs; None if none does."""

    @property
    def differ(self) -> int:
        """How many values differ."""
        return sum(self.causes.values())

    @property
    def share(self) -> float:
        """Share of the compared values that differ, 0 to 1."""
        return self.differ / self.compared if self.compared else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSkew:
    """One model, as it was served by one contract."""

    model: str
    version: str
    variants: Sequence[str]
    feature_service: str
    first: str
    """When the first row was served, ISO 8601."""
    last: str
    rows: int
    """Rows that were compared."""
    logged: int
    """Rows that they were chosen from."""
    features: Sequence[FeatureSkew]
    notes: Sequence[str]
    """What a reader must know of the comparison."""

    @property
    def worst(self) -> float:
        """Largest share over features."""
        return max((feature.share for feature in self.features), default=0.0)

    def document(self) -> dict[str, Any]:
        """Return what programs read."""
        return {
            **{name: getattr(self, name) for name in ("model", "version", "feature_service", "first", "last")},
            **{name: getattr(self, name) for name in ("rows", "logged", "worst")},
            "variants": list(self.variants),
            "notes": list(self.notes),
            "features": [
                {
                    "feature": feature.feature,
                    "compared": feature.compared,
                    "differ": feature.differ,
                    "share": feature.share,
                    "causes": {cause.value: feature.causes.get(cause, 0) for cause in Cause},
                    "example": None if feature.example is None else asdict(feature.example),
                }
                for feature in self.features
            ],
        }
