"""A permutation of ``0..n`` that needs no memory: a Feistel network with cycle walking.

Four rounds over the two halves of the number's bits; a value that falls outside ``0..n`` is sent through
again until it is inside, which ends because the network is a permutation of its own range. Integers only.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 4
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


class Shuffle:
    """A seeded permutation of ``0..size``."""

    def __init__(self, size: int, seed: bytes) -> None:
        if not 1 <= size <= 1 << 40:
            raise ValueError(f"a permutation of {size} numbers, allowed 1..2**40")
        self.size = size
        self._bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._keys = [
            np.uint64(int.from_bytes(hashlib.sha256(seed + bytes([i])).digest()[:8], "little"))
            for i in range(_ROUNDS)
        ]

    def __call__(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Permute numbers in ``0..size``."""
        mixed = self._once(numbers.astype(np.uint64))
        while bool((outside := mixed >= self.size).any()):
            mixed[outside] = self._once(mixed[outside])
        return mixed.astype(np.int64)

    def _once(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        bits, mask = np.uint64(self._bits), np.uint64((1 << self._bits) - 1)
        left, right = values >> bits, values & mask
        for key in self._keys:
            hashed = (right + key) * _MULTIPLIER
            hashed = (hashed ^ (hashed >> _SHIFT)) * _MULTIPLIER
            left, right = right, left ^ ((hashed >> np.uint64(40)) & mask)
        return (left << bits) | right
