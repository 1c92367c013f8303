"""One member's model slice: trains batches, checks and folds updates, saves and restores."""

from __future__ import annotations

import logging
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from psyche_train.assign import num_samples
from psyche_train.checkpoints.parts import PartWeights
from psyche_train.checkpoints.position import Position
from psyche_train.checkpoints.store import STATE, CheckpointInfo, CheckpointStore
from psyche_train.checkpoints.tensors import read_all
from psyche_train.data.dataset import Dataset
from psyche_train.devices import rank_devices
from psyche_train.fold.digest import weights_hash
from psyche_train.held import HeldWeights
from psyche_train.jobs import FoldError, NotFinite, TrainCancelled, TrainerError, TrainJob, TrainResult
from psyche_train.learner import Learner, LearnerOptions
from psyche_train.matformer.box import StartupInfo, says_tier
from psyche_train.matformer.helper import check_slices_do, held_tier
from psyche_train.matformer.holding import Holding, hold
from psyche_train.matformer.loading import CheckpointError, Strategy, inferred
from psyche_train.matformer.memory import measured
from psyche_train.matformer.stored import StoredWeights
from psyche_train.models.schema import TierError
from psyche_train.parallel import Team
from psyche_train.records import RoundRecord
from psyche_train.resolve import first_weights, schema_of, with_folded
from psyche_train.run_tokenizer import tokenizer_files
from psyche_train.spec import TrainSpec
from psyche_train.strategies.choose import strategy_of
from psyche_train.strategies.header import ExpectedUpdate, UpdateError
from psyche_train.strategies.update import UpdateFormat

__all__ = [
    "CheckpointError",
    "ExpectedUpdate",
    "FoldError",
    "NotFinite",
    "Position",
    "TierError",
    "TrainCancelled",
    "TrainJob",
    "TrainResult",
    "Trainer",
    "TrainerError",
    "UpdateError",
]

logger = logging.getLogger(__name__)

VALIDATION_WINDOWS = 64


class Trainer:
    """One member's model slice: trains batches, folds records.

    Synchronous; the client runs it in a worker thread. Calls from several threads take turns; only `check`
    needs no turn. `load`, `restore` or `reset` comes before everything that needs weights.

    Args:
        tier: the member's slice.
        run: 32 bytes, the run's key; updates and checkpoints name it.
        state_dir: checkpoints go to ``state_dir/checkpoints``.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; "cuda:N,M" is a rank on each.
        threads: torch's threads; None leaves torch's own choice.
        strategy: how a slice is read from the run's first checkpoint.
        keep: checkpoints that are kept, besides the pinned one.
        options: how this member computes; changes nothing that other members compute.
        ranks: processes that train as this member, see `psyche_train.parallel`; None: one for each device.
        data: folder with the run's data, where they are elsewhere than the run says.

    Raises:
        TierError: the run or its model has no such tier.
        DataError, CheckpointError: the run's data or first checkpoint is missing here or is another.
    """

    def __init__(
        self,
        spec: TrainSpec,
        *,
        tier: int,
        run: bytes,
        state_dir: Path,
        device: str = "auto",
        threads: int | None = None,
        strategy: Strategy = "auto",
        keep: int = 3,
        options: LearnerOptions | None = None,
        ranks: int | None = None,
        data: Path | None = None,
    ) -> None:
        if not 0 <= tier <= spec.matformer.max_tier:
            raise TierError(f"tier {tier} is outside 0..{spec.matformer.max_tier}, the tiers of this run")
        if len(run) != 32:
            raise ValueError(f"run has {len(run)} bytes, not 32")
        if threads is not None:
            torch.set_num_threads(threads)
        self.spec, self.tier, self.run = spec, tier, run
        self.strategy: Strategy = strategy
        self.held_tier = held_tier(spec, tier)
        """The tier whose slice is held: 0 in helper mode, else the member's."""
        if strategy == "sliced":
            check_slices_do(spec, tier, "load strategy sliced reads a slice")
        devices = rank_devices(device, ranks)
        self.device = devices[0]
        self.options = options
        self.schema = schema_of(spec, self.held_tier)
        self._tokenizer = cache(partial(tokenizer_files, spec, self.schema.family.vocab_size, data))
        self.data = Dataset(spec, self.schema.family.vocab_size, blobs=state_dir / "blobs", folder=data)
        self._team = None
        if len(devices) > 1:
            self._team = Team(spec, self.schema, tier, devices, options=options, threads=threads)
        self.training = (
            self._team.strategy if self._team else strategy_of(spec, self.schema, tier, self.device)
        )
        """The run's training strategy; `strategy` is only how a slice is read."""
        self.shared = with_folded(self.schema, spec)
        """Everything that members share: the weights and what belongs to them in the fold."""
        self.schema_hash = self.schema.sha256(self.training.layout)
        self.format: UpdateFormat[Any] = UpdateFormat(
            strategy=self.training.code,
            schema=self.schema_hash,
            codecs=self.training.codecs,
            tokens_per_sample=spec.max_seq_len,
        )
        self.parameters = self.training.shares.num_trained(tier)
        """Parameters that the member trains: its slice, and a helper's sample."""
        self.num_parameters_full = self.schema.num_parameters(0)
        self.position = Position()
        self.store = CheckpointStore(state_dir / "checkpoints", keep=keep)
        self.source = StartupInfo.of(
            spec,
            self.schema,
            tier,
            strategy,
            shares=self.training.shares,
            device=self.device,
            asked_device=device,
        )
        self.held = HeldWeights(self.shared, self.held_tier, self.training, self._hold)
        """The weights and the folded state; only this object changes them."""
        self._turn = threading.RLock()

    def load(self, *, agreed: bool = False) -> None:
        """Take the newest local checkpoint of this run and tier that verifies, else the first weights.

        Args:
            agreed: members have agreed on later weights. If this machine lacks the first ones, the trainer
                then holds none, at genesis, and everything but `restore` is refused.
        """
        with self._turn:
            for path, position, info in self.store.newest():
                if (info.run, info.spec_sha256, info.tier) != (self.run, self.spec.sha256, self.held_tier):
                    logger.warning("checkpoint of another run or tier passed over path=%s", path)
                    continue
                try:
                    self.training.load_tensors(read_all(path / STATE))
                    with StoredWeights(inferred(path, self.schema), self.shared, self.held_tier) as shared:
                        self._take(shared, position)
                    if weights_hash(self.held.digests()) != info.weights_sha256:
                        raise CheckpointError(f"{path}: the weights do not have the hash of position.json")
                except ValueError as error:
                    self.held.refuse()
                    logger.warning("checkpoint passed over path=%s reason=%s", path, error)
                    continue
                self._describe(str(path), cut=self.held_tier > 0)
                return
            try:
                self.reset()
            except CheckpointError as error:
                if not agreed:
                    raise
                self.source = self.source.awaited(str(error))

    def reset(self) -> None:
        """Take the run's first weights and forget the error buffers; the position is genesis."""
        with self._turn:
            try:
                with first_weights(self.spec, self.schema, self.held_tier, self.strategy) as first:
                    self.training.clear()
                    self.training.start_folded()
                    shared = ChainMap(first.weights, self.training.folded)  # type: ignore[arg-type]  # only read
                    self._take(shared, Position())
            except TierError as error:
                check_slices_do(self.spec, self.tier, f"the run's first checkpoint is a slice ({error})")
                raise
            self._describe(first.name, cut=first.cut)

    def restore(self, path: Path, position: Position) -> None:
        """Take weights obtained elsewhere: a checkpoint directory or a `.safetensors` file, full or slice.

        Nothing is verified about the chain: compare `weights_hash` with it.

        Raises:
            CheckpointError: it is missing, damaged, another model, or another tier's slice.
        """
        with self._turn:
            source = inferred(path, self.schema)
            if source.tier > 0:
                check_slices_do(self.spec, self.tier, f"{path} is the slice of tier {source.tier}")
            with StoredWeights(source, self.shared, self.held_tier) as shared:
                for name in shared:  # all of it is readable, or nothing is changed
                    shared[name]
                self.training.leave()
                self._take(shared, position)
            self._describe(str(path), cut=source.tier > 0)

    def take(self, parts: PartWeights, position: Position) -> None:
        """Take weights that members handed over part by part; the parts are verified.

        Raises:
            CheckpointError: they are another tier's, or cannot be read any more; nothing was changed.
        """
        with self._turn:
            if parts.tier != self.held_tier:
                raise CheckpointError(
                    f"the parts are tier {parts.tier}'s, this member holds {self.held_tier}"
                )
            for name in parts:  # all of it is readable, or nothing is changed
                parts[name]
            self.training.leave()
            self._take(parts, position)
            self._describe("other members", cut=self.held_tier > 0)

    def train(self, job: TrainJob, cancelled: Callable[[], bool] = lambda: False) -> TrainResult:
        """Train one job and return the update to publish; shared weights do not change.

        Args:
            cancelled: asked between micro-batches.

        Raises:
            TrainCancelled, NotFinite: nothing was changed, the job can be trained again.
        """
        with self._turn:
            holding = self.held.loaded()
            if job.tier != self.tier:
                raise TrainerError(f"the job is for tier {job.tier}, this trainer holds tier {self.tier}")
            if num_samples(job.intervals) == 0:
                raise TrainerError(f"round {job.round} gives slot {job.slot} no samples")
            started = time.monotonic()
            batch = self.data.batch(job.intervals)
            loss, body = self.training.train(
                holding.ready(self.training.shares.trained(self.tier, job.epoch, job.round)),
                batch,
                epoch=job.epoch,
                round_number=job.round,
                lr=self.spec.learning_rate(job.step),
                cancelled=cancelled,
            )
            tokens = len(batch) * self.spec.max_seq_len
            blob = self.format.of_job(job, self.run, loss, body)
            return TrainResult(blob, loss, tokens, time.monotonic() - started)

    def check(self, blob: bytes, header: ExpectedUpdate) -> None:
        """Check an update as far as header, shape and codes go; a witness attests what passes.

        Raises:
            UpdateError: what is wrong with it; never anything else, whatever the bytes.
        """
        self.format.decode(blob, header)

    def fold(self, record: RoundRecord, blobs: Mapping[int, bytes], own_slot: int | None) -> None:
        """Fold one closed round into the weights and advance the position.

        A blob that does not decode contributes nothing. A round to which nothing contributed changes no
        weight, decay included.

        Args:
            blobs: slot -> blob of every accepted slot (the client has compared them with the commitments).
            own_slot: what this member trained for the round goes back into its error buffers unless the
                chain accepted this slot.

        Raises:
            FoldError: the record does not follow the position, or a blob is missing; nothing was changed.
            Anything else (memory, a device): `held` is `half_folded`, and the trainer refuses to go on.
        """
        with self._turn:
            holding = self.held.loaded()
            position = self.position.after(record, self.spec.sha256)
            missing = [entry.slot for entry in record.accepted if entry.slot not in blobs]
            if missing:
                raise FoldError(f"round {record.number}: the blobs of slots {missing} are missing")
            updates = self.format.accepted(record, blobs, self.run)
            with self.held.changing():
                if updates:
                    self.held.changed()
                    rate = self.spec.learning_rate(record.step)
                    self.training.fold(holding.weights, updates, step=record.step, lr=rate)
                accepted = own_slot is not None and any(entry.slot == own_slot for entry in record.accepted)
                self.training.settle(record.number, accepted=accepted)
                self.training.drop_before(record.number)
                self.position = position

    def digests(self) -> list[bytes]:
        """Return ``[g_T, ..., g_tier]`` of what is shared (see `psyche_train.fold.digest`)."""
        with self._turn:
            return self.held.digests()[: self.schema.max_tier - self.tier + 1]

    def weights_hash(self) -> bytes:
        """Return h of this member's tier; tier 0's is what the chain records."""
        return weights_hash(self.digests())

    def save(self) -> Path:
        """Write a checkpoint of the weights, position and error buffers; durable when this returns."""
        with self._turn:
            info = CheckpointInfo(
                self.run,
                self.spec.sha256,
                self.schema_hash,
                self.held_tier,
                weights_hash(self.held.digests()),
                self.schema.model_sha256(),
                self.schema.max_tier,
            )
            shared = self.held.tensors()
            return self.store.write(
                self.position,
                info,
                {tensor.name: shared.pop(tensor.name) for tensor in self.schema.stored},
                self.training.tensors(),
                self._save_configuration,
                folded=shared,
            )

    def close(self) -> None:
        """End the processes of the other ranks, if there are any."""
        if self._team is not None:
            self._team.close()

    def pin(self, path: Path | None) -> None:
        """Keep this checkpoint whatever its age: the one that the chain agreed on."""
        self.store.pin(path)

    def validation_loss(self) -> float:
        """Mean loss per token on the held-out windows, fp32, of the tier's slice."""
        with self._turn:
            return self.held.loaded().loss(self.data.validation(VALIDATION_WINDOWS))

    def _describe(self, checkpoint: str, *, cut: bool) -> None:
        memory = measured(self.held.loaded(), self.training, self.parameters)
        self.source = self.source.loaded(
            checkpoint=checkpoint, sliced=cut, inferred=not says_tier(Path(checkpoint)), memory=memory
        )

    @contextmanager
    def reading(self) -> Iterator[tuple[nn.Module | None, Mapping[str, Tensor]]]:
        """The model of the tier in evaluation mode, and all weights that are held; nothing changes meanwhile.

        The weights are at `held_tier`'s width, in schema order. A member in helper mode has no model of its
        tier's slice: None. Nothing may be changed. Both may be kept: later calls give the same objects, with
        the weights of then.
        """
        with self._turn:
            holding = self.held.loaded()
            model = holding.learner.model
            model.eval()
            try:
                yield model if self.held_tier == self.tier else None, holding.stored
            finally:
                model.train()

    def _take(self, shared: Mapping[str, Tensor], position: Position) -> None:
        self.held.take(shared)
        self.position = position

    def _hold(self, shared: Mapping[str, Tensor]) -> Holding:
        return hold(self.training.shares, self.tier, self.schema.family.ffn_width, shared, self._build)

    def _build(self, width: int, weights: Mapping[str, Tensor]) -> Learner:
        family = self.schema.family
        factor = (family.ffn_width / width) ** self.spec.matformer.ffn_rescale if width else 1.0
        model = family.build(width, weights, self.device, factor=factor)
        if self._team is not None:
            return self._team.learner(model, self.schema, self.device)
        return Learner(model, self.schema, self.device, self.options)

    def _save_configuration(self, folder: Path) -> None:
        family = self.schema.family
        family.save_tables(family.tables_of_tier(self.held_tier, self.spec.matformer.ffn_rescale), folder)
        for name, content in self._tokenizer().items():
            (folder / name).write_bytes(content)
