"""The folder of a member: what is in the way is named before anything starts."""

from pathlib import Path

import pytest

from psyche_chain.client.statedir import StateDir
from psyche_chain.errors import PsycheError


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [("blobs", True), ("checkpoints", True), ("records.log", False), ("events.jsonl", False)],
)
def test_something_else_under_a_name_of_ours_is_named_and_kept(
    tmp_path: Path, name: str, is_folder: bool
) -> None:
    path = tmp_path / name
    if is_folder:
        path.write_text("precious")
    else:
        path.mkdir()
    with pytest.raises(PsycheError, match=f"{name} is not a {'folder' if is_folder else 'file'}"):
        StateDir(tmp_path).prepare()
    assert path.exists()


def test_a_folder_that_is_whole_is_used_again(tmp_path: Path) -> None:
    folder = StateDir(tmp_path / "deep" / "state")
    folder.prepare()
    (folder.path / "checkpoints").mkdir()
    folder.records.touch()
    folder.events.touch()
    folder.prepare()


@pytest.mark.parametrize(
    "settings",
    [b"", b"\xff\xfe{", b"[1]", b'{"port": 99999999}', b'{"port": -3}', b'{"port": true}', b'{"port": "x"}'],
)
def test_settings_that_make_no_sense_are_replaced(tmp_path: Path, settings: bytes) -> None:
    (tmp_path / "client.json").write_bytes(settings)
    folder = StateDir(tmp_path)
    folder.prepare()
    first = folder.listen_address("/ip4/127.0.0.1/tcp/0")
    assert 1024 <= int(first.rpartition("/")[2]) < 65536
    assert folder.listen_address("/ip4/127.0.0.1/tcp/0") == first
