"""One member's round, part by part, with the real trainer: what it costs beyond forward and backward.

Every part is what a client does in a round: compute the gradient, clip it, encode, write the update, hash the
blobs, check the other members' updates as a witness, fold them. All peers' updates send their coefficients at
random places, which is the dearest case for the fold.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psyche_train.bench.models import distro_of, random_body
from psyche_train.bench.timing import Part, Timing, interleave
from psyche_train.blobs import blob_id
from psyche_train.learner import gradient_norm, num_counted
from psyche_train.records import Accepted, RoundRecord
from psyche_train.spec import TrainSpec
from psyche_train.strategies.distro_strategy import Distro
from psyche_train.strategies.header import ExpectedUpdate, UpdateHeader
from psyche_train.strategies.update import Update
from psyche_train.trainer import Trainer

RUN = hashlib.sha256(b"psyche bench").digest()
TRAINING = "forward and backward"
WEIGHTS_HASH = "hash of the weights"


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one member's round costs."""

    parameters: int
    peers: int
    tokens: int
    """Trained by the member in the round."""
    blob_bytes: int
    """Of one full member's update, header included."""
    parts: dict[str, Timing]

    @property
    def beyond_s(self) -> float:
        """Wall time of everything but forward and backward; the weights' hash is not of every round."""
        return sum(part.median_s for name, part in self.parts.items() if name not in (TRAINING, WEIGHTS_HASH))

    @property
    def share(self) -> float:
        """`beyond_s` as a share of the whole round's computing."""
        return self.beyond_s / (self.beyond_s + self.parts[TRAINING].median_s)

    @property
    def cpu_share(self) -> float:
        """The same in CPU time."""
        beyond_s = sum(
            part.cpu_s for name, part in self.parts.items() if name not in (TRAINING, WEIGHTS_HASH)
        )
        return beyond_s / (beyond_s + self.parts[TRAINING].cpu_s)


class MemberBench:
    """One trainer, and updates of `peers` members for every round that it folds.

    Args:
        samples: that the member trains in a round.
    """

    def __init__(
        self, spec: TrainSpec, folder: Path, *, tier: int = 0, peers: int, samples: int, device: str = "cpu"
    ) -> None:
        self.trainer = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device=device)
        self.trainer.reset()
        self.spec, self.peers, self.samples = spec, peers, samples
        optimizer = distro_of(spec)
        self.topk, self.clip_norm, self.lr = optimizer.compression_topk, optimizer.clip_grad_norm, 0.002
        self.grids = self.trainer.training.shares.held(0)
        self.bodies = [random_body(self.grids, self.topk, seed) for seed in range(peers)]
        self.batch = self.trainer.data.batch([range(samples)])
        self.gradients: dict[str, Tensor] = {}
        self.body: Any = None
        self.blobs: dict[int, bytes] = {}
        self._encoded = 0
        self.train()
        self.encode()
        self.receive()

    def train(self) -> None:
        """Forward and backward over the member's samples, in its micro-batches."""
        learner = self.trainer.held.loaded().learner
        learner.model.zero_grad(set_to_none=True)
        learner._accumulate(self.batch, num_counted(self.batch), lambda: False)
        self.gradients = {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad
            for name, weight in learner.weights.items()
        }

    def clip(self) -> None:
        """Norm of the gradient; scaling happens too, by nearly one, so that it can be repeated."""
        norm = gradient_norm(self.gradients.values())
        for gradient in self.gradients.values():
            gradient.mul_(1.0 if norm > 0 else 0.0)

    def encode(self) -> None:
        """Error feedback, transform, selection."""
        self._encoded += 1
        assert isinstance(self.trainer.training, Distro)
        state = self.trainer.training.state
        self.body = state.encode(self._encoded, self.gradients, self.lr)
        state.settle(self._encoded, accepted=True)

    def write(self) -> bytes:
        """The bytes of the member's own update."""
        return self.trainer.format.encode(Update(self._header(0, self.trainer.tier), self.body))

    def receive(self) -> None:
        """Not timed: the other members' updates of the next round."""
        self.blobs = {
            slot: self.trainer.format.encode(Update(self._header(slot), body))
            for slot, body in enumerate(self.bodies)
        }

    def hash_blobs(self) -> None:
        """Blob ids of all updates: the own one's commitment, and whether the others are what was committed."""
        for blob in self.blobs.values():
            blob_id(blob)

    def check(self) -> None:
        """Check every update as a witness does."""
        for slot, blob in self.blobs.items():
            header = self._header(slot)
            fields = ("run", "epoch", "round", "step", "slot", "tier", "intervals")
            self.trainer.check(blob, ExpectedUpdate(**{name: getattr(header, name) for name in fields}))

    def fold(self) -> None:
        """Decode all updates and change the weights."""
        self.trainer.fold(self._record(), self.blobs, None)

    def weights_hash(self) -> None:
        """Digest of all weights, as before a checkpoint."""
        self.trainer.held.changed()
        self.trainer.weights_hash()

    def parts(self) -> dict[str, Part]:
        """Everything to measure, in the order of a round."""
        return {
            TRAINING: Part(self.train),
            "norm and clip": Part(self.clip),
            "encode": Part(self.encode),
            "write": Part(self.write),
            "hash of the blobs": Part(self.hash_blobs, before=self.receive),
            "check as a witness": Part(self.check),
            "fold": Part(self.fold),
            WEIGHTS_HASH: Part(self.weights_hash),
        }

    def measure(self, *, rounds: int, warmup: int = 1) -> StepCost:
        """Measure all parts in turns."""
        parts = interleave(self.parts(), rounds=rounds, warmup=warmup, device=self.trainer.device)
        tokens = self.samples * self.spec.max_seq_len
        blob_bytes = max(map(len, self.blobs.values()))
        return StepCost(self.trainer.parameters, self.peers, tokens, blob_bytes, parts)

    def _header(self, slot: int, tier: int = 0) -> UpdateHeader:
        at = self.trainer.position
        return UpdateHeader(
            run=RUN,
            epoch=1,
            round=max(at.round, 1),
            step=at.step,
            slot=slot,
            tier=tier,
            schema=self.trainer.schema_hash,
            loss=1.0,
            tokens=self.samples * self.spec.max_seq_len,
            intervals=(range(slot * self.samples, (slot + 1) * self.samples),),
        )

    def _record(self) -> RoundRecord:
        at = self.trainer.position
        assigned = bytearray(32)
        for slot in self.blobs:
            assigned[slot // 8] |= 1 << (slot % 8)
        return RoundRecord(
            epoch=1,
            number=max(at.round, 1),
            step=at.step,
            trained=True,
            seed=bytes(32),
            data_index=0,
            samples=self.samples * self.peers,
            assigned=bytes(assigned),
            spec_hash=self.spec.sha256,
            accepted=tuple(
                Accepted(slot, 0, 1, hashlib.sha256(blob).digest()) for slot, blob in self.blobs.items()
            ),
        )
