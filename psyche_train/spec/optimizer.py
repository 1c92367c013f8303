"""`[model.LLM.optimizer]`: how updates are made and folded."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from psyche_train.spec.tables import OneOf, Table

MAX_ENTROPY_TOPK = 64
"""Coefficients per chunk that entropy coding takes; `psyche_train.strategies.subsets` has tables up to it."""


class DistroOptimizer(Table):
    """DisTrO: DCT of the error buffer, the largest coefficients, one bit each."""

    clip_grad_norm: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    compression_decay: float = Field(default=0.95, ge=0, le=1)
    """Decay of the error buffer; 0.95 measured best in the first experiments, 0.999 is the original's."""
    compression_topk: int = Field(default=8, ge=1)
    """Coefficients kept per chunk."""
    compression_chunk: int = Field(default=64, ge=2, le=128)
    """Longest edge of a chunk, in parameters."""
    quantize_1bit: Literal[True] = True
    entropy: bool = False
    """Code the indices of an update as sets: 8 % fewer bytes at k = 4, 14 % at 8, for some more time."""
    lookahead: bool = False
    votes: Literal["senders", "holders"] = "holders"
    """Divide a coefficient's votes by the members that sent it, or by all whose slice holds its chunk."""

    @model_validator(mode="after")
    def _topk_fits(self) -> Self:
        area = self.compression_chunk**2
        if self.compression_topk > area:
            raise ValueError(
                f"compression_topk = {self.compression_topk}, allowed 1..{area} (compression_chunk squared)"
            )
        if self.entropy and self.compression_topk > MAX_ENTROPY_TOPK:
            raise ValueError(
                f"entropy = true with compression_topk = {self.compression_topk}: at most {MAX_ENTROPY_TOPK} "
                "coefficients per chunk are coded as a set; lower compression_topk or leave entropy out"
            )
        return self


class Optimizer(OneOf):
    """How updates are made and folded."""

    Distro: DistroOptimizer | None = None

    @property
    def chosen(self) -> DistroOptimizer:
        """The sub-table that is there."""
        assert self.Distro is not None
        return self.Distro
