"""What all tables of a specification share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""Lower-case hex of a SHA-256, or empty where `TrainSpec.resolve` fills it in."""


class Table(BaseModel):
    """A table of the specification: immutable, no unknown keys, no NaN or infinity, no coercion of text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class OneOf(Table):
    """A table with exactly one of its optional sub-tables."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        kinds = self._kinds()
        found = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(found) != 1:
            raise ValueError(f"choose exactly one of {', '.join(kinds)}; found {', '.join(found) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Name of the sub-table that is there."""
        return next(kind for kind in self._kinds() if getattr(self, kind) is not None)

    @classmethod
    def _kinds(cls) -> list[str]:
        return [name for name, field in cls.model_fields.items() if field.default is None]
