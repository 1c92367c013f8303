"""`Local`: token files on this machine, plain or prepared.

Prepared data are a folder with `manifest.json`, `shard-00000.bin`, ... and the digests of their pieces beside
them: they are open at once. Plain files are hashed whole when they are first opened; the digests are kept in
the cache under path, size and time of change, so that the next start is as quick. (A file that changed without a
trace is still found out: its pieces do not have the digests.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from psyche_train.blobs import MAX_BLOB_BYTES, PIECE, BlobCorrupt, Manifest
from psyche_train.data.cache import cache_folder, write_whole
from psyche_train.data.errors import DataError
from psyche_train.data.manifest import (
    FILE_NAME,
    MAX_BYTES,
    PIECES_SUFFIX,
    DataManifest,
    ShardEntry,
    shard_name,
)
from psyche_train.data.shards import Shard, ShardTokens, read_pieces
from psyche_train.spec.data import TokenSize

WIDTHS: dict[TokenSize, int] = {"OneByte": 1, "TwoBytes": 2, "FourBytes": 4}
DEFAULT_SIZE: TokenSize = "TwoBytes"


def open_local(path: Path, size: TokenSize | None, wanted: str = "") -> ShardTokens:
    """Open a file, a folder of files, or prepared data.

    Args:
        size: width of a token in `.bin` files without a manifest.
        wanted: manifest id (hex) that the data must have; empty accepts any.

    Raises:
        DataError: missing, malformed, or other data.
    """
    path = path.expanduser()
    if path.is_dir() and (path / FILE_NAME).exists():
        return open_prepared(path, wanted, size=size)
    if path.is_dir():
        files = sorted(
            (file for file in path.iterdir() if file.suffix in (".bin", ".npy") and not _is_hidden(file)),
            key=lambda file: file.name,
        )
        if not files:
            raise DataError(f"{path} holds no .bin or .npy files: name the folder with the run's data")
    elif path.is_file():
        files = [path]
    else:
        raise DataError(
            f"{path} is neither a file nor a folder here: get the run's data, or correct the path"
        )
    plain = [_PlainFile.measured(file, size or DEFAULT_SIZE) for file in files]
    widths = {file.token_bytes for file in plain}
    if len(widths) > 1:
        raise DataError(
            f"the files in {path} have tokens of {sorted(widths)} bytes: convert them to one width, or use "
            "psyche-train prepare-data"
        )
    manifest = DataManifest(
        token_bytes=widths.pop(),
        highest_token=max(file.highest for file in plain),
        shards=tuple(ShardEntry(file.pieces.id, file.pieces.length) for file in plain),
    )
    if wanted and manifest.id.hex() != wanted:
        raise DataError(
            f"{path} has manifest {manifest.id.hex()[:16]}, the run's data have {wanted[:16]}: "
            "get the files that the run's creator published, and no others in the folder"
        )
    return ShardTokens(manifest, [file.shard() for file in plain])


def open_prepared(folder: Path, wanted: str = "", *, size: TokenSize | None = None) -> ShardTokens:
    """Open a folder that `psyche-train prepare-data` wrote.

    Raises:
        DataError: a part of it is missing or not what the manifest says.
    """
    manifest = read_manifest(folder / FILE_NAME, wanted)
    if size is not None and WIDTHS[size] != manifest.token_bytes:
        raise DataError(
            f"{folder / FILE_NAME} says tokens of {manifest.token_bytes} bytes, token_size_in_bytes says {size}: "
            "leave token_size_in_bytes out"
        )
    shards = []
    for number, entry in enumerate(manifest.shards):
        file = folder / shard_name(number)
        try:
            length = file.stat().st_size
        except OSError:
            raise DataError(
                f"{file} is missing, the manifest says {len(manifest.shards)} shards: copy the whole folder again"
            ) from None
        if length != entry.length:
            raise DataError(
                f"{file} has {length} bytes, the manifest says {entry.length}: copy this file again"
            )
        beside = file.with_name(file.name + PIECES_SUFFIX)
        shards.append(Shard(str(file), file, entry, pieces=partial(read_pieces, beside)))
    return ShardTokens(manifest, shards)


def read_manifest(path: Path, wanted: str = "") -> DataManifest:
    """Read a manifest file, bounded.

    Raises:
        DataError: unreadable, no manifest, or another one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return DataManifest.from_bytes(data, str(path), wanted)


class _PlainFile:
    """A token file that was hashed as it is."""

    def __init__(self, path: Path, *, offset: int, token_bytes: int, highest: int, pieces: Manifest) -> None:
        self.path, self.offset, self.token_bytes = path, offset, token_bytes
        self.highest, self.pieces = highest, pieces

    def shard(self) -> Shard:
        """Its tokens as a shard."""
        entry = ShardEntry(self.pieces.id, self.pieces.length)
        return Shard(str(self.path), self.path, entry, offset=self.offset, pieces=lambda: self.pieces)

    @classmethod
    def measured(cls, path: Path, size: TokenSize) -> _PlainFile:
        """Hash a file, or take what the cache knows of it.

        Raises:
            DataError: it cannot be read, or is no list of tokens.
        """
        try:
            stat = path.stat()
            offset, token_bytes = _layout(path, size)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        length = stat.st_size - offset
        if length <= 0 or length % token_bytes:
            raise DataError(f"{path} has {max(0, length)} bytes of tokens, not a multiple of {token_bytes}")
        if length > MAX_BLOB_BYTES:
            raise DataError(
                f"{path} has {length} bytes, allowed {MAX_BLOB_BYTES}: psyche-train prepare-data cuts it"
            )
        key = [str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, offset, token_bytes]
        folder = cache_folder("hashes", key)
        if (known := _known(folder, length)) is None:
            known = _scan(path, offset, length, token_bytes)
            write_whole(folder / "pieces", known[1].to_bytes())
            write_whole(folder / "highest.json", json.dumps(known[0]).encode())
        return cls(path, offset=offset, token_bytes=token_bytes, highest=known[0], pieces=known[1])


def _layout(path: Path, size: TokenSize) -> tuple[int, int]:
    """Offset of the tokens in a file, and their width in bytes."""
    if path.suffix == ".bin":
        return 0, WIDTHS[size]
    if path.suffix != ".npy":
        raise DataError(f"{path} ends in {path.suffix or 'nothing'}: .bin and .npy are read")
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read: Any = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = read[version](file, max_header_size=10_000)
        except (ValueError, KeyError) as error:
            raise DataError(f"{path} is not an array of numpy: {error}. Write it with numpy.save") from None
        offset = file.tell()
    if len(shape) != 1 or dtype.kind not in "ui":
        raise DataError(f"{path} holds {dtype} of {len(shape)} dimensions, not a list of integers")
    if dtype.str.startswith(">"):
        raise DataError(f"{path} holds big-endian numbers: save it with dtype '<u{dtype.itemsize}'")
    if offset + shape[0] * dtype.itemsize != path.stat().st_size:
        raise DataError(f"{path} is cut short: its header says {shape[0]} tokens")
    return offset, int(dtype.itemsize)


def _scan(path: Path, offset: int, length: int, token_bytes: int) -> tuple[int, Manifest]:
    """Highest token and piece digests of a file, in one pass."""
    digests, highest, left = [], 0, length
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while left:
                piece = file.read(min(PIECE, left))
                if not piece:
                    raise DataError(f"{path} was cut short while it was read: nobody may write to it")
                digests.append(hashlib.sha256(piece).digest())
                whole = piece[: len(piece) // token_bytes * token_bytes]
                highest = max(highest, int(np.frombuffer(whole, dtype=f"<u{token_bytes}").max()))
                left -= len(piece)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return min(highest, 2**63 - 1), Manifest(length, tuple(digests))


def _known(folder: Path, length: int) -> tuple[int, Manifest] | None:
    """What the cache says of a file, if it says anything that can be."""
    try:
        pieces = Manifest.from_bytes((folder / "pieces").read_bytes())
        highest = json.loads((folder / "highest.json").read_text())
    except (OSError, ValueError, BlobCorrupt):
        return None
    return (highest, pieces) if type(highest) is int and highest >= 0 and pieces.length == length else None


def _is_hidden(file: Path) -> bool:
    return file.name.startswith(".")


__all__: Sequence[str] = ["DEFAULT_SIZE", "WIDTHS", "open_local", "open_prepared", "read_manifest"]
