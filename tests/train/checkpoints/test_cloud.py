"""Object stores through fsspec: in memory, on disk, and S3 and GCS against stand-ins where those are installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from psyche_train.checkpoints import cloud
from psyche_train.checkpoints.errors import CheckpointError, DamagedError, StorageError
from psyche_train.checkpoints.manifest import MANIFEST, STATE, read_manifest
from psyche_train.checkpoints.remote import fetch, publish

pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """fsspec's store in memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of moto's S3 server on this machine."""
    missing = [name for name in ("s3fs", "moto") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: pip install s3fs 'moto[server]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    yield "s3://bucket/runs/demo"
    server.stop()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of the GCS emulator on this machine."""
    missing = [name for name in ("gcsfs", "gcp_storage_emulator") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: pip install gcsfs gcp-storage-emulator")
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.socket.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    yield "gs://bucket/runs/demo"
    server.stop()
    fsspec.filesystem("gs").clear_instance_cache()


@pytest.fixture(params=["memory", "file", "s3", "gs"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder in every kind of store."""
    if request.param in ("s3", "gs"):
        return str(request.getfixturevalue(request.param))
    if request.param == "file":
        return f"file://{tmp_path}/store/demo"
    request.getfixturevalue("memory")
    return "memory://runs/demo"


def check_same(source: Path, found: Path) -> None:
    """The published part of `source` is what was found, bit for bit."""
    manifest = read_manifest(found)
    assert manifest is not None
    manifest.verify(found)
    assert {path.name for path in found.iterdir()} == {path.name for path in source.iterdir()} - {STATE}
    for path in found.iterdir():
        assert path.name == MANIFEST or path.read_bytes() == (source / path.name).read_bytes()


def test_what_is_uploaded_comes_down_bit_for_bit(url, make_checkpoint, tmp_path):
    source = make_checkpoint(shard_bytes=5000)
    assert publish(source, url + "/") == url
    found = fetch(url, cache=tmp_path / "cache")
    check_same(source, found)
    assert fetch(url, cache=tmp_path / "cache") == found
    other = make_checkpoint("other", 5)
    publish(other, url)
    check_same(other, fetch(url, cache=tmp_path / "cache"))


def test_an_upload_that_broke_off_is_no_checkpoint_and_goes_on(
    memory, make_checkpoint, tmp_path, monkeypatch
):
    source = make_checkpoint(shard_bytes=5000)
    put, sent = MemoryFileSystem.put_file, []

    def breaking(self, local, remote, **options):
        if len(sent) == 2:
            raise PermissionError("broken off by the test")
        sent.append(remote.rsplit("/", 1)[1])
        return put(self, local, remote, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", breaking)
    with pytest.raises(StorageError, match="credentials"):
        publish(source, "memory://x/y")
    with pytest.raises(CheckpointError, match="is being uploaded"):
        fetch("memory://x/y", cache=tmp_path / "cache")
    monkeypatch.setattr(
        MemoryFileSystem,
        "put_file",
        lambda self, a, b, **o: (sent.append(b.rsplit("/", 1)[1]), put(self, a, b, **o)),
    )
    publish(source, "memory://x/y")
    assert len(sent) == len(set(sent)) == len(list(source.iterdir())) - 2
    check_same(source, fetch("memory://x/y", cache=tmp_path / "cache"))
    sent.clear()
    publish(source, "memory://x/y")
    assert sent == []


def test_a_torn_object_of_an_upload_that_broke_off_is_sent_again(
    memory, make_checkpoint, tmp_path, monkeypatch
):
    source = make_checkpoint()
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse_after(MemoryFileSystem.pipe_file, 1))
    with pytest.raises(StorageError):
        publish(source, "memory://x/y")
    monkeypatch.undo()
    path = "/x/y/model.safetensors"
    memory.pipe_file(path, memory.cat_file(path)[:100])
    publish(source, "memory://x/y")
    check_same(source, fetch("memory://x/y", cache=tmp_path / "cache"))


def refuse_after(call, allowed):
    calls = []

    def counted(*args, **options):
        calls.append(1)
        if len(calls) > allowed:
            raise PermissionError("refused by the test")
        return call(*args, **options)

    return counted


def test_a_download_that_broke_off_goes_on_where_it_was(memory, make_checkpoint, tmp_path, monkeypatch):
    source = make_checkpoint()
    publish(source, "memory://x/y")
    monkeypatch.setattr(cloud, "READ_BYTES", 1000)
    cat, ranges = MemoryFileSystem.cat_file, []

    def failing(self, path, start=None, end=None, **options):
        if path.endswith("model.safetensors") and start is not None:
            ranges.append(start)
            if len(ranges) in (4, 6, 7):
                raise ConnectionResetError("broken off by the test")
        return cat(self, path, start=start, end=end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing)
    check_same(source, fetch("memory://x/y", cache=tmp_path / "cache"))
    assert ranges[3:5] == [3000, 3000]
    assert ranges[5:8] == [4000, 4000, 4000]


@pytest.mark.parametrize("times", [1, 2])
def test_damage_on_the_way_is_found(memory, make_checkpoint, tmp_path, monkeypatch, times):
    publish(make_checkpoint(), "memory://x/y")
    cat, flips = MemoryFileSystem.cat_file, []

    def flipping(self, path, start=None, end=None, **options):
        content = cat(self, path, start=start, end=end, **options)
        if path.endswith("model.safetensors") and len(flips) < times:
            flips.append(1)
            return content[:-1] + bytes([content[-1] ^ 1])
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", flipping)
    if times == 1:
        read_manifest(fetch("memory://x/y", cache=tmp_path / "cache")).verify(
            fetch("memory://x/y", cache=tmp_path / "cache")
        )
    else:
        with pytest.raises(DamagedError, match="twice"):
            fetch("memory://x/y", cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", ".hidden"])
def test_a_manifest_that_names_files_elsewhere_is_refused(memory, make_checkpoint, tmp_path, name):
    publish(make_checkpoint(), "memory://x/y")
    tables = json.loads(memory.cat_file("/x/y/manifest.json"))
    tables["files"][name] = {"bytes": 1, "sha256": "00" * 32}
    memory.pipe_file("/x/y/manifest.json", json.dumps(tables).encode())
    with pytest.raises(DamagedError, match="not a file beside it"):
        fetch("memory://x/y", cache=tmp_path / "cache")


def test_a_folder_without_a_manifest_is_taken_as_it_is(memory, make_checkpoint, tmp_path):
    source = make_checkpoint(manifest=False)
    memory.put_file(str(source / "config.json"), "/x/config.json")
    memory.put_file(str(source / "model.safetensors"), "/x/model.safetensors")
    memory.pipe_file("/x/training.log", b"much")
    found = fetch("memory://x", cache=tmp_path / "cache")
    assert {path.name for path in found.iterdir()} == {"config.json", "model.safetensors"}


def test_failures_are_named(memory, make_checkpoint, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    with pytest.raises(CheckpointError, match="empty, or not there"):
        fetch("memory://nothing/here", cache=cache)
    with pytest.raises(CheckpointError, match="no address"):
        fetch("no-such-scheme://x/y", cache=cache)
    with pytest.raises(CheckpointError, match="no place to upload to"):
        publish(make_checkpoint(), "/some/where")
    publish(tmp_path / "model", "memory://x/y")
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(cloud.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(StorageError, match="free space"):
        fetch("memory://x/y", cache=cache)
    monkeypatch.undo()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DamagedError, match="not what the manifest says"):
        publish(tmp_path / "model", "memory://x/z")


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_store_whose_package_is_missing_says_what_to_install(monkeypatch, scheme, package, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(CheckpointError, match=rf"{package}.*pip install 'psyche-py\[cloud\]'"):
        fetch(f"{scheme}://bucket/x", cache=tmp_path)
