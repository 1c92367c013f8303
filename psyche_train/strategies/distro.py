"""DisTrO on one member: error feedback, DCT, the largest coefficients, one bit each.

After DeMo (https://arxiv.org/abs/2411.19870) and the original's DisTrO. Departures: the error buffer is kept
transformed (the DCT is linear and orthonormal, so decaying, adding and taking out commute with it): what is
sent is taken out by writing zeros, exactly, and no inverse transform is ever made; weights and error buffer
are fp32; an exact zero is not sent; what the chain did not accept goes back into the error buffer; weight
decay belongs to the fold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Signs
from psyche_train.spec import DistroOptimizer
from psyche_train.strategies.dct import Pool, inverse
from psyche_train.strategies.pending import Kept, Pending, read_buffers

BUFFER = "transformed"
"""Kind of the error buffers in a file."""


class DistroState:
    """A member's error buffers, and what is taken out of them until the chain has decided.

    Args:
        config: the run's `[optimizer.Distro]`.
        grids: of what the member holds, in schema order.
        device: where the buffers live.
    """

    def __init__(self, config: DistroOptimizer, grids: tuple[Grid, ...], device: torch.device) -> None:
        self.config = config
        self.grids = grids
        self.device = device
        self._pools = _pools(grids, device)
        found = {name: tensor for pool in self._pools for name, tensor in pool.tensors.items()}
        self.error = {grid.name: found[grid.name] for grid in grids}
        """``name -> fp32`` of the tensor's shape: the error's DCT, each chunk's in the chunk's place."""
        self.pending = Pending()

    def clear(self) -> None:
        """Forget everything."""
        for pool in self._pools:
            pool.flat.zero_()
        self.pending = Pending()

    def residual(self, trained: tuple[Grid, ...] | None = None) -> dict[str, Tensor]:
        """The error buffers transformed back, what was not sent yet: ``name -> fp32`` of what is trained."""
        return {grid.name: inverse(grid.take(self.error[grid.name]), grid) for grid in trained or self.grids}

    @torch.no_grad()
    def encode(
        self,
        round_number: int,
        gradients: Mapping[str, Tensor],
        lr: float,
        trained: tuple[Grid, ...] | None = None,
    ) -> tuple[Signs, ...]:
        """Add a gradient to the error buffers and take out what is sent.

        A round that is encoded again first gets back what was taken out for it.

        Args:
            gradients: ``name -> fp32`` of what was trained.
            lr: learning rate of the step.
            trained: grids of what was trained, where that is not all (helper mode); nothing happens to the
                rest of the buffers.

        Returns:
            One `Signs` per tensor in schema order, numbered in the grids of `trained`.
        """
        self.settle(round_number, accepted=False)
        trained = trained or self.grids
        whole = all(one.is_cut_like(other) for one, other in zip(trained, self.grids, strict=True))
        kept, signs = {}, {}
        for pool in self._pools if whole else self._pools_of(trained):
            pool.accumulate(gradients, decay=self.config.compression_decay, rate=lr)
            keys_CK, values_CK = pool.take_largest(min(self.config.compression_topk, pool.area))
            sent_CK = values_CK != 0
            keys, values = keys_CK[sent_CK], values_CK[sent_CK]
            bits = torch.where(values < 0, -1, 1).to(torch.int8)
            keys_N, bits_N = keys.numpy(), bits.numpy()
            ends = sent_CK.sum(dim=1).cumsum(0)[pool.last_chunk].tolist()
            for grid, begin, end in zip(pool.grids, [0, *ends], ends, strict=False):
                kept[grid.name] = Kept(keys[begin:end], values[begin:end])
                signs[grid.name] = Signs(keys_N[begin:end], bits_N[begin:end])
                if not whole:
                    grid.put(self.error[grid.name], pool.tensors[grid.name])
        if not whole:
            for held, grid in zip(self.grids, trained, strict=True):
                numbers, _ = held.adopt(signs[grid.name].keys, grid)
                kept[grid.name] = Kept(torch.from_numpy(numbers), kept[grid.name].values)
        if self.config.compression_take < 1:
            for grid in self.grids:
                sent = kept[grid.name]
                taken = sent.values * self.config.compression_take
                self._give(grid, Kept(sent.keys, sent.values - taken))
                kept[grid.name] = Kept(sent.keys, taken)
        self.pending[round_number] = kept
        return tuple(signs[grid.name] for grid in trained)

    def _pools_of(self, trained: tuple[Grid, ...]) -> list[Pool]:
        """Copies of the parts of the buffers that are trained."""
        pools = _pools(trained, self.device)
        for pool in pools:
            for grid in pool.grids:
                pool.tensors[grid.name].copy_(grid.take(self.error[grid.name]))
        return pools

    @torch.no_grad()
    def settle(self, round_number: int, *, accepted: bool) -> None:
        """Learn the chain's decision about a round: what was not accepted goes back into the buffers."""
        kept = self.pending.pop(round_number, None)
        if kept is None or accepted:
            return
        for grid in self.grids:
            self._give(grid, kept[grid.name])

    def _give(self, grid: Grid, part: Kept) -> None:
        """Add to an error buffer."""
        places = grid.places(part.keys.to(self.device))
        self.error[grid.name].view(-1)[places] += part.values.to(self.device)  # keys are unique

    @torch.no_grad()
    def expected(self, round_number: int) -> dict[str, Tensor]:
        """The steps that undecided rounds before this one would make if everyone had sent what this member did.

        Returns:
            ``name -> fp32``, in learning rates; empty if every earlier round is decided.
        """
        steps: dict[str, Tensor] = {}
        for number in sorted(number for number in self.pending if number < round_number):
            for grid in self.grids:
                part = self.pending[number][grid.name]
                votes = torch.zeros(grid.shape, device=self.device)
                votes.view(-1)[grid.places(part.keys.to(self.device))] = part.values.sign().to(self.device)
                step = inverse(votes, grid).sign()
                steps[grid.name] = steps[grid.name] + step if grid.name in steps else step
        return steps

    def drop_before(self, round_number: int) -> None:
        """Forget rounds below `round_number`, whose decision will not come any more."""
        self.pending.drop_before(round_number)

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat tensors, for a file; `load_tensors` reads it back."""
        buffers = {f"{BUFFER}/{name}": tensor.cpu().contiguous() for name, tensor in self.error.items()}
        return buffers | self.pending.tensors()

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """Take the state that `tensors` returned.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        error, pending = read_buffers(flat, BUFFER, self.grids), Pending.read(flat, self.grids)
        for name, tensor in error.items():
            self.error[name].copy_(tensor)
        self.pending = pending


def _pools(grids: tuple[Grid, ...], device: torch.device) -> list[Pool]:
    shapes: dict[tuple[int, int], list[Grid]] = {}
    for grid in grids:
        shapes.setdefault((grid.chunk_rows, grid.chunk_columns), []).append(grid)
    return [Pool(group, device) for group in shapes.values()]
