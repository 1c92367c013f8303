"""The training specification of a run: the TOML's `[model.LLM]`, checked, canonical and hashed.

Names are the original's. A table that chooses one of several kinds holds exactly one sub-table named after
the kind (``[model.LLM.optimizer.Distro]``); in Python, ``spec.optimizer.chosen`` is that sub-table.

`TrainSpec.to_bytes` is canonical JSON: sorted keys, no spaces, every default written out, shortest floats.
Its SHA-256 is the spec hash on chain, so two members with one hash train by the same numbers on the same
bytes from the same initial weights.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from psyche_train.schedules import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    WarmupStableDecaySchedule,
)

MAX_SPEC_BYTES = 10_000
"""What the coordinator's spec account holds."""

Sha256Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""Lower-case hex of a SHA-256, or empty where `TrainSpec.resolve` fills it in."""


AnySchedule = ConstantSchedule | LinearSchedule | CosineSchedule | WarmupStableDecaySchedule


class SpecError(ValueError):
    """Bytes that are not a valid training specification."""


class Table(BaseModel):
    """A table of the specification: immutable, no unknown keys, no NaN or infinity, no coercion of text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class OneOf(Table):
    """A table with exactly one sub-table."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        kinds = list(type(self).model_fields)
        found = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(found) != 1:
            raise ValueError(f"choose exactly one of {', '.join(kinds)}; found {', '.join(found) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Name of the sub-table that is there."""
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)


class InitCheckpoint(Table):
    """Fresh weights from an integer generator: the same bits on every machine."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    hidden_size: int = Field(default=128, ge=8, le=65_536)
    intermediate_size: int = Field(default=512, ge=1, le=1_048_576)
    num_hidden_layers: int = Field(default=4, ge=1, le=512)
    num_attention_heads: int = Field(default=4, ge=1, le=1024)
    num_key_value_heads: int = Field(default=4, ge=1, le=1024)
    vocab_size: int = Field(default=256, ge=2, le=1_048_576)
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0, lt=1)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(default=0.02, gt=0, le=1)
    weights_sha256: Sha256Hex = ""
    """Weights hash h_0 of the initial weights; `resolve` fills it in."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size = {self.hidden_size} must divide by 2 x num_attention_heads = "
                f"{2 * self.num_attention_heads} (rotary embeddings pair the entries of a head)"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} must divide by "
                f"num_key_value_heads = {self.num_key_value_heads}"
            )
        return self


class HubCheckpoint(Table):
    """A Hugging Face repository in the transformers layout."""

    repo_id: str = Field(min_length=1, max_length=128)
    revision: str | None = Field(default=None, max_length=64)
    weights_sha256: Sha256Hex = ""


class LocalCheckpoint(Table):
    """A directory in the transformers layout that every member has."""

    path: str = Field(min_length=1, max_length=512)
    weights_sha256: Sha256Hex = ""


class Checkpoint(OneOf):
    """Where the run's first weights come from."""

    Init: InitCheckpoint | None = None
    Hub: HubCheckpoint | None = None
    Local: LocalCheckpoint | None = None

    @property
    def chosen(self) -> InitCheckpoint | HubCheckpoint | LocalCheckpoint:
        """The sub-table that is there."""
        chosen: InitCheckpoint | HubCheckpoint | LocalCheckpoint = getattr(self, self.kind)
        return chosen


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


class LrSchedule(OneOf):
    """The learning rate as a function of the step."""

    Constant: ConstantSchedule | None = None
    Linear: LinearSchedule | None = None
    Cosine: CosineSchedule | None = None
    WarmupStableDecay: WarmupStableDecaySchedule | None = None

    @property
    def chosen(self) -> AnySchedule:
        """The sub-table that is there."""
        chosen: AnySchedule = getattr(self, self.kind)
        return chosen


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
        return self


class Optimizer(OneOf):
    """How updates are made and folded."""

    Distro: DistroOptimizer | None = None

    @property
    def chosen(self) -> DistroOptimizer:
        """The sub-table that is there."""
        assert self.Distro is not None
        return self.Distro


class MatFormer(Table):
    """Nested model slices: tier t keeps the first 1/2**t of every feed-forward layer."""

    max_tier: int = Field(default=0, ge=0, le=2)
    """Smallest slice that may join; every tier's chunk grid is a prefix of the full one's."""
    ffn_rescale: float = Field(default=1.0, ge=0, le=2)
    """Tier t multiplies its feed-forward output by ``2 ** (t * ffn_rescale)``."""


class TrainSpec(Table):
    """One run's training specification."""

    architecture: Literal["HfLlama"] = "HfLlama"
    data_type: Literal["Pretraining"] = "Pretraining"
    max_seq_len: int = Field(default=128, ge=2, le=1_048_576)
    """Tokens of a sample."""
    cold_start_warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the schedule's learning rate is scaled up from near zero at the start of the run."""
    checkpoint: Checkpoint
    data_location: DataLocation
    lr_schedule: LrSchedule
    optimizer: Optimizer
    matformer: MatFormer = MatFormer()

    @model_validator(mode="after")
    def _slices_are_whole(self) -> Self:
        init, parts = self.checkpoint.Init, 2**self.matformer.max_tier
        if init is not None and init.intermediate_size % parts:
            raise ValueError(
                f"checkpoint.Init.intermediate_size = {init.intermediate_size} does not divide by {parts}, "
                f"which matformer.max_tier = {self.matformer.max_tier} needs"
            )
        return self

    def to_bytes(self) -> bytes:
        """Return canonical JSON.

        Raises:
            SpecError: it is longer than the spec account on chain holds.
        """
        tables = self.model_dump(mode="json", exclude_none=True)
        data = json.dumps(tables, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        if len(data) > MAX_SPEC_BYTES:
            raise SpecError(f"the specification has {len(data)} bytes, at most {MAX_SPEC_BYTES} fit on chain")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainSpec:
        """Read a specification; only the canonical form is accepted.

        Raises:
            SpecError: the bytes are not a specification of this version's schema, with what was found.
        """
        if len(data) > MAX_SPEC_BYTES:
            raise SpecError(f"the specification has {len(data)} bytes, at most {MAX_SPEC_BYTES} are allowed")
        try:
            tables: Any = json.loads(data)
            spec = cls.model_validate(tables)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise SpecError(
                f"the run's specification does not fit this client: {where}: {first['msg']}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise SpecError(f"the run's specification is not JSON: {error}") from error
        if spec.to_bytes() != data:
            raise SpecError("the run's specification is not in canonical form: create it with psyche-chain")
        return spec

    @property
    def sha256(self) -> bytes:
        """SHA-256 of `to_bytes`: the spec hash on chain."""
        return hashlib.sha256(self.to_bytes()).digest()

    def learning_rate(self, step: int) -> float:
        """Learning rate of a 0-based step, in float64 arithmetic that is the same on every machine."""
        rate = self.lr_schedule.chosen.at(step)
        if step < self.cold_start_warmup_steps:
            rate *= (step + 1) / self.cold_start_warmup_steps
        return rate

    def resolve(self) -> TrainSpec:
        """Return the specification with the hashes of its data and initial weights filled in.

        The creator of a run calls it; a hash that is there already is checked instead.

        Raises:
            DataError, CheckpointError: a source is missing here, or is not what a hash in the spec says.
        """
        from psyche_train.resolve import resolve  # it imports models and data, which import this module

        return resolve(self)
