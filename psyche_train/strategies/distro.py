"""DisTrO on one member: error feedback, DCT, the largest coefficients, one bit each.

After DeMo (https://arxiv.org/abs/2411.19870) and the original's DisTrO. Departures: weights and error buffer
are fp32; an exact zero is not sent; what the chain did not accept goes back into the error buffer; weight
decay belongs to the fold.
"""

# Shape letters: C = chunks, A = coefficients per chunk, K = kept per chunk, r / s = rows / columns.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psyche_train.fold.basis import real_basis
from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Signs
from psyche_train.spec import DistroOptimizer


@dataclass(frozen=True, slots=True)
class Kept:
    """What one round took out of one tensor's error buffer: the coefficients before they became signs."""

    keys: Tensor
    """int64, ``chunk * area + coefficient`` in the grid of what is held."""
    values: Tensor
    """fp32."""


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
        self.error: dict[str, Tensor] = {}
        """``name -> fp32``, of the tensor's shape."""
        self.pending: dict[int, dict[str, Kept]] = {}
        """Round number -> what was taken out for it."""
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.error = {
            grid.name: torch.zeros(grid.shape, dtype=torch.float32, device=self.device) for grid in self.grids
        }
        self.pending = {}

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
        parts = {grid.name: grid.take(self.error[grid.name]) for grid in trained}
        for name, part in parts.items():
            part.mul_(self.config.compression_decay).add_(gradients[name], alpha=lr)
        signs: dict[str, Signs] = {}
        kept: dict[str, Kept] = {}
        for group in _by_chunk_shape(trained):
            chunks_Crs = torch.cat([grid.split(parts[grid.name]) for grid in group])
            coefficients_CA = _forward(chunks_Crs).flatten(1)
            index_CK = largest(coefficients_CA, min(self.config.compression_topk, group[0].area))
            value_CK = coefficients_CA.gather(1, index_CK)
            given_CK = value_CK * self.config.compression_take
            taken_CA = torch.zeros_like(coefficients_CA).scatter_(1, index_CK, given_CK)
            taken_Crs = _backward(taken_CA.reshape(chunks_Crs.shape))
            start = 0
            for grid in group:
                rows = slice(start, start + grid.num_chunks)
                start += grid.num_chunks
                parts[grid.name].sub_(grid.join(taken_Crs[rows]))
                chunk = torch.arange(grid.num_chunks, device=self.device)[:, None]
                keys, values = (chunk * grid.area + index_CK[rows]).flatten(), value_CK[rows].flatten()
                sent = values != 0
                kept[grid.name] = Kept(keys[sent].cpu(), given_CK[rows].flatten()[sent].cpu())
                signs[grid.name] = Signs(
                    kept[grid.name].keys.numpy(), np.sign(values[sent].cpu().numpy()).astype(np.int8)
                )
        for whole, grid in zip(self.grids, trained, strict=True):
            if grid.is_cut_like(whole):
                continue  # `take` gave the buffer itself
            grid.put(self.error[grid.name], parts[grid.name])
            keys, _ = whole.adopt(kept[grid.name].keys.numpy(), grid)
            kept[grid.name] = Kept(torch.from_numpy(keys), kept[grid.name].values)
        self.pending[round_number] = kept
        return tuple(signs[grid.name] for grid in trained)

    @torch.no_grad()
    def settle(self, round_number: int, *, accepted: bool) -> None:
        """Learn the chain's decision about a round: what was not accepted goes back into the buffers."""
        kept = self.pending.pop(round_number, None)
        if kept is None or accepted:
            return
        for grid in self.grids:
            part = kept[grid.name]
            coefficients = torch.zeros(grid.num_chunks * grid.area, dtype=torch.float32)
            coefficients[part.keys] = part.values
            chunks_Crs = coefficients.reshape(grid.num_chunks, grid.chunk_rows, grid.chunk_columns)
            self.error[grid.name].add_(grid.join(_backward(chunks_Crs.to(self.device))))

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
                votes = torch.zeros(grid.num_chunks * grid.area)
                votes[part.keys] = part.values.sign()
                chunks_Crs = votes.reshape(grid.num_chunks, grid.chunk_rows, grid.chunk_columns)
                step = grid.join(_backward(chunks_Crs.to(self.device))).sign()
                steps[grid.name] = steps[grid.name] + step if grid.name in steps else step
        return steps

    def drop_before(self, round_number: int) -> None:
        """Forget rounds below `round_number`, whose decision will not come any more."""
        for number in [number for number in self.pending if number < round_number]:
            del self.pending[number]

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat tensors, for a file; `load_tensors` reads it back."""
        flat = {f"error/{name}": tensor.cpu().contiguous() for name, tensor in self.error.items()}
        for number, kept in self.pending.items():
            for name, part in kept.items():
                flat[f"pending/{number}/keys/{name}"] = part.keys
                flat[f"pending/{number}/values/{name}"] = part.values
        return flat

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """Take the state that `tensors` returned.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        error, pending = {}, {}
        for grid in self.grids:
            tensor = flat.get(f"error/{grid.name}")
            if tensor is None or tuple(tensor.shape) != grid.shape:
                raise ValueError(f"the saved error buffer of {grid.name} is missing or has another shape")
            error[grid.name] = tensor.to(self.device, torch.float32)
        for number in {int(key.split("/")[1]) for key in flat if key.startswith("pending/")}:
            kept = {}
            for grid in self.grids:
                keys = flat.get(f"pending/{number}/keys/{grid.name}")
                values = flat.get(f"pending/{number}/values/{grid.name}")
                if keys is None or values is None or keys.shape != values.shape:
                    raise ValueError(f"the saved update of round {number} lacks {grid.name}")
                if len(keys) and not 0 <= int(keys.min()) <= int(keys.max()) < grid.num_chunks * grid.area:
                    raise ValueError(f"the saved update of round {number} does not fit {grid.name}")
                kept[grid.name] = Kept(keys, values)
            pending[number] = kept
        self.error, self.pending = error, pending


def largest(coefficients_CA: Tensor, k: int) -> Tensor:
    """Indices of the `k` largest magnitudes of each row, ascending; equal magnitudes keep the lower index.

    Args:
        coefficients_CA: fp32 ``[C, A]``, ``A >= k``.

    Returns:
        int64 ``[C, k]``.
    """
    size_CA = coefficients_CA.abs()
    if k == size_CA.shape[1]:
        return torch.arange(k, device=size_CA.device).expand(size_CA.shape[0], k)
    top = size_CA.topk(k + 1, dim=1)
    index_CK = top.indices[:, :k].sort(dim=1).values
    tied = (top.values[:, k - 1] == top.values[:, k]).nonzero()[:, 0]
    if len(tied):  # topk breaks ties as it likes: do those rows again with a stable sort
        order = size_CA[tied].sort(dim=1, descending=True, stable=True).indices
        index_CK[tied] = order[:, :k].sort(dim=1).values
    return index_CK


def _by_chunk_shape(grids: tuple[Grid, ...]) -> list[list[Grid]]:
    groups: dict[tuple[int, int], list[Grid]] = {}
    for grid in grids:
        groups.setdefault((grid.chunk_rows, grid.chunk_columns), []).append(grid)
    return list(groups.values())


def _forward(chunks_Crs: Tensor) -> Tensor:
    """Orthonormal DCT-II of every chunk."""
    down, across = _bases(chunks_Crs)
    return down @ chunks_Crs @ across.T


def _backward(coefficients_Crs: Tensor) -> Tensor:
    """Inverse of `_forward`."""
    down, across = _bases(coefficients_Crs)
    return down.T @ coefficients_Crs @ across


def _bases(chunks_Crs: Tensor) -> tuple[Tensor, Tensor]:
    _, rows, columns = chunks_Crs.shape
    return real_basis(rows).to(chunks_Crs.device), real_basis(columns).to(chunks_Crs.device)
