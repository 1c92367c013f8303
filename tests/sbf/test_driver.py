"""programs/build.py: which tools it takes, and what it says of programs that differ."""

import hashlib
import json
from pathlib import Path

import pytest
from sbf_toolchain import driver
from sbf_toolchain.errors import ToolchainError
from sbf_toolchain.tools import SBF_DIR


def executable(path: Path) -> Path:
    """An executable that does nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_find_official_passes_over_this_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{SBF_DIR}:{tmp_path / 'empty'}")
    assert driver.find_official() is None
    official = executable(tmp_path / "solana" / "cargo-build-sbf")
    monkeypatch.setenv("PATH", f"{SBF_DIR}:{official.parent}")
    assert driver.find_official() == official


def test_build_environment_drops_what_would_change_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARGO_PROFILE_RELEASE_LTO", "RUSTFLAGS", "CARGO_TARGET_DIR", "SBF_OPT"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CARGO_HOME", "/kept")
    found = driver.build_environment()
    assert found["CARGO_HOME"] == "/kept"
    assert not {"CARGO_PROFILE_RELEASE_LTO", "RUSTFLAGS", "CARGO_TARGET_DIR", "SBF_OPT"} & found.keys()


def test_compare_names_absent_and_changed_files(tmp_path: Path) -> None:
    committed, made = tmp_path / "committed", tmp_path / "made"
    for folder in (committed, made):
        folder.mkdir()
        for name in driver.output_names():
            (folder / name).write_bytes(name.encode())
    assert driver.compare(committed, made, driver.output_names()) == []
    (committed / "treasurer.json").unlink()
    (made / "coordinator.so").write_bytes(b"other")
    assert driver.compare(committed, made, driver.output_names()) == ["coordinator.so", "treasurer.json"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with sources of three programs and nothing built."""
    for name in ("Cargo.toml", "Cargo.lock"):
        (tmp_path / name).write_text(name)
    for name in driver.PROGRAMS:
        folder = tmp_path / "programs" / name
        (folder / "src").mkdir(parents=True)
        (folder / "Cargo.toml").write_text(name)
        (folder / "src" / "lib.rs").write_text("//! A program.")
    (tmp_path / "programs" / "sbf").symlink_to(SBF_DIR)
    return tmp_path


def test_source_digest_sees_contents_names_and_nothing_else(repository: Path) -> None:
    before = driver.source_digest(repository)
    source = repository / "programs" / "treasurer" / "src" / "lib.rs"
    (source.parent.parent / "README.md").write_text("not a source")
    assert driver.source_digest(repository) == before
    source.write_text("//! Another.")
    changed = driver.source_digest(repository)
    assert changed != before
    source.rename(source.with_name("main.rs"))
    assert driver.source_digest(repository) not in (before, changed)


def test_copy_sources_leaves_build_output_behind(repository: Path, tmp_path: Path) -> None:
    (repository / "programs" / "treasurer" / "target").mkdir()
    copy = tmp_path / "copy"
    driver.copy_sources(repository, copy)
    assert (copy / "programs" / "treasurer" / "src" / "lib.rs").is_file()
    assert not (copy / "programs" / "treasurer" / "target").exists()
    (repository / "Cargo.lock").unlink()
    with pytest.raises(ToolchainError, match=r"Cargo\.lock is missing"):
        driver.copy_sources(repository, tmp_path / "again")


def test_why_different_tells_sources_from_tools_from_bugs(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"rustc": "1", "llvm": "22", "toolchain": "t", "sources": "s", "sha256": {}}
    monkeypatch.setattr(driver, "make_record", lambda _: record)
    assert "is missing: run `make programs`" in driver.why_different(repository)
    path = repository / driver.RECORD
    path.write_text(json.dumps(record))
    assert "not reproducible" in driver.why_different(repository)
    path.write_text(json.dumps(record | {"rustc": "0"}))
    assert driver.why_different(repository) == "rustc: built with 0, here is 1"
    path.write_text(json.dumps(record | {"sources": "older"}))
    assert "sources have changed" in driver.why_different(repository)


def test_committed_programs_are_those_of_the_record_and_the_sources() -> None:
    """Runs everywhere, and says whether somebody forgot `make programs`; test_rebuild checks the rest."""
    record = json.loads((driver.ROOT / driver.RECORD).read_text())
    folder = driver.ROOT / driver.PACKAGE_DATA
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in driver.output_names()}
    assert found == record["sha256"], "psyche_chain/programs is not what the last `make programs` wrote"
    assert driver.source_digest(driver.ROOT) == record["sources"], (
        "the Rust sources have changed since the last build: run `make programs` and commit what it writes"
    )
