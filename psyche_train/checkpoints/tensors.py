"""Read and write safetensors files one tensor at a time.

The library's own functions take or return all tensors of a file together, and reading maps the file, so that
one that shrinks meanwhile kills the process. Here a file is written from tensors that are made when their turn
comes, and hashed on the way; of a stored tensor only the part that was asked for is ever in memory; and a
header is believed only after every number in it was compared with the length of the file. The bytes are those
that the library writes (a test compares them).

Format: little-endian u64 length of the header, the header (JSON: name -> dtype, shape, offsets), the tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from psyche_train.checkpoints.errors import CheckpointError, DamagedError, disk

MAX_HEADER_BYTES = 32 << 20
"""Some 200,000 tensors; a header that claims more is not read."""
READ_BYTES = 8 << 20
"""Bytes of one read; a tensor of which only some columns are wanted is read in blocks of about this size."""

_NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_RANK = {
    "BOOL": 0,
    "U8": 1,
    "I8": 2,
    "I16": 6,
    "F16": 8,
    "BF16": 9,
    "I32": 10,
    "F32": 12,
    "F64": 14,
    "I64": 15,
}
"""The library's order of types: a file holds the widest first, then by name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a header says of one tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Length of its values in a file."""
        return math.prod(self.shape) * self.dtype.itemsize


def entries_of(tensors: Mapping[str, Tensor]) -> list[Entry]:
    """The entries of tensors in memory."""
    return [Entry(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]


def write_tensors(
    path: Path,
    entries: Iterable[Entry],
    fetch: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Write one file, asking for each tensor when its turn comes; on disk when this returns.

    Args:
        fetch: returns the tensor of a name, on any device; the last one is dropped before the next is asked for.

    Returns:
        Length in bytes, and SHA-256 in hex.

    Raises:
        StorageError: the disk is full or cannot be written.
        CheckpointError: `fetch` returned something else than was announced.
    """
    ordered = sorted(entries, key=lambda entry: (-_RANK[_NAMES[entry.dtype]], entry.name.encode()))
    header = _header(ordered, metadata)
    digest = hashlib.sha256()
    with disk(path, "cannot write"), path.open("wb") as file:
        digest.update(header)
        file.write(header)
        for entry in ordered:
            tensor = fetch(entry.name)
            if (tensor.dtype, tuple(tensor.shape)) != (entry.dtype, entry.shape):
                raise CheckpointError(
                    f"{entry.name} is {tensor.dtype} {tuple(tensor.shape)}, announced was "
                    f"{entry.dtype} {entry.shape}"
                )
            values = _bytes_of(tensor)
            del tensor
            digest.update(values)
            file.write(values)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


class TensorFile:
    """One open safetensors file whose header was checked.

    Raises:
        DamagedError: the header is not one, or promises what the file does not hold.
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk(path, "cannot read"):
            self._file: BinaryIO = path.open("rb")
            try:
                self.entries, self._starts = _read_header(self._file, path)
            except BaseException:
                self._file.close()
                raise

    def read(self, name: str, index: Sequence[slice] | None = None) -> Tensor:
        """Return a tensor, or the part of it that `index` names; nothing else stays in memory.

        Args:
            index: slices without step for the first dimensions; None is all of it.

        Raises:
            DamagedError: the file has become shorter.
        """
        entry = self.entries[name]
        shape = entry.shape
        if not index or not shape:
            return self._rows(name, 0, shape[0] if shape else 1).reshape(shape)
        first, stop, _ = index[0].indices(shape[0])
        columns = (*index[1:], *[slice(None)] * (len(shape) - len(index)))
        if all(part.indices(size)[:2] == (0, size) for part, size in zip(columns, shape[1:], strict=True)):
            return self._rows(name, first, stop)
        row_bytes = entry.num_bytes // max(1, shape[0])
        step = max(1, READ_BYTES // max(1, row_bytes))
        blocks = [
            self._rows(name, at, min(stop, at + step))[(slice(None), *columns)].clone()
            for at in range(first, stop, step)
        ]
        if not blocks:
            return torch.empty((0, *shape[1:]), dtype=entry.dtype)[(slice(None), *columns)].clone()
        return torch.cat(blocks)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rows(self, name: str, first: int, stop: int) -> Tensor:
        """Rows `first` to `stop` of the first dimension, ``[stop - first, ...]``."""
        entry = self.entries[name]
        row_bytes = math.prod(entry.shape[1:]) * entry.dtype.itemsize
        wanted = torch.empty(max(0, stop - first) * row_bytes, dtype=torch.uint8)
        view = memoryview(wanted.numpy().data)
        with disk(self.path, "cannot read"):
            start, at = self._starts[name] + first * row_bytes, 0
            while at < len(view):  # no file position, so that threads may read at once
                count = os.preadv(self._file.fileno(), [view[at : at + READ_BYTES]], start + at)
                if not count:
                    raise DamagedError(f"{self.path} ends within {name}")
                at += count
        if entry.dtype is torch.bool:
            if bool((wanted > 1).any()):
                raise DamagedError(f"{self.path}: {name} holds bytes that are no truth values")
            return wanted.bool().reshape((max(0, stop - first), *entry.shape[1:]))
        if sys.byteorder == "big":
            wanted = wanted.reshape(-1, entry.dtype.itemsize).flip(1).contiguous().reshape(-1)
        return wanted.view(entry.dtype).reshape((max(0, stop - first), *entry.shape[1:]))


def read_all(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file that is known to be small enough.

    Raises:
        DamagedError, StorageError: as `TensorFile`.
    """
    file = TensorFile(path)
    try:
        return {name: file.read(name) for name in file.entries}
    finally:
        file.close()


def read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object of bounded length.

    Raises:
        DamagedError: it is longer, not JSON, or no object. StorageError: it cannot be read.
    """
    with disk(path, "cannot read"), path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise DamagedError(f"{path} is longer than {max_bytes} bytes")
    return parse_json(raw, str(path))


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object; no name may come twice, and numbers are finite.

    Raises:
        DamagedError: says what `where` is not.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a name comes twice")
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number of JSON")

    try:
        found = json.loads(raw, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{where} holds no JSON object")
    return found


def _header(ordered: Sequence[Entry], metadata: Mapping[str, str] | None) -> bytes:
    tables: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for entry in ordered:
        end = at + entry.num_bytes
        tables[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [at, end],
        }
        at = end
    raw = json.dumps(tables, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Entry], dict[str, int]]:
    """Entries by name and where each one's values start; every byte of the file belongs to exactly one."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise DamagedError(
            f"{path} is no safetensors file: {size} bytes, a header of {length} announced, "
            f"at most {MAX_HEADER_BYTES} read"
        )
    tables = parse_json(file.read(length), f"the header of {path}")
    tables.pop("__metadata__", None)
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, table in tables.items():
        try:
            dtype, shape = _DTYPES[table["dtype"]], tuple(table["shape"])
            begin, end = table["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path}: the header's entry {name[:100]!r} is none: {error!r}") from error
        numbers = (*shape, begin, end)
        if len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
            raise DamagedError(f"{path}: {name[:100]!r} has an absurd shape or place: {str(numbers)[:200]}")
        entry = Entry(name, dtype, shape)
        if end - begin != entry.num_bytes or end > size - 8 - length:
            raise DamagedError(
                f"{path}: {name[:100]!r} needs {entry.num_bytes} bytes, {begin}..{end} of "
                f"{size - 8 - length} are promised"
            )
        entries[name] = entry
        spans.append((begin, end, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise DamagedError(f"{path}: the values of {name[:100]!r} overlap others, or leave a gap")
        at = end
    if at != size - 8 - length:
        raise DamagedError(f"{path} holds {size - 8 - length - at} bytes that belong to no tensor")
    return entries, {name: 8 + length + begin for begin, _, name in spans}


def _bytes_of(tensor: Tensor) -> memoryview:
    """The values as they are in a file; a view of them where they lie in the right order."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    if sys.byteorder == "big":
        raw = raw.reshape(-1, tensor.dtype.itemsize).flip(1).contiguous().reshape(-1)
    return raw.numpy().data
