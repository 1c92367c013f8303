"""The trainer, as the member's loop uses it, and the client's values in the trainer's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from psyche_chain.chain.state import Checkpoint, RoundView
from psyche_chain.errors import ConfigError
from psyche_train.checkpoints.part_index import Offered, Part, PartIndex
from psyche_train.checkpoints.parts import PartWeights, part_bytes, write_parts
from psyche_train.checkpoints.position import Position
from psyche_train.checkpoints.store import verify as verify_checkpoint
from psyche_train.devices import rank_devices
from psyche_train.learner import LearnerOptions
from psyche_train.matformer.helper import held_tier
from psyche_train.matformer.loading import check_not_sliced_twice, inferred
from psyche_train.matformer.memory import shortage
from psyche_train.matformer.stored import StoredWeights, full_weights_hash
from psyche_train.parallel import RankError
from psyche_train.records import RoundRecord
from psyche_train.resolve import schema_of, with_folded
from psyche_train.spec import TrainSpec
from psyche_train.strategies.header import ExpectedUpdate
from psyche_train.trainer import TrainCancelled, Trainer, TrainJob, TrainResult


class MemberTrainer:
    """`Trainer`, except that a cancelled training is an answer and no exception."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.parameters = trainer.parameters
        self.max_update_bytes = trainer.format.max_bytes
        self.data = trainer.data
        self.check = trainer.check
        self.digests = trainer.digests
        self.weights_hash = trainer.weights_hash
        self.save = trainer.save
        self.pin = trainer.pin
        self.reset = trainer.reset
        self.validation_loss = trainer.validation_loss

    @property
    def position(self) -> Position:
        """Where in the log the weights are."""
        return self.trainer.position

    def fold(self, record: RoundRecord, blobs: Mapping[int, bytes], own_slot: int | None) -> None:
        """Fold a round; after a failure in the middle of it the newest checkpoint is taken, at its position."""
        try:
            self.trainer.fold(record, blobs, own_slot)
        except Exception:
            if self.trainer.held.half_folded:
                self.trainer.load()
            raise

    def restore(self, source: Path | PartWeights, position: Position) -> None:
        """Take the weights of a checkpoint, or of the parts that members handed over."""
        if isinstance(source, PartWeights):
            self.trainer.take(source, position)
        else:
            self.trainer.restore(source, position)

    def train(self, job: TrainJob, cancelled: Callable[[], bool]) -> TrainResult | None:
        """Train a job; None if it was cancelled, and then nothing has changed."""
        try:
            return self.trainer.train(job, cancelled)
        except TrainCancelled:
            return None


def load_trainer(
    spec: TrainSpec,
    *,
    tier: int,
    run: bytes,
    state_dir: Path,
    device: str,
    threads: int | None,
    ranks: int | None = None,
    options: LearnerOptions | None = None,
    data: Path | None = None,
    agreed: bool = False,
) -> MemberTrainer:
    """Make the trainer and take the newest checkpoint on this disk, or the run's first weights.

    Args:
        agreed: the run has agreed on later weights, so the first ones may be missing here (see `Trainer.load`).

    Raises:
        ConfigError: the device, the data or the first checkpoint of the run is not on this machine, or the
            tier does not fit into its memory.
    """
    try:
        device_ = rank_devices(device, ranks)[0]
        schema = schema_of(spec, held_tier(spec, tier))
        if (lacking := shortage(spec, schema, tier, device_)) is not None:
            raise ConfigError(f"this machine has too little memory: {lacking}")
        trainer = Trainer(
            spec,
            tier=tier,
            run=run,
            state_dir=state_dir,
            device=device,
            threads=threads,
            ranks=ranks,
            options=options,
            data=data,
        )
        trainer.load(agreed=agreed)
    except (ValueError, OSError, RankError) as error:
        raise ConfigError(
            f"the run's model or data cannot be prepared on this machine: {error}",
            "get what is missing, then run the command again",
        ) from error
    return MemberTrainer(trainer)


class TrainerAdapter:
    """Builds the trainer's types; see `psyche_chain.client.ports.Adapter`."""

    def __init__(self, spec: TrainSpec, *, run: bytes, tier: int) -> None:
        self._schema = schema_of(spec, held_tier(spec, tier))
        self._shared = with_folded(self._schema, spec)
        self._run = run
        self._held_tier = held_tier(spec, tier)

    def job(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> TrainJob:
        """The own share of a round."""
        return TrainJob(
            epoch=round_.epoch,
            round=round_.number,
            step=round_.step,
            slot=slot,
            tier=tier,
            intervals=list(share),
        )

    def expected(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> ExpectedUpdate:
        """What the header of a slot's update must say."""
        return ExpectedUpdate(
            run=self._run,
            epoch=round_.epoch,
            round=round_.number,
            step=round_.step,
            slot=slot,
            tier=tier,
            intervals=list(share),
        )

    def position_of(self, checkpoint: Checkpoint) -> Position:
        """The position of weights that were agreed on."""
        return Position(
            history=checkpoint.history,
            step=checkpoint.step,
            round=checkpoint.round,
            epoch=checkpoint.epoch,
            data_index=checkpoint.data_index,
        )

    def offered(self, path: Path, folder: Path) -> list[Offered]:
        """Write the weights and folded state of a saved checkpoint as parts into a folder."""
        with StoredWeights(inferred(path, self._schema), self._shared, self._held_tier) as weights:
            return write_parts(weights, self._shared, self._held_tier, folder)

    def is_full(self, index: PartIndex) -> bool:
        """Whether the parts make up the full model."""
        return len(index.parts) == self._shared.max_tier + 1

    def needed(self, index: PartIndex) -> tuple[Part, ...]:
        """The parts that are held here; all of the index must be this model's.

        Raises:
            ValueError: they are not.
        """
        sizes = [part_bytes(self._shared, part) for part in range(self._shared.max_tier, -1, -1)]
        if [part.num_bytes for part in index.parts] != sizes:
            raise ValueError(
                f"its parts have {[p.num_bytes for p in index.parts]} bytes, this model's have {sizes}"
            )
        return index.parts[: self._shared.max_tier - self._held_tier + 1]

    def assembled(self, parts: Sequence[Part], path_of: Callable[[bytes], Path]) -> PartWeights:
        """The weights that parts hold, once all their bytes are verified."""
        return PartWeights(self._shared, self._held_tier, parts, path_of)

    def verify_own(self, path: Path, checkpoint: Checkpoint) -> None:
        """Check a checkpoint directory that this member saved at the history of an agreed checkpoint.

        Raises:
            ValueError: it is damaged, of another run or tier, or not the agreed weights.
        """
        _, info = verify_checkpoint(path)
        if (info.run, info.tier) != (self._run, self._held_tier):
            raise ValueError(f"{path} is of another run or tier")
        if self._held_tier == 0 and info.weights_sha256 != checkpoint.weights_hash:
            raise ValueError(f"{path} has weights hash {info.weights_sha256.hex()}, not the agreed one")

    def verify(self, path: Path, weights_hash_: bytes) -> None:
        """Check that a file or directory holds the model of that weights hash, or the own slice with its proof.

        Raises:
            ValueError: it is damaged, another tier's slice, or another model.
        """
        source = inferred(path, self._schema)
        check_not_sliced_twice(source, self._held_tier)
        found = full_weights_hash(source, self._shared)
        if found is None:
            raise ValueError(
                "it is a slice without a proof of what it was cut from: cut it with psyche-train slice"
            )
        if found != weights_hash_:
            raise ValueError(f"its weights hash is {found.hex()}, not {weights_hash_.hex()}")
