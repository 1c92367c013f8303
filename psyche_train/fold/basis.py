"""The orthonormal DCT-II as integers: 20 fractional bits, from a table with a fixed hash.

The table holds every distinct entry once (`benchmarks/make_basis.py` wrote it); a basis matrix is put
together from it with index arithmetic, so no cosine is computed on a member's machine.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FRACTION_BITS = 20
MAX_EDGE = 128
TABLE_SHA256 = "85cc07d7e739de05682b8b3b7bb2c8662c2d2b28b1bc2edafff472ec3acf7034"


class BasisError(RuntimeError):
    """The table in the package is not the one that the fold is defined by."""


def _load() -> np.ndarray:
    path = Path(__file__).with_name("basis.npy")
    table: np.ndarray = np.load(path, allow_pickle=False)
    found = hashlib.sha256(table.astype("<i4", copy=False).tobytes()).hexdigest()
    if found != TABLE_SHA256:
        raise BasisError(
            f"{path} has SHA-256 {found}, not {TABLE_SHA256}: the installation is damaged, install it again"
        )
    return table


_TABLE = _load()


@cache
def integer_basis(edge: int) -> Tensor:
    """Return ``B[k, i] = round(2**20 * c_k * cos(pi * (2 i + 1) * k / (2 edge)))``, int64 ``[edge, edge]``.

    ``c_0 = sqrt(1/edge)``, else ``sqrt(2/edge)``: row k is the k-th cosine, column i the position.
    """
    if not 1 <= edge <= MAX_EDGE:
        raise ValueError(f"a chunk edge of {edge} is outside 1..{MAX_EDGE}")
    phase = np.outer(np.arange(edge), 2 * np.arange(edge) + 1) % (4 * edge)  # in units of pi / (2 edge)
    phase = np.minimum(phase, 4 * edge - phase)  # cos(-x) = cos(x): now 0..2 edge
    mirrored = phase > edge  # cos(pi - x) = -cos(x)
    row = _TABLE[edge].astype(np.int64)
    basis = np.where(
        mirrored, -row[np.where(mirrored, 2 * edge - phase, 0)], row[np.where(mirrored, 0, phase)]
    )
    basis[0, :] = row[edge + 1]
    return torch.from_numpy(basis)


@cache
def real_basis(edge: int) -> Tensor:
    """`integer_basis` over ``2**20`` in fp32, for the sender's transform, which need not be exact."""
    return integer_basis(edge).to(torch.float64).mul_(1.0 / (1 << FRACTION_BITS)).to(torch.float32)
