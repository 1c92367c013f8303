"""The manifest of a data set: which shards, of which length and hash.

One canonical JSON object: ``format``, ``token_bytes`` (1, 2, 4 or 8, little-endian), ``highest_token``,
``sequence_tokens`` (0 for a stream of tokens; else every so many tokens are one sample, as signed 4-byte
numbers, see `psyche_train.data.labels`) and ``shards``: ``[blob id, bytes]`` in order. A shard's blob id covers
its tokens, cut into pieces of 256 KiB (`psyche_train.blobs`), so that every piece can be verified alone; the
digests of the pieces lie beside the shard (``<shard>.pieces``), and the blob id proves them.

The manifest's own blob id is what a specification holds. Where the shards lie (files, URLs, peers) is no part
of it: the same tokens in the same shards have the same manifest everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from psyche_train.blobs import MAX_BLOB_BYTES, blob_id
from psyche_train.data.errors import DataError

FORMAT = "psyche-data-1"
FILE_NAME = "manifest.json"
PIECES_SUFFIX = ".pieces"
MAX_BYTES = 16 << 20
"""Longest manifest: about 190,000 shards."""


def shard_name(number: int) -> str:
    """File name of a prepared shard."""
    return f"shard-{number:05}.bin"


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard: its blob id and its length in bytes."""

    blob: bytes
    length: int


@dataclass(frozen=True, slots=True)
class DataManifest:
    """Shards of a data set, in order."""

    token_bytes: int
    highest_token: int
    shards: tuple[ShardEntry, ...]
    sequence_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of all shards."""
        return sum(shard.length for shard in self.shards) // self.token_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.length for shard in self.shards)

    @property
    def id(self) -> bytes:
        """The manifest's blob id."""
        return blob_id(self.to_bytes())

    @property
    def blobs(self) -> list[bytes]:
        """The manifest's own id and those of the shards."""
        return [self.id, *(shard.blob for shard in self.shards)]

    def to_bytes(self) -> bytes:
        """The canonical form."""
        tables = {
            "format": FORMAT,
            "highest_token": self.highest_token,
            "sequence_tokens": self.sequence_tokens,
            "shards": [[shard.blob.hex(), shard.length] for shard in self.shards],
            "token_bytes": self.token_bytes,
        }
        return json.dumps(tables, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str, wanted: str = "") -> DataManifest:
        """Read a manifest; total: anything else is a DataError that names `where` it came from.

        Args:
            data: at most `MAX_BYTES`.
            where: file or URL, for messages.
            wanted: blob id (hex) that it must have; empty accepts any.
        """
        if wanted and (found := blob_id(data).hex()) != wanted:
            raise DataError(
                f"{where} is manifest {found[:16]}, the run's data have {wanted[:16]}: "
                "get the data that the run's creator published"
            )
        try:
            manifest = _read(data)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where} is not a data manifest: {error}. Make it again with psyche-train prepare-data"
            ) from None
        return manifest


def _read(data: bytes) -> DataManifest:
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has {len(data)} bytes, allowed {MAX_BYTES}")
    tables: Any = json.loads(data)
    if not isinstance(tables, dict) or tables.get("format") != FORMAT:
        raise ValueError(f'"format" is not "{FORMAT}"')
    width = _integer(tables, "token_bytes", 1, 8)
    if width not in (1, 2, 4, 8):
        raise ValueError(f"token_bytes is {width}, allowed: 1, 2, 4, 8")
    sequence = _integer(tables, "sequence_tokens", 0, 1 << 24)
    if sequence and width != 4:
        raise ValueError(f"sequences have tokens of 4 bytes, these have {width}")
    shards = tables.get("shards")
    if not isinstance(shards, list) or not shards:
        raise ValueError('"shards" is not a list of shards')
    manifest = DataManifest(
        token_bytes=width,
        highest_token=_integer(tables, "highest_token", 0, 2**63 - 1),
        shards=tuple(_entry(shard, width) for shard in shards),
        sequence_tokens=sequence,
    )
    if manifest.to_bytes() != data:
        raise ValueError("it is not in canonical form")
    return manifest


def _integer(tables: dict[str, Any], key: str, low: int, high: int) -> int:
    value = tables.get(key)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f'"{key}" is not a whole number in {low}..{high}')
    return value


def _entry(shard: Any, width: int) -> ShardEntry:
    match shard:
        case [str(blob), int(length)] if type(length) is int and len(blob) == 64:
            if not 0 < length <= MAX_BLOB_BYTES or length % width:
                raise ValueError(f"a shard of {length} bytes with tokens of {width}")
            return ShardEntry(bytes.fromhex(blob), length)
    raise ValueError("a shard is not [id of 64 digits, bytes]")


def check_highest(highest_token: int, vocab_size: int, where: str) -> None:
    """Refuse data with tokens that the model has no row for.

    Raises:
        DataError: says the token and the vocabulary.
    """
    if highest_token >= vocab_size:
        raise DataError(
            f"{where}: a token is {highest_token}, the model's vocabulary has {vocab_size}: "
            "use a larger vocab_size, or data made with the model's tokenizer"
        )
