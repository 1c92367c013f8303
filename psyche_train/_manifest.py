"""The manifest of a blob and the errors of a store; `psyche_train.blobs` gives both to the world."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import BinaryIO

PIECE = 256 * 1024
"""Bytes in every piece but the last."""

ID_BYTES = 32
MAX_MANIFEST_BYTES = 8 + 32 * 65_536
"""Manifest of the largest blob, 16 GiB."""
MAX_BLOB_BYTES = PIECE * 65_536

_LENGTH = struct.Struct("<Q")


class BlobStoreError(Exception):
    """A store cannot read or write its directory; the message says which file, why, and what to do."""


class BlobMissing(BlobStoreError):
    """The store does not hold the blob."""


class BlobCorrupt(BlobStoreError):
    """Bytes do not hash to what an id or a manifest promises."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Length of a blob and the SHA-256 of each of its pieces.

    Raises:
        BlobCorrupt: the number of digests does not fit the length, or a digest is not 32 bytes.
    """

    length: int
    digests: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.length <= MAX_BLOB_BYTES:
            raise BlobCorrupt(f"manifest claims {self.length} bytes, allowed 0..{MAX_BLOB_BYTES}")
        if len(self.digests) != num_pieces(self.length) or any(len(d) != 32 for d in self.digests):
            raise BlobCorrupt(
                f"manifest has {len(self.digests)} digests, "
                f"{self.length} bytes need {num_pieces(self.length)} of 32 bytes"
            )

    @property
    def id(self) -> bytes:
        """The blob's 32-byte id."""
        return hashlib.sha256(self.to_bytes()).digest()

    def piece_bytes(self, index: int) -> int:
        """Length of piece `index` in bytes."""
        return min(PIECE, self.length - index * PIECE)

    def to_bytes(self) -> bytes:
        """Little-endian u64 length, then the digests."""
        return _LENGTH.pack(self.length) + b"".join(self.digests)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Manifest:
        """Decode `to_bytes`; total: anything else raises BlobCorrupt."""
        if len(raw) < 8 or (len(raw) - 8) % 32 or len(raw) > MAX_MANIFEST_BYTES:
            raise BlobCorrupt(f"a manifest cannot be {len(raw)} bytes long")
        (length,) = _LENGTH.unpack_from(raw)
        return cls(length, tuple(raw[i : i + 32] for i in range(8, len(raw), 32)))

    @classmethod
    def of_bytes(cls, data: bytes | memoryview) -> Manifest:
        """Manifest of bytes in memory."""
        view = memoryview(data)
        starts = range(0, len(view), PIECE)
        return cls(len(view), tuple(hashlib.sha256(view[i : i + PIECE]).digest() for i in starts))


def num_pieces(length: int) -> int:
    """How many pieces a blob of `length` bytes has."""
    return -(-length // PIECE)


def blob_id(data: bytes | memoryview) -> bytes:
    """SHA-256 over the little-endian u64 length and the SHA-256 of every 256 KiB piece."""
    return Manifest.of_bytes(data).id


def manifest_of_file(reader: BinaryIO, writer: BinaryIO | None = None) -> Manifest:
    """Manifest of a file's content, copying it to `writer` on the way."""
    digests, length = [], 0
    while piece := reader.read(PIECE):
        digests.append(hashlib.sha256(piece).digest())
        length += len(piece)
        if writer is not None:
            writer.write(piece)
    return Manifest(length, tuple(digests))
