"""The body of a DisTrO update: for every coefficient that was sent, its index in the chunk and its sign.

    one bit per tensor in schema order: 1 where some chunk is not full, padded to a byte
    per tensor: where that bit is set, the count of every chunk, then for every coefficient sent, chunk by
    chunk and ascending, its index in the chunk and its sign (1 = minus)

and with `entropy = true`

    the same bits per tensor, then per tensor where its bit is set the count of every chunk
    per pair of chunk area and k, in the order in which the schema first has it: the index sets of all full
    chunks, coded together (`psyche_train.strategies.subsets`)
    per tensor where its bit is set: the indices of the chunks that are not full
    one bit per coefficient sent: its sign

Bit fields begin at the lowest bit. A count has the bits of k, an index those of ``area - 1``; each of these
fields is padded to a byte with zeros. A body has exactly one encoding.
"""

# Shape letters: C = chunks, K = kept per chunk, N = coefficients sent.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psyche_train.fold.chunks import Grid, Int64s
from psyche_train.fold.exact import Signs
from psyche_train.strategies.bits import bytes_of, pack, pack_fields, unpack
from psyche_train.strategies.header import UpdateError
from psyche_train.strategies.subsets import MAX_K, subset_coder


@dataclass(frozen=True)
class PayloadLayout:
    """One tier's codec: its sizes follow from the chunks per tensor and the coefficients kept per chunk."""

    grids: tuple[Grid, ...]
    topk: int
    entropy: bool = False
    """Code the indices of a chunk as a set, all chunks together; then `topk` is at most `MAX_K`."""
    max_bytes: int = field(init=False)
    """No valid body is longer."""

    def __post_init__(self) -> None:
        if self.entropy and self.topk > MAX_K:
            raise ValueError(f"entropy coding keeps at most {MAX_K} coefficients per chunk, not {self.topk}")
        size = bytes_of(len(self.grids))
        for grid in self.grids:
            kept = self.kept(grid)
            size += bytes_of(grid.num_chunks * kept.bit_length())
            size += bytes_of(grid.num_chunks * kept * (_index_bits(grid) + 1))
        if self.entropy:  # a set takes no more bits than its indices, but a group has three fields to pad
            size += 3 * len(self._groups()) + bytes_of(1)
        object.__setattr__(self, "max_bytes", size)

    def kept(self, grid: Grid) -> int:
        """Coefficients that a full chunk of this tensor sends."""
        return min(self.topk, grid.area)

    def encode(self, body: tuple[Signs, ...]) -> bytes:
        """Return the one encoding of a body: one `Signs` per tensor in schema order."""
        sent = [len(signs.keys) for signs in body]
        full = [grid.num_chunks * self.kept(grid) for grid in self.grids]
        flags = np.less(sent, full).astype(np.int64)
        counts = {
            i: np.bincount(body[i].keys // self.grids[i].area, minlength=self.grids[i].num_chunks)
            for i in np.flatnonzero(flags).tolist()
        }
        parts = [pack(flags, 1)]
        if self.entropy:
            return b"".join([*parts, *self._encode_sets(body, flags, counts)])
        fields = self._index_fields(body, sent)
        for i, grid in enumerate(self.grids):
            if i in counts:
                parts.append(pack(counts[i], self.kept(grid).bit_length()))
            parts.append(fields[i])
        return b"".join(parts)

    def _index_fields(self, body: tuple[Signs, ...], sent: Sequence[int]) -> dict[int, bytes]:
        """Of every tensor the indices and signs that were sent; all tensors of one chunk area at once."""
        areas: dict[int, list[int]] = {}
        for i, grid in enumerate(self.grids):
            areas.setdefault(grid.area, []).append(i)
        fields: dict[int, bytes] = {}
        for area, members in areas.items():
            bits = (area - 1).bit_length()
            keys_N = np.concatenate([body[i].keys for i in members])
            minus_N = np.concatenate([body[i].signs for i in members]) < 0
            codes_N = keys_N % area | minus_N.astype(np.int64) << bits
            packed = pack_fields(codes_N, [sent[i] for i in members], bits + 1)
            fields |= zip(members, packed, strict=True)
        return fields

    def decode(self, data: bytes, at: int) -> tuple[Signs, ...]:
        """Read the body that begins at byte `at`; every other byte string is an `UpdateError`."""
        flags, at = unpack(data, at, len(self.grids), 1)
        tensors, at = (self._decode_sets if self.entropy else self._decode_indices)(data, at, flags)
        if at != len(data):
            raise UpdateError("length", f"{len(data) - at} bytes too many")
        return tuple(tensors)

    def _decode_indices(self, data: bytes, at: int, flags: Int64s) -> tuple[list[Signs], int]:
        tensors = []
        for grid, flag in zip(self.grids, flags.tolist(), strict=True):
            counts, at = self._counts(grid, flag, data, at)
            codes, at = unpack(data, at, int(counts.sum()), _index_bits(grid) + 1)
            index, minus = codes & ((1 << _index_bits(grid)) - 1), codes >> _index_bits(grid)
            tensors.append(Signs(_keys(grid, counts, index), _signs(minus)))
        return tensors, at

    def _counts(self, grid: Grid, flag: int, data: bytes, at: int) -> tuple[Int64s, int]:
        kept = self.kept(grid)
        if not flag:
            return np.full(grid.num_chunks, kept, dtype=np.int64), at
        counts, at = unpack(data, at, grid.num_chunks, kept.bit_length())
        if bool((counts > kept).any()) or bool((counts == kept).all()):
            raise UpdateError("counts", f"{grid.name}: counts above {kept}, or all of them {kept}")
        return counts, at

    def _groups(self) -> dict[tuple[int, int], list[int]]:
        """``(area, k) -> tensors``, whose full chunks are coded together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for i, grid in enumerate(self.grids):
            groups.setdefault((grid.area, self.kept(grid)), []).append(i)
        return groups

    def _encode_sets(
        self, body: tuple[Signs, ...], flags: Int64s, not_full: dict[int, Int64s]
    ) -> list[bytes]:
        chosen = np.flatnonzero(flags).tolist()
        parts = [pack(not_full[i], self.kept(self.grids[i]).bit_length()) for i in chosen]
        counts = [
            not_full[i] if i in not_full else np.full(grid.num_chunks, self.kept(grid), dtype=np.int64)
            for i, grid in enumerate(self.grids)
        ]
        index = [signs.keys % grid.area for grid, signs in zip(self.grids, body, strict=True)]
        full = [self._in_full(grid, count) for grid, count in zip(self.grids, counts, strict=True)]
        for (area, kept), members in self._groups().items():
            sets_CK = np.concatenate([index[i][full[i]] for i in members]).reshape(-1, kept)
            parts.append(subset_coder(area, kept).encode(sets_CK))
        parts += [pack(index[i][~full[i]], _index_bits(self.grids[i])) for i in chosen]
        minus = np.concatenate([signs.signs < 0 for signs in body])
        return [*parts, pack(minus.astype(np.int64), 1)]

    def _decode_sets(self, data: bytes, at: int, flags: Int64s) -> tuple[list[Signs], int]:
        counts: list[Int64s] = []
        for grid, flag in zip(self.grids, flags.tolist(), strict=True):
            count, at = self._counts(grid, flag, data, at)
            counts.append(count)
        full = [self._in_full(grid, count) for grid, count in zip(self.grids, counts, strict=True)]
        index = [np.empty(len(mask_N), dtype=np.int64) for mask_N in full]
        for (area, kept), members in self._groups().items():
            sizes = [int(full[i].sum()) for i in members]
            sets_CK, at = subset_coder(area, kept).decode(data, at, sum(sizes) // kept)
            for i, part in zip(members, np.split(sets_CK.reshape(-1), np.cumsum(sizes)[:-1]), strict=True):
                index[i][full[i]] = part
        for i in np.flatnonzero(flags).tolist():
            rest = ~full[i]
            index[i][rest], at = unpack(data, at, int(rest.sum()), _index_bits(self.grids[i]))
        minus, at = unpack(data, at, sum(len(mask_N) for mask_N in full), 1)
        minuses = np.split(minus, np.cumsum([len(mask_N) for mask_N in full])[:-1])
        return [
            Signs(_keys(grid, counts[i], index[i]), _signs(minuses[i])) for i, grid in enumerate(self.grids)
        ], at

    def _in_full(self, grid: Grid, counts: Int64s) -> npt.NDArray[np.bool_]:
        """Which of a tensor's coefficients are in full chunks, bool ``[N]``."""
        mask_N: npt.NDArray[np.bool_] = np.repeat(counts == self.kept(grid), counts)
        return mask_N


def _keys(grid: Grid, counts: Int64s, index: Int64s) -> Int64s:
    if bool((index >= grid.area).any()):
        raise UpdateError("index", f"{grid.name}: an index is outside 0..{grid.area - 1}")
    keys = np.repeat(np.arange(grid.num_chunks, dtype=np.int64), counts) * grid.area + index
    if bool((np.diff(keys) <= 0).any()):
        raise UpdateError("index", f"{grid.name}: indices of a chunk are not strictly ascending")
    return keys


def _signs(minus: Int64s) -> npt.NDArray[np.int8]:
    return (1 - 2 * minus).astype(np.int8)


def _index_bits(grid: Grid) -> int:
    return (grid.area - 1).bit_length()
