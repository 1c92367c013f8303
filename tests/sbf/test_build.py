"""cargo-build-sbf: its command line, what it says when something is missing, and the compiler it calls."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from sbf_toolchain import build, tools
from sbf_toolchain.errors import ToolchainError
from sbf_toolchain.tools import SBF_DIR


def test_parse_arguments_reads_what_anchor_passes() -> None:
    found = build.parse_arguments(
        ["build-sbf", "--manifest-path", "p/Cargo.toml", "--features", "a", "--", "--locked", "-q"]
    )
    assert found.manifest == Path("p/Cargo.toml")
    assert found.features == ["a"]
    assert found.cargo_args == ["--locked", "-q"]
    assert found.default_features
    assert not found.prepare_only


def test_parse_arguments_takes_and_ignores_the_options_for_solana_tools() -> None:
    found = build.parse_arguments(["--tools-version", "v1.52", "--arch", "v0", "--force-tools-install"])
    assert found == build.Options(jobs=found.jobs, features=[], cargo_args=[])


def test_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build.parse_arguments(["--debugg"])
    assert caught.value.code == 2
    assert "--debugg" in capsys.readouterr().err


def test_missing_compiler_names_the_packages_and_the_command(tmp_path: Path) -> None:
    environment = os.environ | {"SBF_RUSTC": str(tmp_path / "none")}
    command = [SBF_DIR / "cargo-build-sbf", "--prepare"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("cargo-build-sbf: missing tools; run: apt-get install ")
    assert "rustc-web" in result.stderr
    assert "Traceback" not in result.stderr


def test_compiler_on_another_llvm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rustc = tmp_path / "rustc"
    rustc.write_text("#!/bin/sh\necho 'rustc 1.60.0'\necho 'release: 1.60.0'\necho 'LLVM version: 14.0.0'\n")
    rustc.chmod(0o755)
    monkeypatch.setenv("SBF_RUSTC", str(rustc))
    with pytest.raises(ToolchainError, match=r"is built on LLVM 14\.0\.0, LLVM 22 is needed"):
        tools.find_tools()


def test_missing_packages_are_those_with_an_absent_file(tmp_path: Path) -> None:
    there, absent = tmp_path / "there", tmp_path / "absent"
    there.touch()
    files = {"a": [there], "b": [there, absent], "c": []}
    assert tools.missing_packages(files) == ["b"]


def test_package_list_names_every_package_that_is_looked_for() -> None:
    listed = (SBF_DIR / "packages.txt").read_text().split()
    assert set(listed) == {*tools.package_files(), "rust-web-src"}


def test_build_without_manifest_says_where_it_looked(tmp_path: Path) -> None:
    found = tools.Tools(
        rustc=Path("rustc"),
        cargo=Path("cargo"),
        rust_source=tmp_path,
        release="1",
        rustc_version="1",
        llvm_version="22",
    )
    options = build.Options(manifest=tmp_path / "Cargo.toml")
    with pytest.raises(
        ToolchainError, match=rf"no manifest at {tmp_path}/Cargo.toml; name one with --manifest-path"
    ):
        build.build(options, found, tmp_path)


def message(**changes: object) -> str:
    """One line of cargo's output about a program."""
    target = {"name": "my-program", "crate_types": ["cdylib", "lib"]}
    return json.dumps({"reason": "compiler-artifact", "package_id": "p", "target": target} | changes)


def test_programs_in_message_takes_programs_and_passes_over_the_rest(tmp_path: Path) -> None:
    program = tmp_path / "sbf-solana" / "release" / "my_program.so"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF")
    (empty := program.with_name("empty.so")).touch()
    files = [str(program), str(program.with_name("libmy_program.rlib"))]
    assert build.programs_in_message(message(filenames=files), "p") == [("my_program", program)]
    assert build.programs_in_message(message(filenames=[str(empty)]), "p") == []
    assert build.programs_in_message(message(filenames=files), "another package") == []
    assert build.programs_in_message(message(reason="build-finished"), "p") == []
    assert build.programs_in_message("warning: not JSON", "p") == []


def test_select_programs_takes_one_for_its_manifest_and_all_for_a_workspace(tmp_path: Path) -> None:
    packages = [
        {"manifest_path": str(tmp_path / name / "Cargo.toml"), "targets": [{"crate_types": [kind]}]}
        for name, kind in (("a", "cdylib"), ("b", "cdylib"), ("library", "lib"))
    ]
    assert build.select_programs(packages, tmp_path / "b" / "Cargo.toml") == [packages[1]]
    assert build.select_programs(packages, tmp_path / "Cargo.toml") == packages[:2]


def call_sbf_rustc(folder: Path, *arguments: str, **environment: str) -> list[str]:
    """Run the compiler wrapper over `echo` and return what the compiler would get."""
    variables = {"PATH": os.environ["PATH"], "SBF_RUSTC": "/bin/echo", "SBF_CACHE": "/cache"} | environment
    command = [SBF_DIR / "sbf-rustc", *arguments]
    return subprocess.check_output(command, cwd=folder, env=variables, text=True).split()


def test_sbf_rustc_passes_host_compilations_through(tmp_path: Path) -> None:
    assert call_sbf_rustc(tmp_path, "-vV", SBF_SYSROOT="/s") == ["-vV"]
    host = ["--crate-name", "x", "--target", "x86_64-unknown-linux-gnu"]
    assert call_sbf_rustc(tmp_path, *host, SBF_SYSROOT="/s", CARGO_MANIFEST_DIR="/m") == host


def test_sbf_rustc_gives_every_crate_a_name_instead_of_its_folder(tmp_path: Path) -> None:
    package = {"CARGO_PKG_NAME": "dep", "CARGO_PKG_VERSION": "1.2.3", "CARGO_MANIFEST_DIR": "/home/me/dep"}
    found = call_sbf_rustc(
        tmp_path, "--target", "sbf-solana", "src/lib.rs", SBF_SYSROOT="/s", OUT_DIR="/t/out", **package
    )
    assert found == [
        "-Zunstable-options",
        "--sysroot",
        "/s",
        "--remap-path-prefix",
        "/home/me/dep=/cargo/dep-1.2.3",
        "--remap-path-prefix",
        "/t/out=/build/dep",
        "--target",
        "sbf-solana",
        "src/lib.rs",
    ]


def test_sbf_rustc_gives_the_workspace_one_name(tmp_path: Path) -> None:
    package = {"CARGO_PKG_NAME": "p", "CARGO_PKG_VERSION": "1", "CARGO_MANIFEST_DIR": str(tmp_path / "p")}
    found = call_sbf_rustc(
        tmp_path, "--target=sbf-solana", SBF_SYSROOT="/s", SBF_WORKSPACE=str(tmp_path.resolve()), **package
    )
    assert f"{tmp_path.resolve()}=/workspace" in found
    assert not any("/cargo/" in word for word in found)
