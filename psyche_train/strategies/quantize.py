"""Chunks to their largest entries in two bits each: a sign and one of two magnitudes of the chunk."""

# Shape letters: C = chunks, A = entries per chunk, K = kept per chunk.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from psyche_train.strategies.dct import largest
from psyche_train.strategies.sparse_payload import LARGE, MAX_SCALE, MIN_SCALE, MINUS, SparseValues

SMALLEST = 2.0**-100
LARGEST = 2.0**40
ROUNDS = 6
"""Of Lloyd's algorithm; after four the error is within 1 % of its limit."""


def compress(values_CA: Tensor, k: int) -> SparseValues:
    """Return the `k` largest entries of each chunk; equal magnitudes keep the lower index.

    The two magnitudes of a chunk are the means of its smaller and larger entries, parted where that leaves
    the least squared error (Lloyd's algorithm), as bfloat16. Entries that are practically zero are not sent.

    Args:
        values_CA: fp32 ``[C, A]``, ``A >= k``.
    """
    index_CK = largest(values_CA, k)
    value_CK = values_CA.gather(1, index_CK)
    size_CK = value_CK.abs().clamp(max=LARGEST)
    sent_CK = size_CK >= SMALLEST
    scales_C2 = _scales(magnitudes(size_CK, sent_CK))
    small_C, large_C = _as_float(scales_C2).unbind(1)
    is_large_CK = size_CK * 2 > (small_C + large_C)[:, None]
    codes_CK = (value_CK < 0) * MINUS + is_large_CK * LARGE
    chunk_CK = torch.arange(len(values_CA), device=values_CA.device)[:, None] * values_CA.shape[1]
    return SparseValues(
        (chunk_CK + index_CK)[sent_CK].cpu().numpy(),
        codes_CK[sent_CK].to(torch.uint8).cpu().numpy(),
        scales_C2.cpu().numpy().astype(np.uint16),
    )


def magnitudes(size_CK: Tensor, sent_CK: Tensor) -> Tensor:
    """Two magnitudes per chunk, ``[C, 2]``, the smaller first; zeros where nothing is sent."""
    sent_CK = sent_CK.to(size_CK.dtype)
    number_C = sent_CK.sum(1)
    part_C = (size_CK * sent_CK).sum(1) / number_C.clamp(min=1)
    small_C = large_C = part_C
    for _ in range(ROUNDS):
        above_CK = (size_CK > part_C[:, None]) * sent_CK
        above_C = above_CK.sum(1)
        below_C = number_C - above_C
        total_C = (size_CK * above_CK).sum(1)
        rest_C = (size_CK * (sent_CK - above_CK)).sum(1)
        small_C = torch.where(below_C > 0, rest_C / below_C.clamp(min=1), total_C / above_C.clamp(min=1))
        large_C = torch.where(above_C > 0, total_C / above_C.clamp(min=1), small_C)
        part_C = (small_C + large_C) / 2
    return torch.stack((small_C, large_C), dim=1)


def _scales(magnitude_C2: Tensor) -> Tensor:
    """Patterns of bfloat16, int64; magnitudes of zero stay zero, others are kept in the allowed range."""
    pattern_C2 = magnitude_C2.to(torch.bfloat16).view(torch.int16).to(torch.int64)
    return torch.where(magnitude_C2 > 0, pattern_C2.clamp(MIN_SCALE, MAX_SCALE), 0)


def _as_float(pattern_C2: Tensor) -> Tensor:
    return pattern_C2.to(torch.int16).view(torch.bfloat16).to(torch.float32)
