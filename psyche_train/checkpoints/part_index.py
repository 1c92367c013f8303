"""Which blobs make up an agreed checkpoint, part by part, and the proof that they do.

A weights hash h_0 is made of the digests ``g_T, ..., g_0`` of the model's parts (`psyche_train.fold.digest`):
part T is the smallest slice, part t what tier t adds to it. Members hand a checkpoint over as those parts, each
byte for byte what its digest is taken of, cut into blobs. The index names them:

    {"version": 1, "parts": [{"sha256": g_T, "blobs": [[id, bytes], ...]}, ...]}      from part T to part 0

So a member of tier t fetches parts T to t and nothing else, and every step of the proof is a hash: the chain
shows h_0; the index's digests must give it; a part's bytes must have its digest; every 256 KiB piece of a blob is
compared with the blob's id when it arrives. The bytes of index and blobs depend on the weights only, so members
with equal weights offer the same blobs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from psyche_train.checkpoints.errors import DamagedError
from psyche_train.checkpoints.tensors import parse_json
from psyche_train.fold.digest import weights_hash

MAX_INDEX_BYTES = 4 << 20
MAX_PARTS = 33


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the weights: its digest, and the blobs that hold its bytes in their order."""

    digest: bytes
    blobs: tuple[tuple[bytes, int], ...]
    """Id and length of each."""

    @property
    def num_bytes(self) -> int:
        """Length of the part."""
        return sum(length for _, length in self.blobs)


@dataclass(frozen=True, slots=True)
class Offered:
    """A part that was written to files, one for each blob."""

    part: Part
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class PartIndex:
    """All parts of a full model, from the smallest slice outwards."""

    parts: tuple[Part, ...]

    @property
    def weights_hash(self) -> bytes:
        """The h_0 of the parts' digests."""
        return weights_hash([part.digest for part in self.parts])

    @property
    def blobs(self) -> frozenset[bytes]:
        """Ids of all blobs."""
        return frozenset(blob for part in self.parts for blob, _ in part.blobs)

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        tables = {
            "version": 1,
            "parts": [
                {
                    "sha256": part.digest.hex(),
                    "blobs": [[blob.hex(), length] for blob, length in part.blobs],
                }
                for part in self.parts
            ],
        }
        return json.dumps(tables, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> PartIndex:
        """Read an index that came from elsewhere.

        Raises:
            DamagedError: it is none; whatever the bytes, nothing else.
        """
        if len(raw) > MAX_INDEX_BYTES:
            raise DamagedError(f"an index of {len(raw)} bytes, at most {MAX_INDEX_BYTES}")
        tables = parse_json(raw, "the index")
        try:
            if tables["version"] != 1:
                raise DamagedError(f"the index has version {tables['version']!r}, this program reads 1")
            parts = tuple(
                Part(
                    _hash(part["sha256"]), tuple((_hash(blob), _length(size)) for blob, size in part["blobs"])
                )
                for part in tables["parts"]
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(f"the index is none: {error!r}") from error
        if not 0 < len(parts) <= MAX_PARTS:
            raise DamagedError(f"the index names {len(parts)} parts, allowed 1..{MAX_PARTS}")
        return cls(parts)


def _hash(value: object) -> bytes:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise DamagedError(f"the index has {str(value)[:80]!r} where a SHA-256 should be")
    return bytes.fromhex(value)


def _length(value: object) -> int:
    if type(value) is not int or not 0 < value < 2**63:
        raise DamagedError(f"the index has {str(value)[:80]!r} where a blob's length should be")
    return value
