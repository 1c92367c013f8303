"""`[model.LLM.optimizer]`: how updates are made and folded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from psyche_train.spec.tables import OneOf, Table

MAX_ENTROPY_TOPK = 64
"""Coefficients per chunk that entropy coding takes; `psyche_train.strategies.subsets` has tables up to it."""

_Beta = Annotated[float, Field(ge=0, le=0.999999)]
_Betas = Annotated[tuple[_Beta, _Beta], Field(strict=False)]
"""Strict mode takes no list for a tuple, and TOML and JSON have only lists."""


class _Chunks(Table):
    """What the strategies share that send the largest numbers of each chunk."""

    compression_topk: int = Field(ge=1)
    compression_chunk: int = Field(default=64, ge=2, le=128)
    """Longest edge of a chunk, in parameters."""

    @model_validator(mode="after")
    def _topk_fits(self) -> Self:
        area = self.compression_chunk**2
        if self.compression_topk > area:
            raise ValueError(
                f"compression_topk = {self.compression_topk}, allowed 1..{area} (compression_chunk squared)"
            )
        return self


class DistroOptimizer(_Chunks):
    """DisTrO: DCT of the error buffer, the largest coefficients, one bit each."""

    clip_grad_norm: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    compression_decay: float = Field(default=0.95, ge=0, le=1)
    """Decay of the error buffer; 0.95 measured best in the first experiments, 0.999 is the original's."""
    compression_topk: int = Field(default=8, ge=1)
    """Coefficients kept per chunk."""
    quantize_1bit: Literal[True] = True
    entropy: bool = False
    """Code the indices of an update as sets: 9 % fewer bytes at k = 4, 15 % at 8, about as fast."""
    lookahead: bool = False
    compression_take: float = Field(default=1.0, gt=0, le=1)
    """Share of what is sent that leaves the error buffer; the rest stays and acts like a momentum."""
    ahead: bool = False
    """Take gradients where the member's own undecided updates would lead, as rounds are trained before the
    last one is folded."""
    votes: Literal["senders", "holders", "tokens"] = "holders"
    """Divide a coefficient's votes by the members that sent it, or by all whose slice holds its chunk; or
    weigh each of those by its tokens."""

    folded: ClassVar[tuple[str, ...]] = ()
    """Kinds of folded state per weight, see `psyche_train.strategies.base`."""

    @model_validator(mode="after")
    def _entropy_fits(self) -> Self:
        if self.entropy and self.compression_topk > MAX_ENTROPY_TOPK:
            raise ValueError(
                f"entropy = true with compression_topk = {self.compression_topk}: at most {MAX_ENTROPY_TOPK} "
                "coefficients per chunk are coded as a set; lower compression_topk or leave entropy out"
            )
        return self


class SparseLoCoOptimizer(_Chunks):
    """SparseLoCo: local AdamW steps, the largest entries of what they changed, two bits each."""

    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Of each local step."""
    betas: _Betas = (0.9, 0.95)
    """Of the local AdamW."""
    eps: float = Field(default=1e-8, ge=1e-20, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Of the local steps; the fold has none of its own."""
    local_steps: int = Field(default=10, ge=1, le=10_000)
    """Local steps per round, each on an equal part of the member's samples; not more than it has samples."""
    compression_decay: float = Field(default=0.95, ge=0, le=1)
    """Decay of the error buffer."""
    compression_topk: int = Field(default=64, ge=1)
    """Entries kept per chunk."""
    ahead: bool = True
    """A member starts a round where its own local steps left it, not at shared weights that lack them still."""
    outer_lr: float = Field(default=1.0, gt=0, le=10)
    """Factor of the mean update; the schedule's learning rate is that of the local steps."""
    outer_momentum: float = Field(default=0.0, ge=0, lt=1)
    """Of the fold; above 0 the momentum is part of what members agree on, hash and transfer."""
    nesterov: bool = False
    votes: Literal["senders", "holders", "tokens"] = "holders"
    """Divide an entry's sum by the members that sent it, or by all whose slice holds its chunk; or weigh each
    of those by its tokens."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.outer_momentum == 0:
            raise ValueError("nesterov = true needs outer_momentum above 0")
        return self

    @property
    def folded(self) -> tuple[str, ...]:
        """Kinds of folded state per weight, see `psyche_train.strategies.base`."""
        return ("momentum",) if self.outer_momentum > 0 else ()


class AdamWOptimizer(Table):
    """Data-parallel AdamW: dense gradients are exchanged, and the fold is the optimizer. A baseline."""

    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Of each member's gradient, before it is sent."""
    betas: _Betas = (0.9, 0.95)
    eps: float = Field(default=1e-8, ge=1e-20, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    votes: Literal["holders", "tokens"] = "tokens"
    """Weigh the gradients of the members whose slice holds an entry equally, or by their tokens."""

    compression_chunk: ClassVar[int] = 64
    """Nothing is compressed: the edge of the blocks by which widths are mapped to one another."""

    folded: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    """Kinds of folded state per weight, see `psyche_train.strategies.base`."""


AnyOptimizer = DistroOptimizer | SparseLoCoOptimizer | AdamWOptimizer


class Optimizer(OneOf):
    """How updates are made and folded."""

    Distro: DistroOptimizer | None = None
    SparseLoCo: SparseLoCoOptimizer | None = None
    AdamW: AdamWOptimizer | None = None

    @property
    def chosen(self) -> AnyOptimizer:
        """The sub-table that is there."""
        chosen: AnyOptimizer = getattr(self, self.kind)
        return chosen
