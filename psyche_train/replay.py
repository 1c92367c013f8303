"""The fold alone: weights, records and blobs in, weights out; no data, no model, nothing of a member's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psyche_train.checkpoints.position import Position
from psyche_train.checkpoints.store import read_position
from psyche_train.fold.digest import part_digests, weights_hash
from psyche_train.matformer.loading import CheckpointError, inferred
from psyche_train.matformer.stored import StoredWeights
from psyche_train.models.schema import Schema
from psyche_train.records import RoundRecord
from psyche_train.resolve import first_weights, schema_of, with_folded
from psyche_train.spec import TrainSpec
from psyche_train.strategies.choose import strategy_of
from psyche_train.strategies.update import UpdateFormat


class Replay:
    """The full model of a run, to which rounds are folded; `first` or `load` comes before everything else.

    Args:
        run: 32 bytes, the run's key; updates name it.
        device: what folds; the bits are the same everywhere.
    """

    def __init__(self, spec: TrainSpec, run: bytes, device: torch.device) -> None:
        self.spec, self.run, self.device = spec, run, device
        self.schema: Schema = schema_of(spec)
        self.shared = with_folded(self.schema, spec)
        self.training = strategy_of(spec, self.schema, 0, device)
        self.format: UpdateFormat[Any] = UpdateFormat(
            strategy=self.training.code,
            schema=self.schema.sha256(self.training.layout),
            codecs=self.training.codecs,
            tokens_per_sample=spec.max_seq_len,
        )
        self.position = Position()
        self.useless = 0
        """Accepted updates that did not decode and so contributed nothing, for everyone alike."""
        self._weights: dict[str, Tensor] = {}
        self._constants: dict[str, Tensor] = {}

    def first(self) -> str:
        """Take the run's first weights; returns where they are from.

        Raises:
            CheckpointError: they are not on this machine, or are others.
        """
        with first_weights(self.spec, self.schema, 0, "auto") as first:
            self._take(first.weights)
            self.training.start_folded()
            self.position = Position()
            return first.name

    def load(self, path: Path) -> None:
        """Take the weights and the position of a checkpoint directory of this run.

        Raises:
            CheckpointError: it is damaged, a slice, or of another run.
        """
        position, info = read_position(path)
        if (info.run, info.spec_sha256) != (self.run, self.spec.sha256):
            raise CheckpointError(f"{path} is a checkpoint of another run: give one of this run")
        if info.tier != 0:
            raise CheckpointError(f"{path} is the slice of tier {info.tier}: give a checkpoint of tier 0")
        with StoredWeights(inferred(path, self.schema), self.shared, 0) as stored:
            self._take(stored)
            self.training.take_folded(stored)
        self.position = position

    def fold(self, record: RoundRecord, blobs: Mapping[int, bytes]) -> None:
        """Fold one round, as `psyche_train.trainer.Trainer.fold` does.

        Raises:
            FoldError: the record does not follow.
        """
        position = self.position.after(record, self.spec.sha256)
        updates = self.format.accepted(record, blobs, self.run)
        self.useless += len(record.accepted) - len(updates)
        if updates:
            self.training.fold(
                self._weights, updates, step=record.step, lr=self.spec.learning_rate(record.step)
            )
        self.position = position

    def weights_hash(self) -> bytes:
        """Hash h_0 of all that members share, as the chain shows it."""
        held = {**self._weights, **self._constants, **self.training.folded}
        return weights_hash(part_digests(self.shared, held, 0))

    def _take(self, values: Mapping[str, Tensor]) -> None:
        def own(name: str) -> Tensor:
            return values[name].detach().to(self.device, torch.float32, copy=True)

        self._weights = {tensor.name: own(tensor.name) for tensor in self.schema.tensors}
        self._constants = {tensor.name: own(tensor.name) for tensor in self.schema.constants}
