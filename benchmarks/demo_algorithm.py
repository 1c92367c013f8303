"""DeMo's encoder as its authors describe and publish it, to compare ours with on the same tensors.

Written for this comparison from the algorithm (https://arxiv.org/abs/2411.19870 and the `demo.py` that goes
with it), step by step in the order in which it is published: per parameter, decay the momentum and add the
gradient; view it as chunks whose edges are the largest divisors up to the chunk size; two-dimensional DCT by
one `einsum` over the chunks; `torch.topk` of the magnitudes; gather the values; for what was transmitted,
scatter (mean) into zeros, inverse DCT by `einsum`, subtract from the momentum. What it leaves out is what
ours leaves out too: the exchange, the step. It sends an int64 index and an fp32 value per coefficient and so
has nothing to pack.
"""

# Shape letters as in its einsums: y / x = chunks down / across, h / w = rows / columns of a chunk.

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def smaller_split(size: int, chunk: int) -> int:
    """The largest divisor of `size` that is not above `chunk`."""
    return next(divisor for divisor in range(min(size, chunk), 0, -1) if size % divisor == 0)


def dct_basis(size: int, device: torch.device) -> Tensor:
    """``[position, frequency]`` of the orthonormal DCT-II; its transpose is the inverse."""
    position, frequency = torch.arange(size)[:, None].double(), torch.arange(size)[None].double()
    basis = torch.cos(math.pi * (2 * position + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    basis[:, 0] = math.sqrt(1 / size)
    return basis.float().to(device)


class DemoEncoder:
    """Momenta of all parameters and the published compression of them."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], *, topk: int, chunk: int, decay: float) -> None:
        self.topk, self.decay = topk, decay
        self.delta = {name: torch.zeros(shape) for name, shape in shapes.items()}
        self.split = {size: smaller_split(size, chunk) for shape in shapes.values() for size in shape}
        self.forward = {edge: dct_basis(edge, torch.device("cpu")) for edge in set(self.split.values())}
        self.backward = {edge: basis.T.contiguous() for edge, basis in self.forward.items()}

    @torch.no_grad()
    def encode(self, gradients: Mapping[str, Tensor], lr: float) -> dict[str, tuple[Tensor, Tensor]]:
        """One step of every parameter: ``name -> (int64 indices, fp32 values)``, ``[.., k]`` per chunk."""
        sent = {}
        for name, delta in self.delta.items():
            delta.mul_(self.decay)
            delta.add_(gradients[name], alpha=lr)
            index, value, shape = self._compress(self._transform(delta))
            delta.sub_(self._inverse(self._decompress(index, value, shape)))
            sent[name] = index, value
        return sent

    def _transform(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            edge = self.split[x.shape[0]]
            return torch.einsum("...ij, jb -> ...ib", x.view(-1, edge), self.forward[edge])
        h, w = (self.split[size] for size in x.shape)
        blocks = x.view(x.shape[0] // h, h, x.shape[1] // w, w)
        return torch.einsum("...ijkl, jb, ld -> ...ikbd", blocks, self.forward[h], self.forward[w])

    def _inverse(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return torch.einsum("...ij, jb -> ...ib", x, self.backward[x.shape[1]]).reshape(-1)
        y, across, h, w = x.shape
        blocks = torch.einsum("...ijkl, kb, ld -> ...ibjd", x, self.backward[h], self.backward[w])
        return blocks.reshape(y * h, across * w)

    def _compress(self, x: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        shape = x.shape
        x = x.flatten(2) if x.dim() > 2 else x
        topk = max(1, min(self.topk, x.shape[-1]))
        index = torch.topk(x.abs(), k=topk, dim=-1, largest=True, sorted=False).indices
        return index, torch.gather(x, dim=-1, index=index), shape

    def _decompress(self, index: Tensor, value: Tensor, shape: torch.Size) -> Tensor:
        x = torch.zeros(shape)
        flat = x.flatten(2) if x.dim() > 2 else x
        flat.scatter_reduce_(dim=-1, index=index, src=value, reduce="mean", include_self=False)
        return x
