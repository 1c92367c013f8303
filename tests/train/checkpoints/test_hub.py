"""Upload to and download from the Hub, against the stand-in of `hub_standin`; never the real one."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from psyche_train.checkpoints import hub
from psyche_train.checkpoints.errors import CheckpointError, DamagedError, StorageError
from psyche_train.checkpoints.manifest import MANIFEST, STATE, read_manifest
from psyche_train.checkpoints.remote import Reference, fetch, publish
from tests.train.checkpoints.hub_standin import READER, Fault, Repo

REPO = "org/model"


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("parts", [False, True], ids=["one part", "several parts"])
def test_what_is_uploaded_comes_down_bit_for_bit_and_without_the_members_own_state(
    standin, make_checkpoint, parts
):
    standin.parts = parts
    source = make_checkpoint(shard_bytes=5000)
    reference = publish(source, f"hub:{REPO}", message="step 120")
    assert standin.repos[REPO].messages == ["step 120"]
    found = fetch(reference)
    assert reference == f"hub:{REPO}@{found.name}"
    sent, received = content(source), content(found)
    manifest = read_manifest(found)
    assert manifest is not None
    manifest.verify(found)
    assert set(received) == set(sent) - {STATE}
    assert STATE not in manifest.files
    assert all(received[name] == sent[name] for name in received if name != MANIFEST)
    assert not any(b"member's own" in raw for raw in standin.objects.values())


def test_a_revision_is_pinned_so_that_later_commits_change_nothing(standin, make_checkpoint):
    first = publish(make_checkpoint("one", 1), f"hub:{REPO}")
    second = publish(make_checkpoint("two", 2), f"hub:{REPO}")
    assert first != second
    assert hub.pin(REPO, "main") == hub.pin(REPO, None) == second.split("@")[1]
    one, two = (json.loads((fetch(ref) / "config.json").read_text())["seed"] for ref in (first, second))
    assert (one, two) == (1, 2)


def test_the_same_again_is_no_commit_and_sends_nothing_large(standin, make_checkpoint):
    source = make_checkpoint()
    first = publish(source, f"hub:{REPO}")
    standin.requests.clear()
    assert publish(source, f"hub:{REPO}") == first
    assert not [line for line in standin.requests if line.startswith("PUT")]


def test_files_of_an_older_checkpoint_go_and_others_stay(standin, make_checkpoint):
    publish(make_checkpoint("sharded", 1, shard_bytes=5000), f"hub:{REPO}")
    standin.add(REPO, {"README.md": b"# ours", "tier1/model.safetensors": b"old"})
    newest = publish(make_checkpoint("whole", 2), f"hub:{REPO}").split("@")[1]
    names = set(standin.repos[REPO].commits[newest])
    assert {"README.md", ".gitattributes", "model.safetensors"} <= names
    assert not [name for name in names if "of-0000" in name or "index" in name or name.startswith("tier")]


def test_a_branch_of_its_own_is_created(standin, make_checkpoint):
    publish(make_checkpoint("one", 1), f"hub:{REPO}")
    main = standin.repos[REPO].branches["main"]
    publish(make_checkpoint("two", 2), f"hub:{REPO}@epoch-2")
    assert standin.repos[REPO].branches["main"] == main
    assert set(standin.repos[REPO].branches) == {"main", "epoch-2"}


@pytest.mark.parametrize(
    "request_", ["POST .*/commit/", "POST .*batch", "PUT /lfs", "POST .*preupload", "GET .*tree"]
)
def test_upload_goes_on_after_a_failure_that_passes(standin, make_checkpoint, request_):
    standin.repos[REPO] = Repo()
    standin.add(REPO, {})
    standin.faults = [Fault(request_, "503")]
    reference = publish(make_checkpoint(), f"hub:{REPO}")
    assert len(standin.fired) == 1
    assert fetch(reference).is_dir()


@pytest.mark.parametrize("kind", ["503", "429", "cut"])
@pytest.mark.parametrize("request_", ["GET .*tree", "GET /cdn/", "GET .*/resolve/.*config"])
def test_download_goes_on_after_a_failure_that_passes(standin, make_checkpoint, kind, request_):
    reference = publish(make_checkpoint(), f"hub:{REPO}")
    standin.faults = [Fault(request_, kind)]
    read_manifest(fetch(reference)).verify(fetch(reference))
    assert len(standin.fired) == 1


def test_a_flipped_bit_is_found_and_the_file_fetched_again(standin, make_checkpoint, caplog):
    reference = publish(make_checkpoint(), f"hub:{REPO}")
    standin.faults = [Fault("GET /cdn/", "flip")]
    read_manifest(fetch(reference)).verify(fetch(reference))
    assert standin.fired == [line for line in standin.fired if line.startswith("flip")]
    assert "arrived damaged" in caplog.text
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    standin.faults = [Fault("GET /cdn/", "flip")] * 3
    with pytest.raises(DamagedError, match="twice"):
        fetch(reference)


def test_refusals_say_what_to_do(standin, make_checkpoint, monkeypatch):
    source = make_checkpoint()
    publish(source, f"hub:{REPO}")
    standin.add("org/private", {"config.json": b"{}"}, private=True)
    standin.add("org/gated", {"config.json": b"{}", "model.safetensors": b"x" * 5000}, gated=True)
    standin.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    monkeypatch.setenv("HF_TOKEN", READER)
    for reference, said in {
        "hub:org/nothing": "not there, or is private",
        f"hub:{REPO}@no-such-branch": "no such revision",
        f"hub:{REPO}@{'0' * 40}": "no such revision",
        "hub:org/gated": "gated: accept its terms",
        "hub:org/pickled": "pickled weights",
    }.items():
        with pytest.raises(CheckpointError, match=said):
            fetch(reference)
    with pytest.raises(CheckpointError, match="may not be written with this token"):
        publish(source, f"hub:{REPO}")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(CheckpointError, match=r"token|not there"):
        fetch(f"hub:{REPO}")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match="not there, or is private"):
        fetch("hub:org/private")
    for wrong in ("hub:", "hub:a/b/c", "hub:../x", "hub:org/model@", "hub:org/ model"):
        with pytest.raises(CheckpointError):
            fetch(wrong)


def test_failures_that_stay_are_named_after_some_tries(standin, make_checkpoint, monkeypatch):
    reference = publish(make_checkpoint(), f"hub:{REPO}")
    standin.faults = [Fault("GET .*tree", "500")] * 60
    with pytest.raises(StorageError, match="status 500"):
        fetch(reference)
    standin.faults.clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="cannot be reached"):
        fetch(f"hub:{REPO}")


def test_offline_the_cache_serves_a_pinned_commit_and_nothing_else(standin, make_checkpoint, monkeypatch):
    reference = publish(make_checkpoint(), f"hub:{REPO}")
    online = fetch(reference)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch(reference) == online
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE"):
        fetch("hub:org/other")


def test_a_full_disk_is_named(standin, make_checkpoint, monkeypatch):
    reference = publish(make_checkpoint(), f"hub:{REPO}")
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(StorageError, match="free space"):
        fetch(reference)
    monkeypatch.undo()


def test_a_disk_that_fills_up_while_downloading_is_named(standin, make_checkpoint, monkeypatch):
    reference = publish(make_checkpoint(), f"hub:{REPO}")

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(StorageError, match=r"No space left on device; free space"):
        fetch(reference)


def test_references_are_taken_apart():
    assert Reference.parse("hub:org/name@v1.0") == Reference("hub:org/name@v1.0", "org/name", "v1.0")
    assert Reference.parse("s3://bucket/x").is_url
    assert not Reference.parse("/some/where").is_url
