"""Weights and folded state as the parts that their digests are taken of: written to be offered, read when fetched.

The bytes of a part are exactly what `psyche_train.fold.digest` hashes: per tensor its name and shape, then the
fp32 values. Where each tensor begins follows from the schema alone. See `psyche_train.checkpoints.part_index`
for how parts are named and proven.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from psyche_train._manifest import manifest_of_file
from psyche_train.checkpoints.errors import DamagedError, disk
from psyche_train.checkpoints.part_index import Offered, Part
from psyche_train.fold.digest import tensor_head, tensor_values
from psyche_train.models.schema import Schema
from psyche_train.models.tensors import TensorSpec

BLOB_BYTES = 1 << 30
"""A part is cut into blobs of this length. All members must cut alike, else their offers do not match."""
_READ_BYTES = 8 << 20


def shape_in(tensor: TensorSpec, part: int, max_tier: int) -> tuple[int, ...] | None:
    """Shape of what a part holds of a tensor; None if it holds nothing."""
    if part == max_tier:
        return tensor.shape_at(part)
    if tensor.cut_axis is None:
        return None
    sizes = list(tensor.shape)
    sizes[tensor.cut_axis] = (
        tensor.shape_at(part)[tensor.cut_axis] - tensor.shape_at(part + 1)[tensor.cut_axis]
    )
    return tuple(sizes)


def part_bytes(schema: Schema, part: int) -> int:
    """Length of a part in bytes."""
    return _layout(schema, part)[1]


def write_parts(
    weights: Mapping[str, Tensor], schema: Schema, tier: int, folder: Path, *, blob_bytes: int = BLOB_BYTES
) -> list[Offered]:
    """Write the parts from the smallest slice to tier `tier` into files, each of which is a blob.

    Args:
        weights: at tier `tier`'s width; every tensor is asked for once, one is in memory at a time.
        schema: of all that members share (`psyche_train.resolve.with_folded`).
        folder: takes the files; those of an earlier attempt are overwritten.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    with ExitStack() as stack, disk(folder, "cannot write"):
        writers = [_Writer(folder, part, blob_bytes) for part in range(schema.max_tier, tier - 1, -1)]
        for writer in writers:
            stack.callback(writer.close)
        for tensor in schema.stored:
            values = weights[tensor.name]
            for writer in writers:
                if writer.part == schema.max_tier:
                    writer.add(tensor.name, tensor.take(values, writer.part, tier))
                elif tensor.cut_axis is not None:
                    writer.add(tensor.name, tensor.added(values, writer.part, tier))
        return [writer.finish() for writer in writers]


class PartWeights(Mapping[str, Tensor]):
    """A tier's weights out of verified parts, ``name -> fp32 CPU tensor``, each read when it is asked for.

    Args:
        parts: from the smallest slice to tier `tier`.
        path_of: where the file of a blob is.

    Raises:
        DamagedError: a part has not the bytes that its digest is of, or not those of this model.
        StorageError: a file cannot be read.
    """

    def __init__(
        self, schema: Schema, tier: int, parts: Sequence[Part], path_of: Callable[[bytes], Path]
    ) -> None:
        self.tier = tier
        self._schema = schema
        self._tensors = {tensor.name: tensor for tensor in schema.stored}
        self._readers = [
            _Reader(schema, schema.max_tier - i, part, [path_of(blob) for blob, _ in part.blobs])
            for i, part in enumerate(parts)
        ]
        if len(parts) != schema.max_tier - tier + 1:
            raise DamagedError(f"{len(parts)} parts, tier {tier} has {schema.max_tier - tier + 1}")
        for reader in self._readers:
            reader.verify()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        if tensor.cut_axis is None:
            return self._readers[0].read(name)
        return _joined(tensor, [reader.read(name) for reader in self._readers])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _joined(tensor: TensorSpec, pieces: Sequence[Tensor]) -> Tensor:
    """What several parts hold of a tensor, side by side in each of its groups."""
    axis = tensor.cut_axis
    assert axis is not None
    grouped = [
        piece.reshape(*piece.shape[:axis], tensor.groups, -1, *piece.shape[axis + 1 :]) for piece in pieces
    ]
    return torch.cat(grouped, dim=axis + 1).flatten(axis, axis + 1).contiguous()


def _layout(schema: Schema, part: int) -> tuple[dict[str, tuple[int, bytes, tuple[int, ...]]], int]:
    """Name -> where the tensor begins, its head, its shape; and the length of the part."""
    found: dict[str, tuple[int, bytes, tuple[int, ...]]] = {}
    at = 0
    for tensor in schema.stored:
        shape = shape_in(tensor, part, schema.max_tier)
        if shape is None:
            continue
        head = tensor_head(tensor.name, shape)
        found[tensor.name] = (at, head, shape)
        at += len(head) + 4 * math.prod(shape)
    return found, at


class _Writer:
    """Writes one part into files of bounded length."""

    def __init__(self, folder: Path, part: int, blob_bytes: int) -> None:
        self.part = part
        self._folder, self._blob_bytes = folder, blob_bytes
        self._digest = hashlib.sha256()
        self._paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._room = 0

    def add(self, name: str, values: Tensor) -> None:
        self._write(memoryview(tensor_head(name, values.shape)))
        self._write(tensor_values(values).cast("B"))

    def _write(self, data: memoryview) -> None:
        self._digest.update(data)
        while len(data):
            if not self._room:
                self.close()
                self._paths.append(self._folder / f"part{self.part}-{len(self._paths)}")
                self._file = self._paths[-1].open("wb")
                self._room = self._blob_bytes
            assert self._file is not None
            self._file.write(data[: self._room])
            written = min(self._room, len(data))
            self._room -= written
            data = data[written:]

    def close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def finish(self) -> Offered:
        self.close()
        blobs = []
        for path in self._paths:
            with path.open("rb") as file:
                manifest = manifest_of_file(file)
            blobs.append((manifest.id, manifest.length))
        return Offered(Part(self._digest.digest(), tuple(blobs)), tuple(self._paths))


class _Reader:
    """Reads one part out of its blobs' files."""

    def __init__(self, schema: Schema, number: int, part: Part, paths: Sequence[Path]) -> None:
        self._number, self._part = number, part
        self._layout, length = _layout(schema, number)
        if part.num_bytes != length:
            raise DamagedError(f"part {number} has {part.num_bytes} bytes, this model's has {length}")
        self._spans: list[tuple[int, int, Path]] = []
        at = 0
        for path, (_, size) in zip(paths, part.blobs, strict=True):
            self._spans.append((at, at + size, path))
            at += size

    def verify(self) -> None:
        """Compare all bytes with the digest."""
        digest = hashlib.sha256()
        for begin, end, path in self._spans:
            with disk(path, "cannot read"), path.open("rb") as file:
                while data := file.read(_READ_BYTES):
                    digest.update(data)
                if file.tell() != end - begin:
                    raise DamagedError(f"{path} has {file.tell()} bytes, {end - begin} were announced")
        if digest.digest() != self._part.digest:
            raise DamagedError(
                f"part {self._number} has digest {digest.hexdigest()}, not {self._part.digest.hex()}"
            )

    def read(self, name: str) -> Tensor:
        """What this part holds of a tensor."""
        at, head, shape = self._layout[name]
        if bytes(self._bytes(at, len(head))) != head:
            raise DamagedError(f"part {self._number} does not hold {name} where this model has it")
        raw = self._bytes(at + len(head), 4 * math.prod(shape))
        values = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
        if sys.byteorder == "big":
            values = values.reshape(-1, 4).flip(1).contiguous().reshape(-1)
        return values.view(torch.float32).reshape(shape)

    def _bytes(self, at: int, length: int) -> bytearray:
        found = bytearray(length)
        view = memoryview(found)
        for begin, end, path in self._spans:
            start, stop = max(at, begin), min(at + length, end)
            if start >= stop:
                continue
            with disk(path, "cannot read"), path.open("rb") as file:
                file.seek(start - begin)
                if file.readinto(view[start - at : stop - at]) != stop - start:
                    raise DamagedError(f"{path} has become shorter")
        return found
