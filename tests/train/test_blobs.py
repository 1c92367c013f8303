"""The blob store: ids, verification, durability, resumption."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.blobs import (
    PIECE,
    BlobCorrupt,
    BlobMissing,
    BlobStore,
    BlobStoreError,
    Manifest,
    blob_id,
)

SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7]


def test_id_is_the_two_level_hash_of_the_contract() -> None:
    data = os.urandom(PIECE + 3)
    pieces = hashlib.sha256(data[:PIECE]).digest() + hashlib.sha256(data[PIECE:]).digest()
    assert blob_id(data) == hashlib.sha256(len(data).to_bytes(8, "little") + pieces).digest()
    assert blob_id(b"").hex() == hashlib.sha256(bytes(8)).hexdigest()


@given(st.binary(max_size=200))
def test_manifest_decoder_refuses_or_round_trips(raw: bytes) -> None:
    try:
        manifest = Manifest.from_bytes(raw)
    except BlobCorrupt:
        return
    assert manifest.to_bytes() == raw


@pytest.mark.parametrize("size", SIZES)
def test_put_then_get_from_bytes_and_from_a_file(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    store = BlobStore(tmp_path / "store")
    source = tmp_path / "source"
    source.write_bytes(data)
    name = store.put(source)
    assert store.put(data) == name == blob_id(data)
    assert store.get(name) == store.path(name).read_bytes() == data
    assert store.read(name, 1, PIECE) == data[1 : PIECE + 1]
    assert store.manifest(name) == Manifest.of_bytes(data)
    assert list(store.ids()) == [name]
    assert store.total_bytes >= size
    store.path(name).with_suffix(".manifest").unlink()
    assert store.manifest(name) == Manifest.of_bytes(data), "made again from the blob"


def test_damaged_blob_is_reported_and_removed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    name = store.put(b"x" * 1000)
    store.path(name).write_bytes(b"x" * 999 + b"y")
    with pytest.raises(BlobCorrupt, match="damaged on disk and is removed"):
        store.get(name)
    with pytest.raises(BlobMissing):
        store.get(name)


def test_partial_keeps_verified_pieces_over_a_restart(tmp_path: Path) -> None:
    data = os.urandom(3 * PIECE + 5)
    manifest = Manifest.of_bytes(data)
    store = BlobStore(tmp_path)
    with store.partial(manifest) as partial:
        partial.write_piece(2, data[2 * PIECE : 3 * PIECE])
        with pytest.raises(BlobCorrupt, match="piece 0 of blob"):
            partial.write_piece(0, bytes(PIECE))
        with pytest.raises(ValueError, match="3 pieces"):
            partial.finish()
    again = BlobStore(tmp_path, sweep=True)
    assert again.partial_manifest(manifest.id) == manifest
    with again.partial(manifest) as partial:
        assert partial.missing == {0, 1, 3}
        for index in (0, 1, 3):
            partial.write_piece(index, data[index * PIECE : (index + 1) * PIECE])
        partial.finish()
    assert again.get(manifest.id) == data
    assert again.partial_manifest(manifest.id) is None


def test_hidden_is_kept_and_only_ever_raised(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    name = store.put(b"a", hidden_until=4)
    assert store.hidden_until(name) == 4
    store.put(b"a", hidden_until=3)
    store.put(b"a")
    assert BlobStore(tmp_path).hidden_until(name) == 4
    assert store.hidden_until(store.put(b"b")) is None
    (tmp_path / f"{name.hex()}.hidden").write_text("")
    hidden = store.hidden_until(name)
    assert hidden is not None
    assert hidden > 2**62, "a torn record hides the blob"


def test_prune_keeps_what_is_named(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    keep, drop = store.put(b"keep", hidden_until=1), store.put(b"drop")
    with store.partial(Manifest.of_bytes(b"part")):
        pass
    assert store.prune([keep]) == 2
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {keep.hex()}
    assert store.has(keep)
    assert not store.has(drop)


def test_prune_passes_over_folders_that_are_not_its_own(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    drop = store.put(b"drop")
    (tmp_path / ("d" * 64)).mkdir()
    assert store.prune([]) == 1
    assert not store.has(drop)


def test_full_disk_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BlobStoreError, match=r"cannot store a blob .*No space left.*free some disk space"):
        store.put(b"data", hidden_until=1)
    monkeypatch.undo()
    if hasattr(os, "posix_fallocate"):
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(BlobStoreError, match="cannot make room for 4 bytes"):
            store.partial(Manifest.of_bytes(b"data"))
    assert list(tmp_path.iterdir()) == []


def test_directory_that_cannot_be_one_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        BlobStoreError, match=r"cannot open the blob store at .*choose another state directory"
    ):
        BlobStore(tmp_path / "file" / "store")


WRITER = """
import os, sys
from pathlib import Path
from psyche_train.blobs import BlobStore, Manifest, PIECE
store = BlobStore(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    data = os.urandom(2 * PIECE + 9)
    store.put(data, hidden_until=1)
    part = os.urandom(2 * PIECE + 9)
    with store.partial(Manifest.of_bytes(part)) as partial:
        for i in range(3):
            partial.write_piece(i, part[i * PIECE : (i + 1) * PIECE])
        partial.finish()
"""


def test_store_is_whole_after_kill_at_any_moment(tmp_path: Path) -> None:
    for attempt in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.01 + 0.013 * attempt)
            process.send_signal(signal.SIGKILL)
    store = BlobStore(tmp_path, sweep=True)
    names = list(store.ids())
    assert names
    assert not list(tmp_path.glob("tmp-*"))
    for name in names:
        assert len(store.get(name)) == 2 * PIECE + 9
        assert store.manifest(name).id == name
    for part in tmp_path.glob("*.part"):
        manifest = store.partial_manifest(bytes.fromhex(part.stem))
        assert manifest is not None
        with store.partial(manifest) as partial:
            for index in set(range(3)) - partial.missing:
                data = part.read_bytes()[index * PIECE :][: manifest.piece_bytes(index)]
                assert hashlib.sha256(data).digest() == manifest.digests[index]
