"""Samples by number: windows of the tokens, shuffled, with a part held out for validation.

The tokens of a source are cut into windows of ``max_seq_len + 1`` (inputs and the targets one later) that do
not overlap; documents follow each other, and a window may hold the end of one and the beginning of the next.
Blocks of them are held out (`psyche_train.data.split`). The rest is numbered, shuffled anew for every pass by a
permutation seeded by the spec hash, and repeated for ever. A mixture's sources are split and shuffled each for
itself and then take turns (`psyche_train.data.mixture`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psyche_train.data.errors import DataError, MissingData, PieceError
from psyche_train.data.labels import shown
from psyche_train.data.manifest import check_highest
from psyche_train.data.mixture import Interleave
from psyche_train.data.peers import Offer
from psyche_train.data.shards import Tokens
from psyche_train.data.shuffle import Shuffle
from psyche_train.data.source import offers, open_source
from psyche_train.data.split import Split
from psyche_train.spec import FixedSource, LocalData, PeersData, StdlibData, TrainSpec

Int64s = npt.NDArray[np.int64]

MAX_NUMBER = 1 << 62


class Dataset:
    """The run's samples.

    Args:
        spec: its data location, sequence length, and hash (the shuffle's seed).
        vocab_size: every token must be below it.
        order: another seed of the shuffle, for comparing specs on the same order of samples.
        blobs: folder of the member's blob store. With it, a source that peers have may be incomplete:
            `missing` says what to fetch, `refresh` looks again. Without it such a source is refused.
        folder: the run's data on this machine, where they are elsewhere than the run says.

    Raises:
        DataError: the source does not verify, is too short, or holds a token outside the vocabulary.
    """

    def __init__(
        self,
        spec: TrainSpec,
        vocab_size: int,
        *,
        order: bytes | None = None,
        blobs: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self._window = spec.max_seq_len + 1
        self._vocab_size = vocab_size
        self._blobs, self._folder = blobs, folder
        sources = spec.data_location.sources
        if folder is not None and len(sources) > 1:
            raise DataError("a folder of data was named, the run has several sources: leave it out")
        self._sources = [source for _, source in sources]
        if folder is not None and not isinstance(self._sources[0], LocalData | PeersData):
            raise DataError("a folder of data was named, the run's data are not read from one: leave it out")
        self._interleave = Interleave([weight for weight, _ in sources])
        seed = spec.sha256 if order is None else order
        seeds = [seed]
        if len(sources) > 1:
            seeds = [hashlib.sha256(seed + bytes([i])).digest() for i in range(len(sources))]
        self._seeds = seeds
        self._parts: list[_Part | None] = [None] * len(sources)
        self.manifests = [""] * len(sources)
        """Id of every source's manifest, hex; empty for `Dummy`."""
        self._shared: dict[int, Sequence[bytes]] = {}
        """Blobs of each source that members get from each other, as far as they are known."""
        self.missing: tuple[bytes, ...] = ()
        """Blobs that have to be fetched before anything can be read; there may be more after these."""
        self.refresh()

    @property
    def num_train(self) -> int:
        """Training samples of one pass over all sources."""
        return sum(part.split.num_train for part in self._ready())

    @property
    def num_held_out(self) -> int:
        """Windows that are never trained."""
        return sum(part.split.num_held_out for part in self._ready())

    def refresh(self) -> None:
        """Open what has come since, and note what is still missing.

        Raises:
            DataError: see the class.
        """
        missing: dict[bytes, None] = {}
        for i, source in enumerate(self._sources):
            if self._parts[i] is None:
                try:
                    self._parts[i] = self._open(i, source)
                except MissingData as error:
                    if self._blobs is None:
                        raise
                    missing |= dict.fromkeys(error.blobs)
                    self._shared[i] = error.known
        self.missing = tuple(missing)

    @property
    def blobs(self) -> frozenset[bytes]:
        """Blobs of the run's data that are, or will be, in the member's store: they must stay there."""
        return frozenset(blob for blobs in self._shared.values() for blob in blobs)

    def offers(self) -> list[Offer]:
        """Blobs that this member has of the run's data and others may need."""
        return [offer for source in self._sources for offer in offers(source, self._folder)]

    def batch(self, samples: Sequence[range]) -> Tensor:
        """Return samples by number, int64 ``[samples, max_seq_len + 1]``.

        Raises:
            DataError: some cannot be read; says which samples, from where, and what to do.
        """
        parts = self._ready()
        if any(interval.stop > MAX_NUMBER for interval in samples):
            raise DataError(f"samples {list(samples)} are beyond {MAX_NUMBER}: no run trains so many")
        numbers = np.array([number for interval in samples for number in interval], dtype=np.int64)
        source, ranks = self._interleave(numbers)
        out = np.empty((len(numbers), self._window), dtype=np.int64)
        for i, part in enumerate(parts):
            chosen = source == i
            if chosen.any():
                out[chosen] = part.read(part.windows(ranks[chosen]), numbers[chosen], self._vocab_size)
        return torch.from_numpy(out)

    def validation(self, limit: int) -> Tensor:
        """Return up to `limit` held-out windows, the same ones always, spread over the held-out part.

        Raises:
            DataError: see `batch`.
        """
        parts = self._ready()
        source, _ = self._interleave(np.arange(limit, dtype=np.int64))
        rows = []
        for i, part in enumerate(parts):
            held_out = part.split.num_held_out
            count = min(int((source == i).sum()), held_out)
            if count:
                places = np.array([j * held_out // count for j in range(count)], dtype=np.int64)
                rows.append(part.read(part.split.held_out_window(places), None, self._vocab_size))
        return torch.from_numpy(np.concatenate(rows))

    def _open(self, i: int, source: FixedSource) -> _Part:
        tokens, manifest = open_source(source, self._window, blobs=self._blobs, folder=self._folder)
        if manifest is not None:
            self.manifests[i] = manifest.id.hex()
            if isinstance(source, StdlibData | PeersData):
                self._shared[i] = manifest.blobs
        name = type(source).__name__.removesuffix("Data")
        check_highest(tokens.highest_token, self._vocab_size, f"data_location.{name}")
        try:
            split = Split.of(tokens.num_tokens, self._window, source.validation_fraction)
        except ValueError as error:
            raise DataError(f"data_location.{name}: {error}") from None
        return _Part(tokens, split, self._seeds[i], self._window)

    def _ready(self) -> list[_Part]:
        parts = [part for part in self._parts if part is not None]
        if len(parts) < len(self._parts):
            raise MissingData(
                f"the run's data are not complete on this machine: {len(self.missing)} blobs or more are with "
                "peers; they are fetched when the member has joined",
                list(self.missing),
            )
        return parts


class _Part:
    """One source, split and shuffled."""

    def __init__(self, tokens: Tokens, split: Split, seed: bytes, window: int) -> None:
        self._tokens, self.split, self._seed, self._window = tokens, split, seed, window
        self._shuffles: dict[int, Shuffle] = {}

    def windows(self, ranks: Int64s) -> Int64s:
        """The windows of this source's samples by number, which run on into further passes."""
        passes, places = ranks // self.split.num_train, ranks % self.split.num_train
        windows = np.empty(len(ranks), dtype=np.int64)
        for one in sorted(set(passes.tolist())):
            here = passes == one
            windows[here] = self.split.train_window(self._shuffle(one)(places[here]))
        return windows

    def read(self, windows: Int64s, numbers: Int64s | None, vocab_size: int) -> Int64s:
        """Tokens of windows; `numbers` are their sample numbers, None if they are held out."""
        starts = windows * self._window
        try:
            rows = self._tokens.read(starts, self._window)
        except PieceError as error:
            hit = (starts < error.last) & (starts + self._window > error.first)
            raise DataError(f"{_named(numbers, hit)} cannot be read: {error}") from error
        except DataError as error:
            raise DataError(
                f"{_named(numbers, np.ones(len(starts), dtype=bool))} cannot be read: {error}"
            ) from error
        tokens = shown(rows)
        if (high := tokens.max(axis=1) >= vocab_size).any():
            raise DataError(
                f"{_named(numbers, high)} hold token {tokens.max()}, the model's vocabulary has {vocab_size}: "
                "the manifest says otherwise; get the data that the run's creator published"
            )
        return rows

    def _shuffle(self, one_pass: int) -> Shuffle:
        if one_pass not in self._shuffles:
            self._shuffles.clear()
            self._shuffles[one_pass] = Shuffle(
                self.split.num_train, self._seed + one_pass.to_bytes(8, "little")
            )
        return self._shuffles[one_pass]


def _named(numbers: Int64s | None, hit: npt.NDArray[np.bool_]) -> str:
    """The samples that are hit, for a message."""
    if numbers is None:
        return "held-out samples"
    found = numbers[hit].tolist()
    shown = ", ".join(map(str, found[:8])) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return f"samples {shown}"
