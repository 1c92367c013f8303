"""Initial weights from an integer generator: the same bits on every machine, at every width.

Each tensor has a Philox stream keyed by SHA-256 of the seed and its name. Four 16-bit integers are summed
(an Irwin-Hall sum, near enough to normal, at most 3.46 deviations wide) and multiplied once in fp32 by a
constant: integer sums and one IEEE multiplication leave nothing to a platform. A tensor is always made at
full width and then cut, so a slice is a prefix of tier 0 by construction.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from psyche_train.models.schema import Schema
from psyche_train.models.tensors import Constant, Normal, TensorSpec

_MEAN = 4 * 65_535 // 2
_DEVIATION = math.sqrt(4 * (65_536**2 - 1) / 12)
_SLAB_VALUES = 1 << 20
"""Values drawn at a time; bounds memory, changes nothing."""


def initial_weights(schema: Schema, seed: int, tier: int) -> dict[str, Tensor]:
    """Return tier `tier`'s first weights, ``name -> fp32 CPU tensor``, as `ModelFamily.initial` says."""
    return {
        tensor.name: tensor.take(_full(tensor, schema.family.initial(tensor), seed), tier)
        .clone()
        .contiguous()
        for tensor in schema.stored
    }


def _full(tensor: TensorSpec, initial: Normal | Constant, seed: int) -> Tensor:
    if isinstance(initial, Constant):
        return torch.full(tensor.shape, initial.value, dtype=torch.float32)
    key = hashlib.sha256(b"psyche-init-v1" + seed.to_bytes(8, "little") + tensor.name.encode()).digest()
    stream = np.random.Philox(key=int.from_bytes(key[:16], "little"))
    values = np.empty(math.prod(tensor.shape), dtype=np.float32)
    for start in range(0, len(values), _SLAB_VALUES):
        slab = values[start : start + _SLAB_VALUES]
        draws = stream.random_raw(len(slab))
        sums = draws.view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.int32) - np.int32(_MEAN)
        np.multiply(sums.astype(np.float32), np.float32(initial.deviation / _DEVIATION), out=slab)
    return torch.from_numpy(values.reshape(tensor.shape))
