"""Faults injected into the checkpoint store: `kill -9` and a full disk at every point where it writes."""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from psyche_train.checkpoints import store as store_module
from psyche_train.checkpoints.errors import StorageError
from psyche_train.checkpoints.position import Position
from psyche_train.checkpoints.store import CheckpointInfo, CheckpointStore, newest, verify

INFO = CheckpointInfo(bytes(32), bytes(32), bytes(32), 0, b"\7" * 32)
MOST_POINTS = 200


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that the system holds, so syncing is counted here and not done."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def write(store: CheckpointStore, step: int) -> Path:
    position = Position(history=bytes([step] * 32), step=step, round=step + 1)
    weights = {"a": torch.full((40,), float(step)), "b": torch.full((40,), float(-step))}

    def save_config(folder: Path) -> None:
        with (folder / "config.json").open("w") as file:
            file.write('{"model_type": "llama"}')

    return store.write(position, INFO, weights, {"error/a": torch.full((7,), float(step))}, save_config)


def steps_of(folder: Path) -> list[int]:
    return [position.step for _, position, _ in newest(folder)]


class Points:
    """Counts the calls that change the disk, and does something at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> None:
        self.count, self.at, self.act = 0, at, act
        for owner, name in [
            (os, "fsync"),
            (os, "open"),
            (os, "mkdir"),
            (os, "rename"),
            (os, "replace"),
            (os, "unlink"),
            (os, "rmdir"),
        ]:
            monkeypatch.setattr(owner, name, self._counting(getattr(owner, name)))
        points, original = self, io.open

        def opened(file: object, mode: str = "r", *args: object, **options: object) -> object:
            found = original(file, mode, *args, **options)  # type: ignore[call-overload]
            if "w" in mode or "a" in mode:
                points.hit()
                found.write = points._counting(found.write)  # type: ignore[union-attr]
            return found

        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(builtins, "open", opened)

    def hit(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.act()

    def _counting(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **options: object) -> object:
            self.hit()
            return call(*args, **options)

        return counted


def killed_child(at: int, action: Callable[[], None]) -> bool:
    """Run `action` in a child that is killed at its `at`-th point; False if it came to its end."""
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as monkeypatch:
            Points(monkeypatch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            action()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


@contextmanager
def suppress_named(text: str) -> Iterator[None]:
    """Let a StorageError pass if it says this; any other error is the test's failure."""
    try:
        yield
    except StorageError as error:
        if text not in str(error):
            raise


@pytest.mark.slow
@pytest.mark.parametrize("replaces", [False, True], ids=["a new one", "the same position again"])
def test_killed_at_every_write_point_the_store_holds_the_old_or_the_new(tmp_path, replaces):
    written = 3 if replaces else 4
    before = CheckpointStore(tmp_path / "before", keep=2, shard_bytes=100)
    for step in (1, 2, 3):
        write(before, step)
    for at in range(1, MOST_POINTS):
        folder = Path(shutil.copytree(before.folder, tmp_path / f"{at}"))
        store = CheckpointStore(folder, keep=2, shard_bytes=100)
        assert steps_of(folder) == [3, 2]
        was_killed = killed_child(at, lambda store=store: write(store, written))
        again = CheckpointStore(folder, keep=2, shard_bytes=100)
        found = steps_of(folder)
        assert found[0] in (3, written)
        assert len(found) >= 2
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        write(again, 5)
        assert steps_of(folder)[0] == 5
        if not was_killed:
            break
        shutil.rmtree(folder)
    assert 15 < at < MOST_POINTS - 1


def test_a_full_disk_at_every_write_point_is_named_and_leaves_what_was_there(tmp_path, monkeypatch):
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = CheckpointStore(tmp_path / "before", keep=2, shard_bytes=100)
    for step in (1, 2):
        write(before, step)
    for at in range(1, MOST_POINTS):
        folder = Path(shutil.copytree(before.folder, tmp_path / f"{at}"))
        store = CheckpointStore(folder, keep=2, shard_bytes=100)
        with monkeypatch.context() as patched:
            points = Points(patched, at, full)
            with suppress_named("No space left on device; free space"):
                write(store, 3)
        found = steps_of(folder)
        assert found[:2] in ([2, 1], [3, 2])
        assert not list(folder.glob(".new-*"))
        write(store, 4)
        assert steps_of(folder)[0] == 4
        if points.count < at:
            break
        shutil.rmtree(folder)
    assert 15 < at < MOST_POINTS - 1


def test_killed_while_pinning_the_pin_is_the_old_or_the_new(tmp_path):
    for at in range(1, MOST_POINTS):
        folder = tmp_path / f"{at}"
        store = CheckpointStore(folder, keep=1)
        store.pin(write(store, 1))
        second = write(store, 2)
        was_killed = killed_child(at, lambda store=store, second=second: store.pin(second))
        again = CheckpointStore(folder, keep=1)
        write(again, 3)
        assert len(steps_of(folder)) == 2
        assert steps_of(folder)[1] in (1, 2)
        if not was_killed:
            break
    assert 3 < at < MOST_POINTS - 1


@pytest.mark.parametrize("tool", ["truncate", "flip", "remove", "swap"])
def test_every_file_of_a_checkpoint_is_covered_by_its_manifest(tmp_path, tool):
    folder = tmp_path / "store"
    store = CheckpointStore(folder, shard_bytes=100)
    other, path = write(store, 1), write(store, 2)
    for file in sorted(path.iterdir()):
        raw = file.read_bytes()
        damaged = {"truncate": raw[:-3], "flip": raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:]}.get(tool, raw)
        file.write_bytes(damaged)
        if tool == "remove":
            file.unlink()
        if tool == "swap" and (other / file.name).exists():
            file.write_bytes((other / file.name).read_bytes())
        if tool == "swap" and file.read_bytes() == raw:  # config.json is the same in both
            continue
        assert steps_of(folder) == [1], file.name
        file.write_bytes(raw)
        verify(path)


def test_nothing_is_deleted_that_is_not_a_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path / "store", keep=1)
    (tmp_path / "store" / "notes.txt").write_text("mine")
    write(store, 1)
    write(store, 2)
    store.clear()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["notes.txt"]
    assert store_module.newest(tmp_path / "nothing") is not None
