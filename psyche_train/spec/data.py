"""`[model.LLM.data_location]`: where a run's tokens come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from psyche_train.spec.tables import OneOf, Sha256Hex, Table


class StdlibData(Table):
    """Bytes of the Python standard library's source on this machine, one token a byte."""

    max_bytes: int = Field(default=2_000_000, ge=10_000, le=100_000_000)
    sha256: Sha256Hex = ""
    """Of the text; `resolve` fills it in from the creator's machine."""
    validation_fraction: float = Field(default=0.05, gt=0, le=0.5)
    python: str = Field(default="", max_length=32)
    """Version whose library was hashed, for the error message of a machine that has another."""


class LocalData(Table):
    """One file of tokens: raw little-endian (`.bin`) or a one-dimensional integer array (`.npy`)."""

    path: str = Field(min_length=1, max_length=512)
    token_size_in_bytes: Literal["OneByte", "TwoBytes", "FourBytes"] = "TwoBytes"
    """Width of a token in a `.bin` file; an `.npy` file says its own."""
    sha256: Sha256Hex = ""
    validation_fraction: float = Field(default=0.05, gt=0, le=0.5)


class DummyData(Table):
    """Invented tokens with a pattern that can be learned, for tests."""

    num_tokens: int = Field(default=1_000_000, ge=1000, le=10_000_000)
    validation_fraction: float = Field(default=0.05, gt=0, le=0.5)


class DataLocation(OneOf):
    """Where the training tokens come from."""

    Stdlib: StdlibData | None = None
    Local: LocalData | None = None
    Dummy: DummyData | None = None

    @property
    def chosen(self) -> StdlibData | LocalData | DummyData:
        """The sub-table that is there."""
        chosen: StdlibData | LocalData | DummyData = getattr(self, self.kind)
        return chosen
