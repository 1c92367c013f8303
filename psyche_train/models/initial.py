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

from psyche_train.models.schema import Schema, TensorSpec

_MEAN = 4 * 65_535 // 2
_DEVIATION = math.sqrt(4 * (65_536**2 - 1) / 12)
_RESIDUAL_OUTPUTS = (".o_proj.weight", ".down_proj.weight")


def initial_weights(schema: Schema, seed: int, tier: int) -> dict[str, Tensor]:
    """Return tier `tier`'s first weights, ``name -> fp32 CPU tensor``.

    Matrices have standard deviation `initializer_range`, those that write into the residual stream that
    divided by sqrt(2 x layers); norms are one, biases zero.
    """
    return {
        tensor.name: _full(tensor, schema, seed)[tensor.slice_at(tier)].clone().contiguous()
        for tensor in schema.tensors
    }


def _full(tensor: TensorSpec, schema: Schema, seed: int) -> Tensor:
    if len(tensor.shape) == 1:
        value = 0.0 if tensor.name.endswith(".bias") else 1.0
        return torch.full(tensor.shape, value, dtype=torch.float32)
    deviation = float(schema.config.initializer_range)
    if tensor.name.endswith(_RESIDUAL_OUTPUTS):
        deviation /= math.sqrt(2 * schema.config.num_hidden_layers)
    key = hashlib.sha256(b"psyche-init-v1" + seed.to_bytes(8, "little") + tensor.name.encode()).digest()
    stream = np.random.Philox(key=int.from_bytes(key[:16], "little"))
    draws = stream.random_raw(math.prod(tensor.shape))
    sums = draws.view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.int32) - np.int32(_MEAN)
    values = sums.astype(np.float32) * np.float32(deviation / _DEVIATION)
    return torch.from_numpy(values.reshape(tensor.shape))
