"""Shards on a web server: pieces, faults, retries, the cache."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from psyche_train.blobs import PIECE
from psyche_train.data import transfer
from psyche_train.data.dataset import Dataset
from psyche_train.data.errors import DataError
from psyche_train.spec import TrainSpec
from tests.train.data.server import FaultyServer, serving
from tests.train.data.shards import tokens_of, write_prepared

SHARDS = ("shard-00000.bin", "shard-00001.bin")
TOKENS = tokens_of(600_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    """Serves prepared data of two shards, three pieces and two."""
    write_prepared(tmp_path / "www", TOKENS, [350_000])
    with serving(tmp_path / "www") as found:
        yield found


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> transfer.HttpTransfer:
    """The real transfer with small times."""
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(transfer, "LONGEST_PAUSE_S", 0.05)
    quick = transfer.HttpTransfer(deadline_s=5.0, stall_s=0.3)
    monkeypatch.setattr(transfer, "_shared", quick)
    return quick


def folder_spec(make_spec, server: FaultyServer) -> TrainSpec:
    return make_spec(data_location={"Http": {"location": {"Folder": server.url}}}).resolve()


def everything(data: Dataset) -> set[tuple[int, ...]]:
    return {tuple(row) for row in data.batch([range(data.num_train)]).tolist()}


def test_pieces_are_fetched_once_and_only_those_that_are_needed(make_spec, server: FaultyServer):
    spec = folder_spec(make_spec, server)
    assert {name for name, _ in server.requests} == {"manifest.json"}
    data = Dataset(spec, 160)
    data.batch([range(1)])
    assert server.count(SHARDS[0]) + server.count(SHARDS[1]) in (1, 2)
    rows = everything(data)
    assert rows < {tuple(row) for row in TOKENS[: 600_000 // 17 * 17].reshape(-1, 17).tolist()}
    assert len(rows) == data.num_train
    ranges = [asked for asked in server.requests if asked[0] in SHARDS]
    assert len(ranges) == len(set(ranges)) == 5
    server.requests.clear()
    assert everything(Dataset(spec, 160)) == rows
    assert server.requests == []


def test_same_data_have_the_same_manifest_from_a_server_and_from_a_folder(make_spec, server: FaultyServer):
    local = make_spec(data_location={"Local": {"path": str(server.folder)}}).resolve()
    http = folder_spec(make_spec, server)
    assert http.data_location.chosen.manifest == local.data_location.chosen.manifest


def test_faults_that_pass_are_waited_out(make_spec, server: FaultyServer):
    server.faults["manifest.json"] = ["500", "cut"]
    spec = folder_spec(make_spec, server)
    server.faults[SHARDS[0] + ".pieces"] = ["429", "cut"]
    server.faults[SHARDS[0]] = ["503", "cut", "wrong", "hang", "408"]
    server.faults[SHARDS[1]] = ["502", "wrong"]
    data = Dataset(spec, 160)
    assert len(everything(data)) == data.num_train
    assert not any(server.faults.values())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404!", r"shard-00001\.bin is not on the server \(404\): check data_location"),
        ("403!", r"shard-00001\.bin is refused by the server \(403\)"),
        ("416!", r"ends before byte \d+: it is not the run's file"),
        ("500!", r"cannot be read: the server answered 500 \(\d+ tries in 5 s\)"),
        ("wrong!", r"the server sends bytes that do not have the hash that the manifest says"),
    ],
)
def test_fault_that_stays_names_url_and_samples_and_changes_nothing(
    make_spec, server: FaultyServer, hurried, fault, message
):
    spec = folder_spec(make_spec, server)
    server.faults[SHARDS[1]] = [fault]
    data = Dataset(spec, 160)
    with pytest.raises(DataError, match=rf"samples \d+.* cannot be read: {server.url}{SHARDS[1]}.*{message}"):
        data.batch([range(200)])
    server.faults.clear()
    assert len(everything(data)) == data.num_train


def test_server_that_drips_is_given_up_at_the_deadline(make_spec, server: FaultyServer, hurried):
    spec = folder_spec(make_spec, server)
    hurried.deadline_s = 1.0
    server.faults[SHARDS[1]] = ["hang!"]
    with pytest.raises(DataError, match=r"ReadTimeout.* \(\d+ tries in 1 s\)"):
        Dataset(spec, 160).batch([range(200)])


def test_no_server_is_an_error_with_what_to_do(make_spec, hurried):
    hurried.deadline_s = 0.3
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(DataError, match="Check the network and the server"):
            make_spec(data_location={"Http": {"location": {"Folder": url}}}).resolve()


def test_other_data_under_the_old_name_are_refused(make_spec, server: FaultyServer, cache: Path):
    spec = folder_spec(make_spec, server)
    shutil.rmtree(cache)
    write_prepared(server.folder, tokens_of(600_000, seed=1), [350_000])
    with pytest.raises(DataError, match=r"manifest\.json is manifest .*, the run's data have"):
        Dataset(spec, 160)


def test_damage_in_the_cache_is_repaired(make_spec, server: FaultyServer, cache: Path):
    spec = folder_spec(make_spec, server)
    rows = everything(Dataset(spec, 160))
    for number, file in enumerate(sorted(cache.rglob("*"))):
        if file.is_file() and file.parent.parent.name == "http":
            with file.open("r+b") as opened:
                opened.write(b"?" * 100) if number % 2 else opened.truncate(1000)
    assert everything(Dataset(spec, 160)) == rows


def test_server_without_ranges_serves_whole_files(make_spec, server: FaultyServer):
    server.ranges = False
    server.faults[SHARDS[0]] = ["cut", "503"]
    data = Dataset(folder_spec(make_spec, server), 160)
    assert len(everything(data)) == data.num_train
    assert server.count(SHARDS[1]) <= 3  # several threads ask for a range, one takes the file


def test_server_without_digests_of_pieces_serves_whole_files(make_spec, server: FaultyServer):
    spec = folder_spec(make_spec, server)
    (server.folder / (SHARDS[0] + ".pieces")).unlink()
    data = Dataset(spec, 160)
    assert len(everything(data)) == data.num_train
    assert (SHARDS[0], "") in server.requests


@pytest.mark.parametrize(
    "location",
    [
        {"SingleUrl": "{url}a.bin"},
        {"Urls": ["{url}a.bin", "{url}b.bin"]},
        {
            "NumberedFiles": {
                "url_template": "{url}part-{}.bin",
                "start_index": 8,
                "n_left_pad_zeros": 2,
                "num_files": 3,
            }
        },
    ],
)
def test_plain_files_without_manifest_are_fetched_whole_once(make_spec, tmp_path: Path, location):
    folder = tmp_path / "plain"
    folder.mkdir()
    names = {"SingleUrl": ["a.bin"], "Urls": ["a.bin", "b.bin"]}.get(
        next(iter(location)), ["part-08.bin", "part-09.bin", "part-10.bin"]
    )
    for seed, name in enumerate(names):
        tokens_of(20_000, seed).astype("<u2").tofile(folder / name)
    expected = np.concatenate([tokens_of(20_000, seed) for seed in range(len(names))])
    with serving(folder) as server:
        server.faults[names[0]] = ["cut"]
        filled = json.loads(json.dumps(location).replace("{url}", server.url))
        spec = make_spec(data_location={"Http": {"location": filled}}).resolve()
        assert [server.count(name) for name in names] == [2] + [1] * (len(names) - 1)
        rows = everything(Dataset(spec, 160))
        assert rows < {tuple(row) for row in expected[: len(expected) // 17 * 17].reshape(-1, 17).tolist()}
        assert [server.count(name) for name in names] == [2] + [1] * (len(names) - 1)
        other = make_spec(data_location={"Http": {"location": filled, "manifest": "ab" * 32}})
        with pytest.raises(DataError, match="are not the run's data"):
            Dataset(other, 160)


def test_number_of_files_that_contradicts_the_manifest_is_refused(make_spec, server: FaultyServer):
    location = {
        "NumberedFiles": {"url_template": server.url + "shard-{}.bin", "n_left_pad_zeros": 5, "num_files": 3}
    }
    with pytest.raises(DataError, match="names 2 shards, data_location names 3 files"):
        make_spec(data_location={"Http": {"location": location}}).resolve()


def test_folder_without_manifest_is_refused(make_spec, server: FaultyServer):
    (server.folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="make the folder with psyche-train prepare-data"):
        folder_spec(make_spec, server)


def test_bucket_is_read_through_fsspec(make_spec, tmp_path: Path):
    files = fsspec.filesystem("memory")
    write_to = Path("/bucket/data")
    write_prepared(tmp_path / "up", TOKENS, [350_000])
    for file in (tmp_path / "up").iterdir():
        files.pipe_file(str(write_to / file.name), file.read_bytes())
    spec = make_spec(data_location={"Http": {"location": {"Folder": f"memory:/{write_to}"}}}).resolve()
    assert len(everything(Dataset(spec, 160))) == Dataset(spec, 160).num_train
    files.rm(str(write_to / SHARDS[1]))
    again = Dataset(spec, 160)
    assert len(everything(again)) == again.num_train  # all of it is in the cache


def test_unknown_scheme_is_refused(make_spec):
    with pytest.raises(DataError, match="nosuch:// cannot be read here"):
        make_spec(data_location={"Http": {"location": {"Folder": "nosuch://x/y"}}}).resolve()


def test_pieces_of_the_tests_are_what_they_claim():
    assert 2 * PIECE < 350_000 * 2
    assert PIECE < 250_000 * 2
