"""Digests of weights: what members attest and what the chain agrees on.

What members share are the weights and the strategy's folded state (`psyche_train.resolve.with_folded`), in
this order. These tensors are split by tier. Part ``T`` (the highest tier of the spec) is every tensor at the
smallest slice's shape. Part ``t < T`` is what tier t adds to t + 1: of every tensor that slices cut, the
neurons ``[n / 2**(t+1), n / 2**t)`` along the cut axis.

The digest of a part is SHA-256 over, for each of its tensors in schema order: length of the name (u16), the
name, number of dimensions (u8), each dimension (u64), then the fp32 values row by row; all little-endian.
``h_T = g_T`` and ``h_t = SHA-256(h_{t+1} | g_t)``; a member of tier t knows g_T ... g_t and so h_t.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from torch import Tensor

from psyche_train.models.schema import Schema
from psyche_train.models.tensors import TensorSpec


def part_digests(schema: Schema, weights: Mapping[str, Tensor], tier: int) -> list[bytes]:
    """Return ``[g_T, ..., g_tier]`` of weights at tier `tier`'s width.

    Every tensor is asked for once and let go before the next, so `weights` may read them from a file. Its parts
    are hashed by a thread each: hashing lets other threads run.
    """
    parts = range(schema.max_tier, tier - 1, -1)
    digests = {part: hashlib.sha256() for part in parts}

    def add(tensor: TensorSpec, values: Tensor, part: int) -> None:
        inner = part == schema.max_tier
        _update(digests[part], tensor.name, (tensor.take if inner else tensor.added)(values, part, tier))

    with ThreadPoolExecutor(len(parts)) as pool:
        for tensor in schema.stored:
            found = parts if tensor.cut_axis is not None else parts[:1]
            list(pool.map(partial(add, tensor, weights[tensor.name]), found))
    return [digests[part].digest() for part in parts]


def weights_hash(digests: Sequence[bytes]) -> bytes:
    """Return h of the last tier in ``[g_T, ..., g_t]``."""
    combined = digests[0]
    for digest in digests[1:]:
        combined = hashlib.sha256(combined + digest).digest()
    return combined


def tensor_head(name: str, shape: Sequence[int]) -> bytes:
    """What is hashed before a tensor's values: its name and its shape."""
    encoded = name.encode()
    return struct.pack("<H", len(encoded)) + encoded + struct.pack(f"<B{len(shape)}Q", len(shape), *shape)


def tensor_values(values: Tensor) -> memoryview:
    """A tensor's fp32 values as they are hashed: row by row, little-endian."""
    array = values.detach().contiguous().cpu().numpy()
    return (array if sys.byteorder == "little" else array.byteswap()).reshape(-1).data


def _update(digest: hashlib._Hash, name: str, values: Tensor) -> None:
    digest.update(tensor_head(name, values.shape))
    digest.update(tensor_values(values))
