"""Sets of k out of n numbers in nearly log2 C(n, k) bits each: enumerative coding, jointly over many sets.

The rank of ``i_1 < ... < i_k`` among all k-subsets of ``0 .. n-1`` is ``C(i_1, 1) + ... + C(i_k, k)`` (the
combinatorial number system; Cover 1973, "Enumerative source encoding"). Whole bits per rank would waste half
a bit per set, so a rank is cut in two: its low bits go out as they are, and the high part, a digit below
`radix` (at most 128), is joined with those of seven other sets to one number in base `radix`. What is left
of the waste is under a sixth of a bit per set.

    low bits of all ranks: whole 32-bit words, set by set, then the rest of the low bits, packed
    digits: one number per eight sets (the first set is the lowest digit), packed; one for the sets left over

A list of sets has exactly one encoding, and decoding is total: it compares every number with its limit.
All arithmetic is in integers; floats only propose an index, which integers then confirm.
"""

# Shape letters: C = sets (chunks), K = members of a set, L = 32-bit words of a rank.

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from psyche_train.strategies.bits import Int64s, bytes_of, pack, unpack
from psyche_train.strategies.header import UpdateError

MAX_K = 64
"""Largest sets: the tables of C(n, k) then take at most some 50 MB (n = 16384)."""
_WORD = 32
_MASK = (1 << _WORD) - 1
_DIGITS = 8
_DIGIT_BITS = 7


class SubsetCoder:
    """Codes lists of k-subsets of ``0 .. n-1``; get one from `subset_coder`.

    Args:
        n: numbers to choose from.
        k: members of every set, 0 to `n`; at most `MAX_K` unless it is `n`.
    """

    def __init__(self, n: int, k: int) -> None:
        if not 0 <= k <= n or (k > MAX_K and k != n):
            raise ValueError(f"sets of {k} out of {n} cannot be coded: at most {MAX_K}, or all")
        self.n, self.k = n, k
        self.count = math.comb(n, k)
        """How many sets there are."""
        self.low_bits = max(0, (self.count - 1).bit_length() - _DIGIT_BITS)
        self.radix = ((self.count - 1) >> self.low_bits) + 1
        self._words = max(1, -(-(self.count - 1).bit_length() // _WORD))
        self._tables = _binomials(n, k) if 0 < k < n else []
        self._floats = [_as_float(table_LA) for table_LA in self._tables]

    def num_bytes(self, num_sets: int) -> int:
        """Bytes that so many sets take."""
        whole, rest = divmod(self.low_bits, _WORD)
        groups, left = divmod(num_sets, _DIGITS)
        size = num_sets * whole * 4 + bytes_of(num_sets * rest) + bytes_of(groups * self._width(_DIGITS))
        return size + bytes_of(self._width(left))

    def encode(self, index_CK: Int64s) -> bytes:
        """Return the bytes of sets.

        Args:
            index_CK: int64 ``[C, k]``, each row ascending and in ``0 .. n-1``.
        """
        rank_LC = np.zeros((self._words, len(index_CK)), dtype=np.int64)
        for table_LA, index_C in zip(self._tables, index_CK.T, strict=False):
            rank_LC[: len(table_LA)] += table_LA[:, index_C]
        _carry(rank_LC)
        whole, rest = divmod(self.low_bits, _WORD)
        high_C = rank_LC[whole] >> rest
        if whole + 1 < self._words:
            high_C |= rank_LC[whole + 1] << (_WORD - rest)
        return b"".join(
            [
                rank_LC[:whole].T.astype("<u4").tobytes(),
                pack(rank_LC[whole] & ((1 << rest) - 1), rest),
                *self._join(high_C),
            ]
        )

    def decode(self, data: bytes, at: int, num_sets: int) -> tuple[Int64s, int]:
        """Read sets from byte `at`.

        Returns:
            int64 ``[num_sets, k]``, each row ascending, and the byte behind them.

        Raises:
            UpdateError: the bytes end too early, or a number is not below its limit.
        """
        if at + self.num_bytes(num_sets) > len(data):
            raise UpdateError("length", f"{len(data)} bytes do not hold {num_sets} sets of {self.k}")
        whole, rest = divmod(self.low_bits, _WORD)
        rank_LC = np.zeros((max(self._words, whole + 2), num_sets), dtype=np.int64)
        words = np.frombuffer(data, dtype="<u4", count=num_sets * whole, offset=at)
        rank_LC[:whole] = words.reshape(num_sets, whole).T
        low_C, at = unpack(data, at + num_sets * whole * 4, num_sets, rest)
        high_C, at = self._part(data, at, num_sets)
        joined_C = low_C | high_C << rest
        rank_LC[whole] = joined_C & _MASK
        rank_LC[whole + 1] = joined_C >> _WORD
        rank_LC = rank_LC[: self._words]
        limit_L = np.array([self.count >> _WORD * i & _MASK for i in range(self._words)], dtype=np.int64)
        if (
            bool((_minus(rank_LC, limit_L[:, None])[-1] >= 0).any())
            and self.count >> _WORD * self._words == 0
        ):
            raise UpdateError("index", f"a rank is not below {self.count}")
        return self._sets(rank_LC), at

    def _width(self, digits: int) -> int:
        return int(self.radix**digits - 1).bit_length()

    def _join(self, high_C: Int64s) -> list[bytes]:
        """The digits of every eight sets as one number; those left over as one more."""
        weights = np.array([self.radix**i for i in range(_DIGITS)], dtype=np.int64)
        groups = len(high_C) // _DIGITS
        joined = high_C[: groups * _DIGITS].reshape(groups, _DIGITS) @ weights
        left = high_C[groups * _DIGITS :]
        last = np.array([left @ weights[: len(left)]], dtype=np.int64)
        return [pack(joined, self._width(_DIGITS)), pack(last, self._width(len(left)))]

    def _part(self, data: bytes, at: int, num_sets: int) -> tuple[Int64s, int]:
        """The inverse of `_join`."""
        groups, left = divmod(num_sets, _DIGITS)
        joined, at = unpack(data, at, groups, self._width(_DIGITS))
        last, at = unpack(data, at, 1, self._width(left))
        if bool((joined >= self.radix**_DIGITS).any()) or bool((last >= self.radix**left).any()):
            raise UpdateError("index", f"the digits of a group are not in base {self.radix}")
        high_C = np.empty(num_sets, dtype=np.int64)
        for numbers, size, start in ((joined, _DIGITS, 0), (last, left, groups * _DIGITS)):
            for digit in range(size):
                numbers, high_C[start + digit :: _DIGITS][: len(numbers)] = np.divmod(numbers, self.radix)
        return high_C, at

    def _sets(self, rank_LC: Int64s) -> Int64s:
        """The sets of ranks: for j = k .. 1 the largest i with C(i, j) <= what is left of the rank."""
        if self.k == self.n or self.k == 0:
            return np.broadcast_to(np.arange(self.k, dtype=np.int64), (rank_LC.shape[1], self.k)).copy()
        index_CK = np.empty((rank_LC.shape[1], self.k), dtype=np.int64)
        for j in range(self.k, 0, -1):
            table_LA, float_A = self._tables[j - 1], self._floats[j - 1]
            # Neighbours in the table differ by a factor of at least 1 + 2**-14 or by 1, floats by 2**-48: a
            # proposal a little too high (by the 2**-40) is at most one too high, and never too low.
            index_C = np.searchsorted(float_A, _as_float(rank_LC) * (1 + 2.0**-40), side="right") - 1
            left_LC = _minus(rank_LC, _rows(table_LA, index_C, len(rank_LC)))
            over = np.nonzero(left_LC[-1] < 0)[0]
            if len(over):
                index_C[over] -= 1
                left_LC[:, over] = _minus(rank_LC[:, over], _rows(table_LA, index_C[over], len(rank_LC)))
            index_CK[:, j - 1] = index_C
            rank_LC = left_LC
        return index_CK


@cache
def subset_coder(n: int, k: int) -> SubsetCoder:
    """The coder of k-subsets of ``0 .. n-1``, with its tables, made once."""
    return SubsetCoder(n, k)


def _binomials(n: int, k: int) -> list[npt.NDArray[np.uint32]]:
    """For j = 1 .. k: C(i, j) in 32-bit words, uint32 ``[L_j, n - k + j]``, the lowest first.

    There are entries for i = 0 .. n - k + j - 1, the largest that the j-th member can be; so none is above the
    highest rank.
    """
    tables, before_LA = [], np.ones((1, n - k), dtype=np.int64)
    for j in range(1, k + 1):
        words = max(1, -(-math.comb(n - k + j - 1, j).bit_length() // _WORD))
        table_LA = np.zeros((words, n - k + j), dtype=np.int64)
        # C(i, j) = sum of C(m, j - 1) over m < i; n words of 32 bits sum to less than 2**46
        table_LA[: len(before_LA), 1:] = np.cumsum(before_LA, axis=1)
        _carry(table_LA)
        tables.append(table_LA.astype(np.uint32))
        before_LA = table_LA
    return tables


def _carry(words_LC: Int64s) -> None:
    """Bring all words but the highest back to 32 bits, in place; words may be negative (a borrow)."""
    for low, high in pairwise(words_LC):
        high += low >> _WORD
        low &= _MASK


def _minus(left_LC: Int64s, right_LC: Int64s) -> Int64s:
    """Exact difference; where it is negative, so is the highest word."""
    difference_LC = left_LC - right_LC
    _carry(difference_LC)
    return difference_LC


def _rows(table_LA: npt.NDArray[np.uint32], index_C: Int64s, words: int) -> Int64s:
    """Entries of a table, with zero words up to `words`."""
    rows_LC = np.zeros((words, len(index_C)), dtype=np.int64)
    rows_LC[: len(table_LA)] = table_LA[:, index_C]
    return rows_LC


def _as_float(words_LC: npt.NDArray[np.int64] | npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    """The number nearly: relative error below 2**-48."""
    total = np.zeros(words_LC.shape[1], dtype=np.float64)
    for word in words_LC[::-1]:
        total = total * float(1 << _WORD) + word
    return total
