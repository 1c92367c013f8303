"""SparseLoCo: several local AdamW steps a round, then the largest entries of what they changed.

After https://arxiv.org/abs/2508.15706: a member starts from the shared weights, takes `local_steps` steps of
its own AdamW, adds the difference (start - end) to its error buffer, sends the largest entries of each chunk
with two bits each and takes what it sent out of the buffer; the fold moves the weights by the mean. Departures:
chunks are two-dimensional blocks, so that those of a slice are a prefix of the full model's; a chunk has two
magnitudes of its own; means are by holders of a chunk or by tokens; what the chain did not accept goes back
into the buffer; an outer momentum is possible and is folded state.

A client trains round h + 1 before round h is folded, so the shared weights lack what the member itself did in
round h. With `ahead` it takes that off them first, in its own copy, and goes on from there; once round h is
folded, the fold stands in its place. Other members never notice. (Streaming and eager DiLoCo do likewise.)
"""

# Shape letters: C = chunks, A = entries per chunk, K = kept per chunk.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.fold.mean import Mean, replace, rounded
from psyche_train.learner import Learner
from psyche_train.models.schema import Schema
from psyche_train.spec import SparseLoCoOptimizer, TrainSpec
from psyche_train.strategies.base import Strategy
from psyche_train.strategies.local_adamw import LocalAdamW
from psyche_train.strategies.pending import Kept, Pending, read_buffers
from psyche_train.strategies.quantize import compress
from psyche_train.strategies.sparse_payload import SparseCodec, SparseValues
from psyche_train.strategies.update import Update

Body = tuple[SparseValues, ...]
MOMENTUM = "momentum"


class SparseLoCo(Strategy[Body]):
    """Own state: error buffers, what was sent, the local AdamW. Folded state: the outer momentum, if any."""

    code = 2

    def __init__(
        self, config: SparseLoCoOptimizer, spec: TrainSpec, schema: Schema, tier: int, device: torch.device
    ) -> None:
        super().__init__(spec, schema, tier, device)
        self.config = config
        self.grids = self.shares.held(tier)
        self.error: dict[str, Tensor] = {}
        """``name -> fp32`` of what is held: what was not sent yet."""
        self.pending = Pending()
        self.ahead: dict[int, dict[str, Tensor]] = {}
        """Round number -> tensor name -> what the member's local steps took off, fp32; with `ahead` only."""
        self.inner = LocalAdamW.fresh(config, self.grids, device)
        self.clear()

    def codec_of(self, grids: tuple[Grid, ...]) -> SparseCodec:
        """See `Strategy.codec_of`."""
        return SparseCodec(grids, self.config.compression_topk)

    @property
    def layout(self) -> Mapping[str, Any]:
        """Kind, chunk and top-k, and how much helpers sample."""
        return {
            "kind": "SparseLoCo",
            "chunk": self.config.compression_chunk,
            "topk": self.config.compression_topk,
            **self.shares.layout,
        }

    def train(
        self,
        learner: Learner,
        windows: Tensor,
        *,
        epoch: int,
        round_number: int,
        lr: float,
        cancelled: Callable[[], bool],
    ) -> tuple[float, Body]:
        """See `Strategy.train`; `lr` is the local steps', all the same within a round."""
        trained = self.shares.trained(self.tier, epoch, round_number)
        inner = self.inner.copy(trained)
        shared = {name: weight.detach().clone() for name, weight in learner.weights.items()}
        start = self._start(shared, round_number, trained)
        total = 0.0
        try:
            learner.copy_weights(start)
            for part in parts(windows, self.config.local_steps):
                loss, gradients = learner.gradients(
                    part, cancelled=cancelled, clip_norm=self.config.clip_grad_norm
                )
                inner.step(learner.weights, gradients, lr)
                total += loss * len(part)
            moved = {name: start[name] - weight.detach() for name, weight in learner.weights.items()}
        finally:
            learner.copy_weights(shared)
        self.inner.put(trained, inner)
        body = self.encode(round_number, moved, trained)
        if self.config.ahead:
            self.ahead[round_number] = self._widened(moved, trained)
        return total / len(windows), body

    @torch.no_grad()
    def _start(
        self, shared: dict[str, Tensor], round_number: int, trained: Sequence[Grid]
    ) -> dict[str, Tensor]:
        """Where the local steps begin: the shared weights less what this member did in undecided rounds."""
        rounds = sorted(number for number in self.ahead if number < round_number)
        start = dict(shared)
        for number in rounds:
            for grid in trained:
                start[grid.name] = start[grid.name] - grid.take(self.ahead[number][grid.name])
        return start

    @torch.no_grad()
    def _widened(self, moved: dict[str, Tensor], trained: Sequence[Grid]) -> dict[str, Tensor]:
        """What was trained, in the shapes of what is held; zero where nothing was trained."""
        wide = {}
        for whole, grid in zip(self.grids, trained, strict=True):
            wide[grid.name] = moved[grid.name]
            if grid.shape != whole.shape:
                wide[grid.name] = torch.zeros(whole.shape, device=self.device)
                grid.put(wide[grid.name], moved[grid.name])
        return wide

    @torch.no_grad()
    def encode(
        self, round_number: int, moved: Mapping[str, Tensor], trained: Sequence[Grid] | None = None
    ) -> Body:
        """Add a pseudo-gradient to the error buffers and take out what is sent.

        Args:
            moved: ``name -> fp32``, weights before the local steps less those after.
            trained: grids of what was trained, where that is not all (helper mode); nothing happens to the
                rest of the buffers.
        """
        self.settle(round_number, accepted=False)
        body, kept = [], {}
        for whole, grid in zip(self.grids, trained or self.grids, strict=True):
            error = grid.take(self.error[grid.name])
            error.mul_(self.config.compression_decay).add_(moved[grid.name])
            sparse = compress(grid.split(error).flatten(1), min(self.config.compression_topk, grid.area))
            body.append(sparse)
            grid.put(self.error[grid.name], error)
            keys, _ = whole.adopt(sparse.keys, grid)
            sent = Kept(torch.from_numpy(keys), torch.from_numpy(sparse.values(grid.area)))
            kept[grid.name] = sent
            self._give(grid.name, sent, -1.0)
        self.pending[round_number] = kept
        return tuple(body)

    def fold(
        self, weights: Mapping[str, Tensor], updates: Sequence[Update[Body]], *, step: int, lr: float
    ) -> None:
        """Move the weights by the mean; where no update's width holds an entry, nothing changes.

        With momentum u: m = u m + mean, and the weights move by m, or by u m + mean with `nesterov`.
        """
        rate, keep = rounded(self.config.outer_lr), rounded(self.config.outer_momentum)
        covered = self.covered(updates)
        for i, grid in enumerate(self.grids):
            mean = Mean(grid, self.config.votes, self.fold_device)
            for sent, update in zip(covered, updates, strict=True):
                sparse = update.body[i]
                values = torch.from_numpy(sparse.values(grid.area))
                mean.add_sparse(sent[i], sparse.keys, values, update.header.tokens)
            change, reached = mean.result()
            if self.folded:
                momentum = self.folded[f"{MOMENTUM}/{grid.name}"]
                moved = momentum * keep
                moved.add_(change)
                replace(momentum, moved, reached)
                if self.config.nesterov:
                    moved.mul_(keep)
                    moved.add_(change)
                change = moved
            change.mul_(rate)
            weight = weights[grid.name]
            replace(weight, weight.detach().to(self.fold_device) - change, reached)

    @torch.no_grad()
    def settle(self, round_number: int, *, accepted: bool) -> None:
        """See `Strategy.settle`."""
        self.ahead.pop(round_number, None)
        kept = self.pending.pop(round_number, None)
        if kept is None or accepted:
            return
        for grid in self.grids:
            self._give(grid.name, kept[grid.name], 1.0)

    def drop_before(self, round_number: int) -> None:
        """See `Strategy.drop_before`."""
        self.pending.drop_before(round_number)
        for number in [number for number in self.ahead if number < round_number]:
            del self.ahead[number]

    def leave(self) -> None:
        """See `Strategy.leave`."""
        self.pending.clear()
        self.ahead.clear()

    def clear(self) -> None:
        """Forget error buffers, what was sent, and the local AdamW."""
        self.error = {grid.name: torch.zeros(grid.shape, device=self.device) for grid in self.grids}
        self.pending = Pending()
        self.ahead = {}
        self.inner = LocalAdamW.fresh(self.config, self.grids, self.device)

    def own_tensors(self) -> Iterator[Tensor]:
        """See `Strategy.own_tensors`."""
        yield from self.error.values()
        yield from self.inner.first.values()
        yield from self.inner.second.values()
        yield from self.pending.all()
        for moved in self.ahead.values():
            yield from moved.values()

    def tensors(self) -> dict[str, Tensor]:
        """Error buffers, what was sent, and the local AdamW."""
        flat = {f"error/{name}": tensor.cpu().contiguous() for name, tensor in self.error.items()}
        for number, moved in self.ahead.items():
            flat |= {f"ahead/{number}/{name}": tensor.cpu().contiguous() for name, tensor in moved.items()}
        return {**flat, **self.pending.tensors(), **self.inner.tensors()}

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """See `Strategy.load_tensors`."""
        error, pending = read_buffers(flat, "error", self.grids), Pending.read(flat, self.grids)
        ahead = {
            number: {
                name: moved.to(self.device, torch.float32)
                for name, moved in read_buffers(flat, f"ahead/{number}", self.grids).items()
            }
            for number in {int(key.split("/")[1]) for key in flat if key.startswith("ahead/")}
        }
        self.inner = LocalAdamW.read(self.config, flat, self.grids, self.device)
        self.ahead = ahead
        self.error = {name: buffer.to(self.device, torch.float32) for name, buffer in error.items()}
        self.pending = pending

    def _give(self, name: str, kept: Kept, sign: float) -> None:
        """Add what was sent to an error buffer (1.0), or take it out (-1.0)."""
        grid = next(grid for grid in self.grids if grid.name == name)
        values = torch.zeros(grid.num_chunks * grid.area, dtype=torch.float32)
        values[kept.keys] = kept.values * sign
        chunks_Crs = values.reshape(grid.num_chunks, grid.chunk_rows, grid.chunk_columns)
        self.error[name].add_(grid.join(chunks_Crs.to(self.device)))


def parts(windows: Tensor, number: int) -> list[Tensor]:
    """Cut a batch into `number` consecutive parts as equal as can be; fewer if it has fewer samples."""
    number = min(number, len(windows))
    cuts = [len(windows) * i // number for i in range(number + 1)]
    return [windows[start:stop] for start, stop in pairwise(cuts)]
