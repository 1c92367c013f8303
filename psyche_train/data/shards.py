"""Tokens of shards, verified piece by piece as they are read.

A piece (256 KiB) is hashed the first time that a process reads from it and compared with its digest; so data of
any size are open at once, and no token is ever trained that was not verified. Files are read in place with
`pread`, through the page cache: nothing is loaded, and a file that is cut short while it is read is an error
here, where a memory map would end the process.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from psyche_train.blobs import PIECE, BlobCorrupt, Manifest
from psyche_train.data.errors import DataError, PieceError
from psyche_train.data.manifest import DataManifest, ShardEntry

Int64s = npt.NDArray[np.int64]


class Tokens(Protocol):
    """A long row of tokens, read anywhere. What every source comes down to."""

    num_tokens: int
    highest_token: int
    """No token is higher, as far as is known without reading them all."""
    sequence_tokens: int
    """Length of the samples that the row consists of; 0 for text that may be cut anywhere."""

    def read(self, starts: Int64s, length: int) -> Int64s:
        """Tokens ``[len(starts), length)`` from each start.

        Raises:
            DataError: some cannot be read, or are not what the manifest says; a PieceError says which.
        """
        ...


class MemoryTokens:
    """Tokens that are in memory."""

    sequence_tokens = 0

    def __init__(self, tokens: npt.NDArray[np.integer]) -> None:
        self._tokens = tokens
        self.num_tokens = len(tokens)
        self.highest_token = int(tokens.max())

    def read(self, starts: Int64s, length: int) -> Int64s:
        """See `Tokens.read`."""
        rows: Int64s = self._tokens[starts[:, None] + np.arange(length)].astype(np.int64)
        return rows


class Shard:
    """The bytes of one shard in a local file.

    Args:
        name: what messages call it: a path or a URL.
        path: the file.
        entry: its blob id and length.
        offset: where in the file the tokens begin.
        pieces: returns the digests of the pieces; asked once, when the shard is first read.
    """

    def __init__(
        self, name: str, path: Path, entry: ShardEntry, *, offset: int = 0, pieces: Callable[[], Manifest]
    ) -> None:
        self.name, self.path, self.entry = name, path, entry
        self._offset = offset
        self._pieces = pieces
        self._manifest: Manifest | None = None
        self._opening = threading.Lock()
        self._seen = bytearray()

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of a non-empty interval, verified.

        Raises:
            PieceError: they cannot be had.
        """
        for index in range(start // PIECE, (stop - 1) // PIECE + 1):
            self.verify(index)
        data = self._pread(start, stop - start)
        if data is None or len(data) != stop - start:
            raise self._damaged(start // PIECE, "it was cut short while it was read")
        return data

    def seen(self, index: int) -> bool:
        """Whether a piece was verified in this process."""
        return bool(self._seen) and bool(self._seen[index])

    def verify(self, index: int) -> None:
        """Hash a piece, unless it was hashed before.

        Raises:
            PieceError: it cannot be had, or is not what the manifest says.
        """
        manifest = self._digests()
        if self._seen[index]:
            return
        data = self._pread(index * PIECE, manifest.piece_bytes(index))
        if data is None or hashlib.sha256(data).digest() != manifest.digests[index]:
            self._recover(index, manifest, data)
        self._seen[index] = 1

    def _digests(self) -> Manifest:
        with self._opening:
            if self._manifest is not None:
                return self._manifest
            manifest = self._pieces()
            if manifest.id != self.entry.blob or manifest.length != self.entry.length:
                raise DataError(
                    f"{self.name}: the hashes of its pieces are not those of the run's data "
                    f"(blob {manifest.id.hex()[:16]}, wanted {self.entry.blob.hex()[:16]}): "
                    "get the data that the run's creator published"
                )
            self._seen = bytearray(len(manifest.digests))
            self._manifest = manifest
            return manifest

    def _recover(self, index: int, manifest: Manifest, found: bytes | None) -> None:
        """A piece in the file is missing or wrong: a source that can fetch it does so here."""
        if found is None:
            raise self._damaged(index, "the file cannot be read")
        if len(found) < manifest.piece_bytes(index):
            raise self._damaged(index, "the file is too short")
        raise self._damaged(index, "the bytes do not have the hash that the manifest says")

    def _damaged(self, index: int, why: str) -> PieceError:
        first, last = index * PIECE, min((index + 1) * PIECE, self.entry.length)
        return PieceError(
            f"{self.name}, bytes {first} to {last}: {why}. Get this file again from the run's creator",
            first,
            last,
        )

    def _pread(self, start: int, length: int) -> bytes | None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        try:
            data = b""
            while len(data) < length:
                more = os.pread(descriptor, length - len(data), self._offset + start + len(data))
                if not more:
                    break
                data += more
            return data
        except OSError:
            return None
        finally:
            os.close(descriptor)


class ShardTokens:
    """The tokens of a manifest's shards, one after the other.

    Args:
        manifest: lengths and hashes.
        shards: where they are, in order.
        workers: pieces that are looked after at once; more than one for sources on a network.
    """

    def __init__(self, manifest: DataManifest, shards: Sequence[Shard], *, workers: int = 1) -> None:
        self.manifest = manifest
        self.shards = list(shards)
        self.num_tokens = manifest.num_tokens
        self.highest_token = manifest.highest_token
        self.sequence_tokens = manifest.sequence_tokens
        self._width = manifest.token_bytes
        kind = "i" if manifest.sequence_tokens else "u"
        self._dtype = np.dtype(f"<{kind}{manifest.token_bytes}")
        lengths = np.array([shard.length for shard in manifest.shards], dtype=np.int64)
        self._ends = np.cumsum(lengths)
        self._workers = workers

    def read(self, starts: Int64s, length: int) -> Int64s:
        """See `Tokens.read`."""
        spans = [self._spans(int(start) * self._width, length * self._width) for start in starts]
        if self._workers > 1:
            self._verify([span for each in spans for span in each])
        out = np.empty((len(spans), length), dtype=np.int64)
        for row, each in zip(out, spans, strict=True):
            data = b"".join(self._read(*span) for span in each)
            row[:] = np.frombuffer(data, dtype=self._dtype)
        return out

    def _spans(self, at: int, num_bytes: int) -> list[tuple[int, int, int]]:
        """`(shard, first byte, last byte)` of an interval of the whole row."""
        spans = []
        number = int(np.searchsorted(self._ends, at, side="right"))
        while num_bytes > 0:
            first = at - (int(self._ends[number - 1]) if number else 0)
            last = min(first + num_bytes, self.manifest.shards[number].length)
            spans.append((number, first, last))
            at, num_bytes, number = at + last - first, num_bytes - (last - first), number + 1
        return spans

    def _read(self, number: int, first: int, last: int) -> bytes:
        try:
            return self.shards[number].read(first, last)
        except PieceError as error:
            raise self._globally(number, error) from error

    def _verify(self, spans: Sequence[tuple[int, int, int]]) -> None:
        """Have all pieces of these spans, several at a time."""
        wanted = dict.fromkeys(
            (number, index)
            for number, first, last in spans
            for index in range(first // PIECE, (last - 1) // PIECE + 1)
            if not self.shards[number].seen(index)
        )
        if not wanted:
            return
        with ThreadPoolExecutor(self._workers) as pool:
            tasks = [(number, pool.submit(self.shards[number].verify, index)) for number, index in wanted]
            try:
                for number, task in tasks:
                    try:
                        task.result()
                    except PieceError as error:
                        raise self._globally(number, error) from error
            finally:
                pool.shutdown(cancel_futures=True)

    def _globally(self, number: int, error: PieceError) -> PieceError:
        """The same error with bytes of the whole row, so that samples can be named."""
        before = int(self._ends[number - 1]) if number else 0
        first, last = (before + error.first) // self._width, -(-(before + error.last) // self._width)
        return PieceError(str(error), first, last)


def read_pieces(path: Path) -> Manifest:
    """Read a `.pieces` file.

    Raises:
        DataError: it is missing or no such file; whether it is the right one is for the reader to compare.
    """
    try:
        return Manifest.from_bytes(path.read_bytes())
    except (OSError, BlobCorrupt) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(
            f"{path} cannot be read: {why}. It lies beside prepared data: copy the whole folder again"
        ) from None
