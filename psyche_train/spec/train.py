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
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from psyche_train.data.split import DUMMY_HIGHEST, Split
from psyche_train.spec.checkpoint import Checkpoint
from psyche_train.spec.data import DataLocation, DummyData, StdlibData
from psyche_train.spec.matformer import MatFormer
from psyche_train.spec.optimizer import Optimizer
from psyche_train.spec.schedule import LrSchedule
from psyche_train.spec.tables import Table

MAX_SPEC_BYTES = 10_000
"""What the coordinator's spec account holds."""


class SpecError(ValueError):
    """Bytes that are not a valid training specification."""


class TrainSpec(Table):
    """One run's training specification."""

    architecture: Literal["HfLlama", "HfAuto", "NanoGPT"] = "HfLlama"
    data_type: Literal["Pretraining"] = "Pretraining"
    max_seq_len: int = Field(default=128, ge=2, le=1_048_576)
    """Tokens of a sample."""
    cold_start_warmup_steps: int = Field(default=0, ge=0, le=10_000_000_000)
    """Steps over which the schedule's learning rate is scaled up from near zero at the start of the run."""
    checkpoint: Checkpoint
    data_location: DataLocation
    lr_schedule: LrSchedule
    optimizer: Optimizer
    matformer: MatFormer = MatFormer()

    @model_validator(mode="after")
    def _slices_are_whole(self) -> Self:
        init, parts = self.checkpoint.Init, 2**self.matformer.max_tier
        if init is not None and init.config is None and init.intermediate_size % parts:
            raise ValueError(
                f"checkpoint.Init.intermediate_size = {init.intermediate_size} does not divide by {parts}, "
                f"which matformer.max_tier = {self.matformer.max_tier} needs"
            )
        return self

    @model_validator(mode="after")
    def _fresh_weights_are_described(self) -> Self:
        init = self.checkpoint.Init
        if init is not None and (init.config is None) != (self.architecture == "HfLlama"):
            keys = "its own keys (hidden_size, ...)" if init.config else "a table named config"
            raise ValueError(f"architecture {self.architecture} takes {keys} in checkpoint.Init")
        return self

    @model_validator(mode="after")
    def _decay_shrinks(self) -> Self:
        rate, decay = self.lr_schedule.chosen.base_lr, self.optimizer.chosen.weight_decay
        if rate * decay >= 1:
            raise ValueError(
                f"lr_schedule base_lr x optimizer weight_decay = {rate} x {decay} must be below 1: a step would "
                "turn every weight around instead of shrinking it"
            )
        return self

    @model_validator(mode="after")
    def _invented_data_suffice(self) -> Self:
        """Of the sources whose length is known from here alone; the others are measured by `resolve`."""
        for _, source in self.data_location.sources:
            name = type(source).__name__.removesuffix("Data")
            if isinstance(source, DummyData):
                num_tokens, highest = source.num_tokens, DUMMY_HIGHEST
            elif isinstance(source, StdlibData):
                num_tokens, highest = source.max_bytes, 0
            else:
                continue
            try:
                Split.of(num_tokens, self.max_seq_len + 1, source.validation_fraction)
            except ValueError as error:
                raise ValueError(f"data_location.{name}: {error}") from None
            init = self.checkpoint.Init
            if init is not None and init.config is None and highest >= init.vocab_size:
                raise ValueError(
                    f"data_location.{name}: a token is {highest}, checkpoint.Init.vocab_size is {init.vocab_size}: "
                    f"use at least {highest + 1}"
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
